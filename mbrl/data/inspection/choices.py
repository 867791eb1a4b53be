"""What a log says of its choices: how often each was taken, where none of it was, how far chance decided.

States are put into cells by k-means on standardised observations. A choice that was never taken in a cell is
one whose effect the log does not show there, however often it was taken elsewhere.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.normaliser import fit_moments

Floats = NDArray[np.float64]

MAX_CELLS: Final = 16
ROWS_A_CELL: Final = 60
"""Rows for each cell at least: a choice of probability 5 % is then missed once in twenty cells."""

EXPECTED: Final = 3.0
"""Steps of a choice that a cell should hold by the share of the choice; fewer may be missing by chance."""

SURE: Final = 0.05
"""Entropy of the behaviour, as a share of that of even choices, below which it hardly varies."""

ACTION_TIMES: Final = ("action_timestamps", "action_times", "action_time")
"""Infos `[T]` that say when an action was decided, on the clock of the time stamps."""

_ROWS: Final = 20_000
_ROUNDS: Final = 25
_SHOWN: Final = 8


class ChoiceCount(BaseModel):
    """One choice.

    Attributes:
        name: of the choice.
        count: steps that took it.
        episodes: episodes in which it was taken.
        cells: cells of states in which it was.
        allowed: share of the states that allowed it; None for a log without masks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    count: int
    episodes: int
    cells: int
    allowed: float | None = None


class StateCell(BaseModel):
    """A cell of states.

    Attributes:
        rows: steps in it, of those that were put into cells.
        centre: mean of its observations, raw units, by dimension.
        missing: choices that were never taken in it, though allowed there, and though by their share of all
            steps three or more were to be expected.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    centre: tuple[float, ...]
    missing: tuple[str, ...]


class ChoiceStats(BaseModel):
    """Figures of a log of choices.

    Attributes:
        choices: one entry for each, in the order of the space.
        cells: of states, the largest first.
        entropy: of all choices together, nats.
        state_entropy: mean over cells of the entropy within one, weighted by rows, nats: what chance decides,
            or what cells do not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: tuple[ChoiceCount, ...]
    cells: tuple[StateCell, ...]
    entropy: float
    state_entropy: float


def summarise_choices(dataset: Dataset) -> ChoiceStats | None:
    """Counts and cells of a log of choices; None for continuous actions. On at most 20,000 rows for cells."""
    names = dataset.spec.choices
    if names is None:
        return None
    rows = dataset.transitions()
    index = rows.action.argmax(1)
    kept = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).astype(np.int64))
    cell = assign_cells(rows.observation[kept])
    cells, taken, entropies = _cells(rows, kept, cell, names)
    counts = np.bincount(index, minlength=len(names))
    allowed = None if rows.action_mask is None else rows.action_mask.mean(0)
    choices = tuple(
        ChoiceCount(
            name=name,
            count=int(counts[k]),
            episodes=len(np.unique(rows.episode[index == k])),
            cells=int(taken[:, k].sum()),
            allowed=None if allowed is None else float(allowed[k]),
        )
        for k, name in enumerate(names)
    )
    return ChoiceStats(
        choices=choices,
        cells=tuple(sorted(cells, key=lambda found: -found.rows)),
        entropy=_entropy(counts.astype(np.float64)),
        state_entropy=float(np.average(entropies, weights=[found.rows for found in cells])),
    )


def _cells(
    rows: Transitions, kept: NDArray[np.int64], cell: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[list[StateCell], NDArray[np.bool_], Floats]:
    """Cells, which choices were taken in each `[k, n]`, and the entropy within each `[k]`."""
    index, share = rows.action[kept].argmax(1), rows.action.mean(0, dtype=np.float64)
    cells: list[StateCell] = []
    taken = np.zeros((int(cell.max()) + 1, len(names)), dtype=np.bool_)
    entropies = np.zeros(len(taken))
    for k in range(len(taken)):
        inside = cell == k
        counts = np.bincount(index[inside], minlength=len(names))
        taken[k] = counts > 0
        entropies[k] = _entropy(counts.astype(np.float64))
        able = np.ones(len(names), dtype=np.bool_)
        if rows.action_mask is not None:
            able = rows.action_mask[kept[inside]].any(0)
        centre = rows.observation[kept[inside]].mean(0, dtype=np.float64)
        able &= share * inside.sum() >= EXPECTED
        missing = tuple(names[a] for a in np.flatnonzero(able & ~taken[k]))
        cells.append(StateCell(rows=int(inside.sum()), centre=tuple(centre.tolist()), missing=missing))
    return cells, taken, entropies


def assign_cells(observation: NDArray[np.float32], most: int = MAX_CELLS) -> NDArray[np.int64]:
    """`[n]` cells 0, 1, ... by k-means (Lloyd 1982), none of them empty; a function of the rows alone.

    Args:
        observation: `[n, obs_dim]`, raw units.
        most: cells; fewer where there are fewer than 60 rows for each.
    """
    mean, scale = fit_moments(observation)
    points = (observation.astype(np.float64) - mean) / scale
    count = min(max(1, len(points) // ROWS_A_CELL), most)
    centres = _far_points(points, count)
    cell = np.zeros(len(points), dtype=np.int64)
    for _ in range(_ROUNDS):
        squares = np.square(centres).sum(1) - 2.0 * points @ centres.T
        found = squares.argmin(1)
        if bool((found == cell).all()):
            break
        cell = found
        for k in np.unique(cell):
            centres[k] = points[cell == k].mean(0)
    return np.unique(cell, return_inverse=True)[1].reshape(-1)


def _far_points(points: Floats, count: int) -> Floats:
    """`[count, d]` first centres: the row next to the middle, then always that farthest from all so far."""
    chosen = [int(np.square(points).sum(1).argmin())]
    nearest = np.square(points - points[chosen[0]]).sum(1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(points - points[chosen[-1]]).sum(1))
    return points[chosen].copy()


def _entropy(counts: Floats) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def choice_findings(stats: ChoiceStats) -> Iterator[DataFinding]:
    """Yields what counts and cells give reason to say."""
    never = [choice.name for choice in stats.choices if choice.count == 0]
    if never:
        yield DataFinding(
            severity="warning",
            text=f"Choices that nobody took: {_shown(never)}. The log says nothing of what they do.",
            remedy="Log some of them, or state the other choices alone: what a model says of them is "
            "invented.",
        )
    lacking = [cell for cell in stats.cells if cell.missing]
    if lacking:
        share = sum(cell.rows for cell in lacking) / sum(cell.rows for cell in stats.cells)
        found = {name for cell in lacking for name in cell.missing}
        names = [choice.name for choice in stats.choices if choice.name in found]
        yield DataFinding(
            severity="note",
            text=f"In {len(lacking)} of {len(stats.cells)} cells of states, {100 * share:.0f} % of the "
            f"steps, choices were never taken that are taken elsewhere: {_shown(names)}.",
            remedy="See the table of cells: there the log cannot tell what they do, and a learner or a model "
            "that prefers them guesses.",
        )
    most = float(np.log(len(stats.choices)))
    if most > 0 and stats.state_entropy < SURE * most:
        yield DataFinding(
            severity="note",
            text=f"Alike states got the same choice nearly always (entropy {stats.state_entropy:.2g} of at "
            f"most {most:.2g} nats).",
            remedy="Imitation suits such a log; what other choices would have done it does not tell.",
        )


def _shown(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def leak_findings(dataset: Dataset) -> Iterator[DataFinding]:
    """Yields actions that the time stamps put outside of the step that they stand in.

    Action t belongs between the observation t, which it was decided by, and the observation t + 1, which it
    led to. An action that was decided at or after the successor's time has seen its own outcome; one from
    before the observation's time is part of what the observation shows, as where both are means over one
    window of measurements. Either way estimates and models learn from what nobody knew.
    """
    late = early = steps = 0
    place: tuple[int, int] | None = None
    for index, episode in enumerate(dataset.episodes):
        name = next((key for key in ACTION_TIMES if key in episode.infos), None)
        if name is None or episode.timestamps is None:
            continue
        times = np.asarray(episode.infos[name], dtype=np.float64).reshape(-1)[: len(episode)]
        if len(times) < len(episode) or not bool(np.isfinite(times).all()):
            continue
        after: NDArray[np.bool_] = times >= episode.timestamps[1:]
        before: NDArray[np.bool_] = times < episode.timestamps[:-1]
        odd = np.flatnonzero(after | before)
        if len(odd) and place is None:
            place = (index, int(odd[0]))
        late, early, steps = late + int(after.sum()), early + int(before.sum()), steps + len(episode)
    if place is None:
        return
    where = f"; the first is row {place[1]} of episode {place[0]}"
    if late:
        yield DataFinding(
            severity="warning",
            text=f"{late} of {steps} actions were decided at or after the time of the next observation"
            f"{where}: they may have been chosen by what they are held to have caused.",
            remedy="Put each action into the step whose observation came before it, and leave out what was "
            "measured in the same window.",
        )
    if early:
        yield DataFinding(
            severity="warning",
            text=f"{early} of {steps} actions were decided before the time of the observation that they "
            f"stand beside{where}: it may show their effect already.",
            remedy="Take the last observation that was complete when the action was decided.",
        )
