"""Where a model knows too little: by episode, by the range of a channel, over a plane of two channels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import measure_moments
from mbrl.data.splits import Split
from mbrl.dynamics.assessment.calibration import probability_transform
from mbrl.dynamics.assessment.one_step import HeldOutSteps
from mbrl.dynamics.gap_report import DoubtfulRange, DoubtMap, EpisodeError, GapReport, UnloggedAction
from mbrl.dynamics.report import RankCorrelation, to_floats

_EDGE: Final = 0.005  # share of the rows beyond each end of a channel's cells; they count in the outermost
_RANGES: Final = 8  # of equal width, of a channel
_CELLS: Final = 12  # of each axis of the map
_LEAST_ROWS: Final = 20  # that a mean over a range needs
_DOUBTFUL: Final = 1.5  # times the median uncertainty, from which a range is named
_USUAL: Final = 0.5  # share of the rows from which a range is the usual, and no gap
_MOST_RANGES: Final = 3
_USED: Final = 0.8  # of the permitted range, from which an action counts as used
_LEVEL: Final = 0.9

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Doubt:
    """Uncertainty and errors at logged rows.

    Attributes:
        values: `[n, c]` channels: the newest frame, then the action, raw units.
        doubt: `[n]` a measure of uncertainty, in its own units.
        error: `[n]` root mean square over channels, deviations of the change; NaN at fitted rows.
    """

    values: Array
    doubt: Array
    error: Array

    @property
    def usual(self) -> float:
        """Median uncertainty; 1 where it is 0 nearly everywhere."""
        return float(np.median(self.doubt)) or 1.0


def find_gaps(
    held_out: tuple[Transitions, Mapping[str, Array]],
    fitted: tuple[Transitions, Mapping[str, Array]],
    steps: HeldOutSteps,
    *,
    correlations: Mapping[str, RankCorrelation],
    split: Split,
) -> GapReport:
    """What to mistrust, and what to log next.

    Args:
        held_out: held-out rows, and measures of uncertainty there by name.
        fitted: some of the rows that were fitted to, likewise.
        steps: predictions and outcomes of the held-out rows, deviations of the targets.
        correlations: by measure; the one that ranks errors best is taken.
        split: names, bounds, and the numbers of the held-out episodes.
    """
    frame_dim = steps.target.shape[1] - 1
    # A measure that knows no bound for some row, as distances to nothing, says nothing of the others.
    finite = [
        name for name in correlations if all(np.isfinite(part[1][name]).all() for part in (held_out, fitted))
    ]
    if not finite:
        return GapReport()
    measure = max(finite, key=lambda name: np.nan_to_num(correlations[name].value, nan=-2.0))
    varies = np.flatnonzero(~measure_moments(fitted[0].observation[:, :frame_dim]).is_constant)
    squared = steps.residual()[:, :-1].square().numpy()[:, varies]
    error = np.sqrt(squared.mean(1)) if len(varies) else np.zeros(len(squared))
    spec, log = split.holdout.spec, split.holdout
    parts = [_channels(rows, frame_dim, spec) for rows in (held_out[0], fitted[0])]
    both = Doubt(
        np.concatenate(parts),
        np.concatenate([held_out[1][measure], fitted[1][measure]]),
        np.concatenate([error, np.full(len(parts[1]), np.nan)]),
    )
    return GapReport(
        measure=measure,
        channels=log.obs_names[:frame_dim] + (() if spec.is_discrete else log.act_names),
        episodes=_by_episode(held_out[0], steps, split, varies),
        ranges=doubtful_ranges(both),
        unlogged=()
        if spec.is_discrete
        else unlogged_actions(both.values[:, frame_dim:], spec, first=frame_dim),
        map=map_doubt(both),
    )


def doubtful_ranges(rows: Doubt) -> tuple[DoubtfulRange, ...]:
    """The most doubtful range of each of at most three channels.

    A channel is cut into eight ranges of equal width. Neighbours where the model is 1.5 times as unsure as
    usual (medians), and held-out errors are not below average, are one range. Of channels with a range that
    holds less than half of the rows, those where it is least sure are named.
    """
    found = [
        worst for channel in range(rows.values.shape[1]) if (worst := _worst_range(rows, channel)) is not None
    ]
    return tuple(sorted(found, key=lambda one: -one.doubt)[:_MOST_RANGES])


def unlogged_actions(
    actions: NDArray[np.floating[Any]], spec: SpaceSpec, *, first: int
) -> tuple[UnloggedAction, ...]:
    """Actions whose logged range, but for 0.5 % at each end, is less than 80 % of what is permitted.

    Args:
        actions: `[n, act_dim]`, environment units.
        spec: the bounds.
        first: channel of the first action.
    """
    low, high = np.quantile(actions, [_EDGE, 1 - _EDGE], axis=0)
    return tuple(
        UnloggedAction(
            channel=first + d,
            low=float(low[d]),
            high=float(high[d]),
            bound_low=spec.act_low[d],
            bound_high=spec.act_high[d],
        )
        for d in range(spec.act_dim)
        if high[d] - low[d] < _USED * (spec.act_high[d] - spec.act_low[d])
    )


def map_doubt(rows: Doubt) -> DoubtMap | None:
    """Cells over the two channels between whose ranges the logarithm of the uncertainty varies most."""
    explained = np.array([_explained(rows, c) for c in range(rows.values.shape[1])])
    if (explained > 0).sum() < 2:
        return None
    x, y = (int(c) for c in np.argsort(-explained, kind="stable")[:2])
    edges = [_edges(rows.values[:, c], _CELLS) for c in (x, y)]
    place = _place(rows.values[:, x], edges[0]) * _CELLS + _place(rows.values[:, y], edges[1])
    count = np.bincount(place, minlength=_CELLS**2)
    cells = np.flatnonzero(count)
    # Medians: a measure has a long tail, and a mean would be that of a few rows.
    doubt = np.array([np.median(rows.doubt[place == cell]) for cell in cells])
    centre = [0.5 * (edge[1:] + edge[:-1]) for edge in edges]
    return DoubtMap(
        channels=(x, y),
        x=to_floats(centre[0][cells // _CELLS]),
        y=to_floats(centre[1][cells % _CELLS]),
        count=tuple(int(n) for n in count[cells]),
        doubt=to_floats(doubt / rows.usual),
        explained=(float(explained[x]), float(explained[y])),
    )


def _channels(rows: Transitions, frame_dim: int, spec: SpaceSpec) -> Array:
    # A choice has no range of values; which were never taken is told elsewhere (`ChannelReport`).
    action = rows.action[:, : 0 if spec.is_discrete else spec.act_dim]
    return np.concatenate((rows.observation[:, :frame_dim], action), 1).astype(np.float64)


def _by_episode(
    rows: Transitions,
    steps: HeldOutSteps,
    split: Split,
    varies: NDArray[np.int64],
) -> tuple[EpisodeError, ...]:
    squared = steps.residual()[:, :-1].square().numpy()
    inside = ((probability_transform(steps)[:, :-1] - 0.5).abs() <= 0.5 * _LEVEL).numpy()
    dims: NDArray[np.int64] = varies if len(varies) else np.arange(squared.shape[1], dtype=np.int64)
    found: list[EpisodeError] = []
    numbers = split.numbers
    for index in cast("list[int]", np.unique(rows.episode).tolist()):
        own = rows.episode == index
        by_channel = squared[own][:, dims].mean(0)
        found.append(
            EpisodeError(
                episode=numbers[index],
                first_step=split.holdout.episodes[index].first_step,
                rows=int(own.sum()),
                error=float(np.sqrt(by_channel.mean())),
                coverage=float(inside[own][:, dims].mean()),
                worst=int(dims[by_channel.argmax()]),
            )
        )
    return tuple(sorted(found, key=lambda one: -one.error))


def _worst_range(rows: Doubt, channel: int) -> DoubtfulRange | None:
    values = rows.values[:, channel]
    edges = _edges(values, _RANGES)
    if edges[0] == edges[-1]:
        return None
    place = _place(values, edges)
    best: DoubtfulRange | None = None
    for first, last in _runs([_is_doubtful(rows, place == k) for k in range(_RANGES)]):
        inside = (place >= first) & (place <= last)
        if inside.mean() >= _USUAL:
            continue
        found = DoubtfulRange(
            channel=channel,
            low=None if first == 0 else float(edges[first]),
            high=None if last == _RANGES - 1 else float(edges[last + 1]),
            share=float(inside.mean()),
            doubt=float(np.median(rows.doubt[inside]) / rows.usual),
            error=_error_ratio(rows, inside),
        )
        best = found if best is None or found.doubt > best.doubt else best
    return best


def _is_doubtful(rows: Doubt, inside: NDArray[np.bool_]) -> bool:
    if inside.sum() < _LEAST_ROWS or np.median(rows.doubt[inside]) < _DOUBTFUL * rows.usual:
        return False
    error = _error_ratio(rows, inside)
    return error is None or error >= 1.0


def _error_ratio(rows: Doubt, inside: NDArray[np.bool_]) -> float | None:
    judged = np.isfinite(rows.error)
    here = judged & inside
    overall = float(np.square(rows.error[judged]).mean()) if judged.any() else 0.0
    if here.sum() < _LEAST_ROWS or overall == 0.0:
        return None
    return float(np.sqrt(np.square(rows.error[here]).mean() / overall))


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """First and last index of each run of True."""
    padded = np.diff(np.array([False, *flags, False]).astype(np.int8))
    return [
        (int(a), int(b) - 1) for a, b in zip(*(np.flatnonzero(padded == s) for s in (1, -1)), strict=True)
    ]


def _explained(rows: Doubt, channel: int) -> float:
    """Share of the variance of log doubt between eight ranges of equally many rows (correlation ratio)."""
    logs = np.log(np.maximum(rows.doubt, 1e-30))
    total = float(np.square(logs - logs.mean()).sum())
    values = rows.values[:, channel]
    inner = np.unique(np.quantile(values, np.arange(1, _RANGES) / _RANGES))
    place = np.searchsorted(inner, values, side="right")
    count = np.bincount(place)
    filled = count > 0
    means = np.bincount(place, logs)[filled] / count[filled]
    between = float((count[filled] * np.square(means - logs.mean())).sum())
    return between / total if total > 0 else 0.0


def _edges(values: Array, count: int) -> Array:
    low, high = (float(end) for end in np.quantile(values, [_EDGE, 1 - _EDGE]))
    return np.linspace(low, high, count + 1, dtype=np.float64)


def _place(values: Array, edges: Array) -> NDArray[np.int64]:
    place: NDArray[np.int64] = np.searchsorted(edges, values, side="right").astype(np.int64) - 1
    return np.clip(place, 0, len(edges) - 2)
