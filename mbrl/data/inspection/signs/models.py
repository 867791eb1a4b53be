"""What small models say of a log: delays, actions without effect, states that are not all of the state."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from mbrl.data.importing.guess.pairs import find_response
from mbrl.data.importing.signals import usual_interval
from mbrl.data.inspection.finding import Chart, Curve, DataFinding
from mbrl.data.inspection.record import Floats, Record
from mbrl.data.inspection.steps import MAX_LAG, Steps, control_steps

MARGIN: Final = 0.05
"""Share by which a later action must reduce the held-out error to be the one that acts."""

HISTORY_MARGIN: Final = 0.15
"""Share by which another lag must reduce the held-out error for a history to be advised."""

STRONG_HISTORY: Final = 0.3
"""From which that is a warning; below it may be curvature that ridge does not follow."""

EFFECT: Final = 0.005
"""Share by which an action must reduce the held-out error of some dimension to explain anything."""

ALIKE: Final = 0.7
"""Correlation from which a column counts as a measurement of a command."""

_MOST_ACTIONS: Final = 8
_MOST_COLUMNS: Final = 24


def find_models(record: Record) -> Iterator[DataFinding]:
    """All signs that need the record at its control rate, which is made once."""
    steps = control_steps(record)
    if steps is None:
        return
    yield from find_hidden_state(steps)
    yield from find_delay(steps, record.step)
    yield from find_inert_actions(steps)


def find_hidden_state(steps: Steps) -> Iterator[DataFinding]:
    """Whether states before the present one reduce the held-out one-step error."""
    present = steps.present()
    errors = [
        float(
            np.mean(
                steps.held_out_error(
                    np.concatenate([present, steps.history(k), steps.actions(range(1, k + 1))], 1)
                )
            )
        )
        for k in range(4)
    ]
    frames = 1
    while frames < 4 and errors[frames] < (1 - HISTORY_MARGIN) * errors[frames - 1]:
        frames += 1
    if frames == 1:
        return
    gain = 1 - errors[frames - 1] / errors[0]
    yield DataFinding(
        severity="warning" if gain > STRONG_HISTORY else "note",
        kind="hidden_state",
        text=f"Observations are not the whole state: {frames - 1} more "
        f"{'lag' if frames == 2 else 'lags'} of them "
        f"and of the actions {'reduces' if frames == 2 else 'reduce'} the held-out one-step error of "
        f"ridge by "
        f"{100 * gain:.0f} % ({errors[0]:.3g} to {errors[frames - 1]:.3g} of persistence), as where "
        f"velocities "
        "are missing.",
        remedy=f"history: {frames}; or add velocities: {{derivative: COLUMN, window: SECONDS}}.",
        chart=Chart(
            title="Held-out one-step error by frames",
            x_label="error, share of persistence",
            bars=("1 frame", "2 frames", "3 frames", "4 frames"),
            curves=(Curve(label="ridge", x=(), y=tuple(errors)),),
        ),
    )


def find_delay(steps: Steps, step: float) -> Iterator[DataFinding]:
    """Whether an action of some steps ago explains the change better than the present one.

    The lag that alone predicts best counts where later actions add nothing to it and those before: without
    velocities, the change of a step follows the action before the present one as much as the present one.
    """
    base = steps.state()

    def error(lags: Iterable[int]) -> float:
        return float(np.mean(steps.held_out_error(np.concatenate([base, steps.actions(list(lags))], 1))))

    lags = range(MAX_LAG - 1)
    errors = [error([lag]) for lag in lags]
    best = int(np.argmin(errors))
    if best == 0 or errors[best] > (1 - MARGIN) * errors[0]:
        return
    whole = error(range(MAX_LAG))
    if error(range(best, MAX_LAG)) > (1 + MARGIN / 5) * whole:
        return
    if error(range(best + 1, MAX_LAG)) < (1 + MARGIN / 2) * whole:
        return
    seconds = best * step
    yield DataFinding(
        severity="warning",
        kind="delay",
        text=f"The command acts with a delay of {best} {'step' if best == 1 else 'steps'} "
        f"({1e3 * seconds:.3g} ms): "
        f"that of {best} before reduces the held-out one-step error by "
        f"{100 * (1 - errors[best] / errors[0]):.0f} % "
        "against the present one.",
        remedy=f"history: {best + 1} lets the model see commands under way by what they moved; better, "
        f"shift the "
        f"stamps of the commands by {seconds:.3g} s before the import (a file of their own in sources).",
        chart=Chart(
            title="Held-out one-step error by lag of the action",
            x_label="error, share of persistence",
            bars=tuple(f"{lag} steps before" for lag in lags),
            curves=(Curve(label="ridge", x=(), y=tuple(errors)),),
        ),
    )


def find_inert_actions(steps: Steps) -> Iterator[DataFinding]:
    """Actions that explain no change of any observation, now or two steps later.

    Columns of one choice are asked together: that a machine does as it would with the others when one of them
    is taken is no fault.
    """
    columns = range(min(len(steps.names), _MOST_COLUMNS))
    asked = {steps.names[k]: [k] for k in columns}
    if steps.are_choices:
        asked = {"The choice": list(range(len(steps.names)))}
    base = steps.state()
    without = steps.held_out_error(base)
    gains: dict[str, float] = {}
    for name, which in asked.items():
        error = steps.held_out_error(np.concatenate([base, steps.actions(range(3), which)], 1))
        gains[name] = float(np.max(1 - error / np.maximum(without, 1e-12)))
    inert = [name for name, gain in gains.items() if gain < EFFECT]
    if not inert:
        return
    yield DataFinding(
        severity="warning",
        kind="inert_actions",
        channels=steps.names if steps.are_choices else tuple(inert),
        text=f"{', '.join(inert)} {'explains' if len(inert) == 1 else 'explain'} no change of the "
        "observations beyond what these say themselves "
        f"(less than {100 * EFFECT:g} % of the held-out error).",
        remedy="Check that it is the command of this machine and of these rows; leave it out of "
        "actions, or log "
        "data that vary it apart from the state.",
        chart=Chart(
            title="What each action explains",
            x_label="held-out error less, %",
            bars=tuple(gains),
            curves=(
                Curve(
                    label="most of any dimension",
                    x=(),
                    y=tuple(100 * max(gain, 0.0) for gain in gains.values()),
                ),
            ),
        ),
    )


def find_measured_commands(record: Record) -> Iterator[DataFinding]:
    """Columns that are measurements of a command, with the lag at which they follow it."""
    if not record.is_raw:
        return
    longest = max(record.traces, key=lambda trace: len(trace.time))
    usable = [bool(np.isfinite(longest.values[:, k]).all()) for k in range(len(record.channels))]
    interval = usual_interval(longest.time)
    actions = [(k, c) for k, c in record.enumerated("action") if usable[k]][:_MOST_ACTIONS]
    others = [(k, c) for k, c in record.enumerated("other", "action") if usable[k]][:_MOST_COLUMNS]
    seen: set[frozenset[int]] = set()
    for index, command in actions:
        for other, measured in others:
            pair = frozenset((index, other))
            if pair in seen or other == index or not _alike_names(command.source, measured.source):
                continue
            lag, likeness = find_response(longest.values[:, index], longest.values[:, other])
            difference = longest.values[:, other] - longest.values[:, index]
            size = float(np.sqrt(np.mean(np.square(difference))))
            if abs(likeness) < ALIKE or lag < 0 or size == 0:
                continue
            seen.add(pair)
            part = _busiest(longest.values[:, index])
            yield DataFinding(
                severity="note",
                kind="measured",
                channels=(command.name, measured.name),
                text=f"{measured.name} is measured of {command.name}: it follows {lag} rows "
                f"({1e3 * lag * interval:.3g} ms) later (correlation {likeness:.2f}, apart by "
                f"{size:.3g} root mean "
                "square).",
                remedy=f"Take the commanded one as the action: "
                f"{{column: {command.source}, kind: commanded}}; a "
                "policy cannot set a measured one, which depends on the state that follows.",
                chart=Chart(
                    title=f"{command.name} and {measured.name}",
                    x_label="time, s",
                    y_label="values",
                    curves=tuple(
                        Curve(
                            label=record.channels[k].name,
                            x=tuple(longest.time[part].tolist()),
                            y=tuple(longest.values[part, k].tolist()),
                        )
                        for k in (index, other)
                    ),
                ),
            )


def _alike_names(first: str, second: str) -> bool:
    """Whether two columns are of one quantity: they share its first word, and a number if they have any."""
    words = [name.lower().replace("_", " ").replace(".", " ").split() for name in (first, second)]
    digits = ["".join(c for c in name if c.isdigit()) for name in (first, second)]
    return words[0][0] == words[1][0] and digits[0] == digits[1]


def _busiest(values: Floats, rows: int = 300) -> slice:
    """The stretch in which a signal changes most."""
    if len(values) <= rows:
        return slice(0, len(values))
    moved = np.convolve(np.abs(np.diff(values)), np.ones(rows - 1), mode="valid")
    start = int(np.argmax(moved))
    return slice(start, start + rows)
