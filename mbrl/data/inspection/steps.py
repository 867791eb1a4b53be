"""A record at its control rate, and the held-out error of ridge regressions of its one-step change."""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.data.importing.guess.columns import TURNS, find_turn
from mbrl.data.importing.signals import Signal, usual_interval
from mbrl.data.inspection.record import Floats, Record, Trace
from mbrl.ops.ridge import ridge_solutions

MAX_LAG: Final = 8
"""Steps back that models may look."""

_MOST_ROWS: Final = 15_000
_MOST_DIMS: Final = 64
_WAVES: Final = 400  # most random features of the present state and action
_ROWS_A_WAVE: Final = 20
_RIDGE: Final = 1e-5  # a row, on standardised features
_BLOCKS: Final = 10
_HELD_OUT_BLOCKS: Final = (3, 7)
_FEWEST_ROWS: Final = 200


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Observations and actions at the control rate, `MAX_LAG` steps before each row included.

    Attributes:
        obs: `[n, MAX_LAG + 2, d]` from `MAX_LAG` steps before the step to the one after it, in standard
            deviations; angles that wrap as cosine and sine.
        act: `[n, MAX_LAG + 1, a]` likewise, up to the action of the step.
        is_held_out: `[n]` every fourth episode, or two blocks of ten of every episode where there are few.
        names: of the `a` actions.
        are_choices: whether these are one choice, one column for each that may be taken.
    """

    obs: Floats
    act: Floats
    is_held_out: NDArray[np.bool_]
    names: tuple[str, ...]
    are_choices: bool = False

    @property
    def change(self) -> Floats:
        """`[n, d]` of the observation over the step."""
        return self.obs[:, -1] - self.obs[:, -2]

    def present(self) -> Floats:
        """`[n, f]` the state, the action and random Fourier features of both (Rahimi & Recht, 2007)."""
        return _waves(np.concatenate([self.obs[:, -2], self.act[:, -1]], axis=1))

    def state(self, lags: int = 1) -> Floats:
        """`[n, f]` the same of the state alone, with `lags` differences to the states before."""
        return np.concatenate([_waves(self.obs[:, -2]), self.history(lags)], axis=1)

    def history(self, lags: int) -> Floats:
        """`[n, lags * d]` differences between consecutive states before the present one."""
        parts = [self.obs[:, -2 - k] - self.obs[:, -3 - k] for k in range(lags)]
        return np.concatenate([self.obs[:, :0, 0], *parts], axis=1)

    def actions(self, lags: Sequence[int], which: Sequence[int] | None = None) -> Floats:
        """`[n, len(lags) * a]` actions so many steps before the present one."""
        chosen = list(range(self.act.shape[2])) if which is None else list(which)
        parts = [self.act[:, -1 - lag][:, chosen] for lag in lags]
        return np.concatenate([self.act[:, :0, 0], *parts], axis=1)

    def held_out_error(self, features: Floats) -> Floats:
        """`[d]` root mean square of the held-out error of ridge, as a share of that of the mean change."""
        train, test = features[~self.is_held_out], features[self.is_held_out]
        mean, scale = train.mean(axis=0), train.std(axis=0)
        kept = scale > 1e-9
        train, test = (train[:, kept] - mean[kept]) / scale[kept], (test[:, kept] - mean[kept]) / scale[kept]
        target = self.change[~self.is_held_out]
        offset = target.mean(axis=0)
        rows = (torch.from_numpy(train), torch.from_numpy(target - offset))
        weights = ridge_solutions([rows], (_RIDGE,))[0][:-1].numpy()  # both are centred: no intercept is left
        known = self.change[self.is_held_out]
        error = np.square(known - offset - test @ weights).mean(axis=0)
        return np.sqrt(error / np.maximum(np.square(known - offset).mean(axis=0), 1e-300))


def _waves(state: Floats) -> Floats:
    generator = np.random.default_rng(0)
    dims = state.shape[1]
    waves = max(min(_WAVES, len(state) // _ROWS_A_WAVE), 1)
    scaled = (state - state.mean(axis=0)) / np.maximum(state.std(axis=0), 1e-9)
    weights = generator.standard_normal((dims, waves)) / np.sqrt(dims)
    phases = generator.uniform(0.0, 2 * np.pi, size=waves)
    return np.concatenate([state, np.cos(scaled.dot(weights) + phases)], axis=1)


def control_steps(record: Record) -> Steps | None:
    """Windows of steps, at most 15,000, evenly spread; None of a log with too few, or without actions."""
    obs_index = record.indices("observation")[:_MOST_DIMS]
    act_index = record.indices("action")[:_MOST_DIMS]
    if not obs_index or not act_index:
        return None
    turns = [_turn(record, index) for index in obs_index]
    stretches: list[tuple[int, Floats, Floats]] = []
    for number, trace in enumerate(record.traces):
        for obs, act in _stretches(record, trace, obs_index, act_index, turns=turns):
            if len(act) > MAX_LAG:
                stretches.append((number, obs, act))
    count = sum(len(act) - MAX_LAG for _, _, act in stretches)
    if count < _FEWEST_ROWS:
        return None
    found = _windows(stretches, count, tuple(record.channels[k].name for k in act_index))
    return None if found is None else dataclasses.replace(found, are_choices=record.are_choices)


def _windows(stretches: list[tuple[int, Floats, Floats]], count: int, names: tuple[str, ...]) -> Steps | None:
    every = -(-count // _MOST_ROWS)
    numbers = sorted({number for number, _, _ in stretches})
    tests = set(numbers[3::4]) if len(numbers) >= 4 else set[int]()
    obs_parts: list[Floats] = []
    act_parts: list[Floats] = []
    held_parts: list[NDArray[np.bool_]] = []
    for number, obs, act in stretches:
        rows = np.arange(MAX_LAG, len(act))[::every]
        obs_parts.append(obs[rows[:, None] + np.arange(-MAX_LAG, 2)])
        act_parts.append(act[rows[:, None] + np.arange(-MAX_LAG, 1)])
        block = rows * _BLOCKS // len(act)
        held_parts.append(
            np.isin(block, _HELD_OUT_BLOCKS) if not tests else np.full(len(rows), number in tests)
        )
    obs, act = np.concatenate(obs_parts), np.concatenate(act_parts)
    held = np.concatenate(held_parts)
    scale = obs[:, -2].std(axis=0)
    moves = (scale > 1e-9) & ((obs[:, -1] - obs[:, -2]).std(axis=0) > 1e-9 * scale)
    if not moves.any() or held.sum() < 50 or (~held).sum() < 100:
        return None
    act_scale = np.maximum(act[:, -1].std(axis=0), 1e-12)
    return Steps(obs[:, :, moves] / scale[moves], act / act_scale, held, names)


def _turn(record: Record, index: int) -> float | None:
    """The turn of an angle, by its jumps or by its range."""
    columns = [values for values in record.column(index) if len(values)]
    turn = find_turn(columns)
    if turn is not None or not columns or not record.is_raw or not record.channels[index].may_be_angle:
        return turn
    width = max(float(v.max()) for v in columns) - min(float(v.min()) for v in columns)
    return TURNS[0] if TURNS[0] < width < 50 * TURNS[0] else None


def _stretches(
    record: Record, trace: Trace, obs_index: list[int], act_index: list[int], *, turns: list[float | None]
) -> list[tuple[Floats, Floats]]:
    """Observations `[m + 1, d]` and actions `[m, a]` between gaps."""
    obs = trace.values[:, obs_index]
    known = np.isfinite(obs).all(axis=1)
    time, obs, act = trace.time[known], obs[known], trace.values[known][:, act_index]
    for column, turn in enumerate(turns):
        if turn is not None:
            obs[:, column] = np.unwrap(obs[:, column], period=turn)
    if len(time) < MAX_LAG + 2:
        return []
    usual = usual_interval(time)
    is_even = (
        float(np.abs(np.diff(time) - usual).max()) < 0.05 * usual and abs(usual - record.step) < 0.05 * usual
    )
    if not record.is_raw or not record.is_timed or is_even:
        parts = [(obs, act[:-1])]
    else:
        cuts = np.flatnonzero(np.diff(time) > max(10 * usual, 1.5 * record.step)) + 1
        parts = [
            _resampled(t, o, a, record.step)
            for t, o, a in zip(np.split(time, cuts), np.split(obs, cuts), np.split(act, cuts), strict=True)
            if len(t) > 2
        ]
    return [(_circled(o, turns), np.nan_to_num(a)) for o, a in parts if len(a)]


def _resampled(time: Floats, obs: Floats, act: Floats, step: float) -> tuple[Floats, Floats]:
    """Linear observations and mean held actions, as an import makes them."""
    edges = np.arange(time[0], time[-1] + 1e-9, step)
    interval = usual_interval(time)
    grid: Floats = np.stack([np.interp(edges, time, obs[:, k]) for k in range(obs.shape[1])], axis=1)
    if len(edges) < 2:
        return grid, act[:0]
    means = [Signal(time, np.nan_to_num(act[:, k]), interval).mean(edges) for k in range(act.shape[1])]
    return grid, np.stack(means, axis=1)


def _circled(obs: Floats, turns: list[float | None]) -> Floats:
    columns: list[Floats] = []
    for column, turn in zip(obs.T, turns, strict=True):
        angle = column * (2 * np.pi / turn) if turn is not None else column
        columns += [column] if turn is None else [np.cos(angle), np.sin(angle)]
    return np.stack(columns, axis=1)
