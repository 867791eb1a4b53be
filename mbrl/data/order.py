"""Do the rows of a log follow from each other? Interleaved machines and shuffled rows do not.

In a log of one machine a row says much about the next one, and less about later ones. In a log of k machines
that were written in turn, it says nothing about the next row and much about the k-th after it. In a shuffled
log it says nothing about any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import SpaceSpec
from mbrl.data.flags import has_sound_flags
from mbrl.data.normaliser import are_choices
from mbrl.data.raw import RawEpisode
from mbrl.ops.ridge import ridge_solutions

Floats = NDArray[np.float64]

MAX_LAG: Final = 64
"""Most machines in turn that are looked for."""

MIN_PAIRS: Final = 200
"""Fewer pairs of rows prove nothing."""

UNRELATED: Final = 0.9
"""Rows are shuffled if the next one is at least this share as open as later ones, in every dimension.

On simulator and machine logs of 2 to 17 dimensions it is 0.0 to 0.3 in some dimension at least.
"""

UNRELATED_NEAR: Final = 0.6
"""The same where the nearest rows predict, whose errors scatter more.

Shuffled rows have 0.85 and more; logistic maps and oscillators in order 0.2 at most.
"""

CONTINUED: Final = 0.5
"""A log whose rows leave this share of what the next row leaves open in a later one was written in turn.

On the same logs the least ratio is 3.1 to 12, and 0.01 to 0.20 with four machines in turn.
"""

_READABLE: Final = 0.1  # share that the next row must leave open before later ones are looked at
_MAX_ROWS: Final = 20_000
_MAX_PAIRS: Final = 4_000
_MAX_COLUMNS: Final = 64
_NEIGHBOURS: Final = 5
_RIDGE: Final = 2e-4  # a row, on standardised columns


def order_problems(
    raws: Sequence[RawEpisode], spec: SpaceSpec, *, file: object | None = None
) -> Iterator[DataError]:
    """Yields an error if the rows of a log do not follow from each other."""
    single = sum(len(raw.rewards) == 1 and _is_cut(raw) for raw in raws)
    longest = max((len(raw.rewards) for raw in raws), default=0)
    if single > max(2, len(raws) // 2) and longest >= 10:
        yield _error(
            f"{single} of {len(raws)} episodes are cut after one step", file, "several machines in turn"
        )
        return
    if _are_states_of_a_table(raws):
        return
    rows = _Rows.read(raws, spec)
    pairs = rows.pairs(1)
    if len(pairs) < MIN_PAIRS:
        return
    ahead = rows.unexplained(pairs, 1)
    if float(np.median(ahead)) <= _READABLE:
        return
    by_lag = {
        lag: rows.unexplained(rows.pairs(lag), lag)
        for lag in range(2, MAX_LAG + 1)
        if len(rows.pairs(lag)) >= MIN_PAIRS
    }
    ratios = {lag: float(np.median(left / np.maximum(ahead, 1e-12))) for lag, left in by_lag.items()}
    best = min(ratios, key=ratios.__getitem__, default=0)
    if best and ratios[best] < CONTINUED:
        text = (
            f"rows continue better {best} rows on than in the next row ({ratios[best]:.2f} times the error)"
        )
        yield _error(text, file, f"{best} machines in turn")
    elif by_lag and _is_shuffled(rows, ahead, by_lag):
        yield _error("no row says more about the next one than about any other", file, "shuffled rows")


def _is_shuffled(rows: "_Rows", ahead: Floats, by_lag: Mapping[int, Floats]) -> bool:
    """Whether the next row is as open as later ones in every dimension, to lines and to neighbours."""
    far = np.mean(list(by_lag.values()), axis=0)
    is_open = far > _READABLE
    if not bool((ahead[is_open] >= UNRELATED * far[is_open]).all()):
        return False
    middle = sorted(by_lag)[len(by_lag) // 2]
    near, later = (rows.unexplained_by_neighbours(rows.pairs(lag), lag) for lag in (1, middle))
    return bool((near[is_open] >= UNRELATED_NEAR * later[is_open]).all())


def _are_states_of_a_table(raws: Sequence[RawEpisode]) -> bool:
    """Whether all observations are one-hot: between such states there is no nearer and farther to tell by."""
    arrays = [raw.observations for raw in raws]
    return all(v.ndim == 2 and v.dtype.kind in "fiub" and len(v) > 0 and are_choices(v) for v in arrays)


def _is_cut(raw: RawEpisode) -> bool:
    return has_sound_flags(raw) and not bool(raw.terminations[-1])


def _error(problem: str, file: object | None, looks_like: str) -> DataError:
    return DataError(
        f"{problem}, as in a log of {looks_like}",
        file=file,
        field="observations",
        remedy="Sort the rows by machine and time, one episode after the other. If they are in order and the "
        "states really are unrelated, read the log with order=trust.",
    )


class _Rows:
    """Standardised rows of some episodes, and which of them belong together."""

    def __init__(self, obs: Floats, act: Floats, episode: NDArray[np.int64]) -> None:
        self._obs, self._episode = _standardise(obs), episode
        self._inputs = np.concatenate([self._obs, _standardise(act), np.ones((len(obs), 1))], axis=1)

    @classmethod
    def read(cls, raws: Sequence[RawEpisode], spec: SpaceSpec) -> "_Rows":
        """Reads the sound rows of episodes spread over the log, about 20,000."""
        sound = [raw for raw in raws if _is_sound(raw, spec)]
        obs: list[Floats] = [np.zeros((0, spec.obs_dim))]
        act: list[Floats] = [np.zeros((0, spec.act_dim))]
        lengths: list[int] = [0]
        chosen = np.unique(np.linspace(0, len(sound) - 1, min(len(sound), 200)).astype(np.int64))
        for index in map(int, chosen):
            raw = sound[index]
            steps = min(len(raw.rewards), _MAX_ROWS)
            obs.append(raw.observations[:steps].astype(np.float64))
            act.append(raw.actions[:steps].astype(np.float64))
            lengths.append(steps)
            if sum(lengths) >= _MAX_ROWS:
                break
        episode = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        return cls(_spread_columns(np.concatenate(obs)), _spread_columns(np.concatenate(act)), episode)

    def pairs(self, lag: int) -> NDArray[np.int64]:
        """First rows of at most 4,000 pairs that lie `lag` rows apart in one episode."""
        if self._obs.shape[1] == 0 or len(self._obs) <= lag:
            return np.zeros(0, dtype=np.int64)
        first = np.flatnonzero(self._episode[:-lag] == self._episode[lag:])
        return first[np.linspace(0, len(first) - 1, min(len(first), _MAX_PAIRS)).astype(np.int64)]

    def unexplained(self, pairs: NDArray[np.int64], lag: int) -> Floats:
        """`[obs_dim]` share of the variance that a row leaves open `lag` rows on, at most 1.

        The better of two predictions counts: "nothing changes", and a ridge regression on the other half.
        """
        is_fit = self._is_first_half(pairs)
        x, y = self._inputs[pairs], self._obs[pairs + lag]
        rows = (torch.from_numpy(x[is_fit]), torch.from_numpy(y[is_fit]))
        weights = ridge_solutions([rows], (_RIDGE,))[0].numpy()
        errors = (x @ weights[:-1] + weights[-1] - y, self._obs[pairs] - y)
        least = np.minimum(*(np.square(error[~is_fit]).mean(axis=0) for error in errors))
        return np.minimum(least / np.maximum(y[~is_fit].var(axis=0), 1e-12), 1.0)

    def unexplained_by_neighbours(self, pairs: NDArray[np.int64], lag: int) -> Floats:
        """`[obs_dim]` likewise for the mean successor of the five nearest rows, linear or not."""
        pairs = pairs[:: max(1, len(pairs) // 2000)]
        is_fit = self._is_first_half(pairs)
        x, y = self._inputs[pairs], self._obs[pairs + lag]
        squares = np.square(x).sum(axis=1)
        distance = squares[~is_fit, None] + squares[None, is_fit] - 2.0 * x[~is_fit] @ x[is_fit].T
        near = np.argpartition(distance, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
        error = y[is_fit][near].mean(axis=1) - y[~is_fit]
        return np.square(error).mean(axis=0) / np.maximum(y[~is_fit].var(axis=0), 1e-12)

    @staticmethod
    def _is_first_half(pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Alternate stretches of 50 pairs, so that both halves see all of the log."""
        return np.arange(len(pairs)) // 50 % 2 == 0


def _is_sound(raw: RawEpisode, spec: SpaceSpec) -> bool:
    steps = len(raw.rewards) if raw.rewards.ndim else 0
    is_numeric = raw.observations.dtype.kind in "fiub" and raw.actions.dtype.kind in "fiub"
    return (
        is_numeric
        and steps > 1
        and raw.actions.shape == (steps, spec.act_dim)
        and raw.observations.shape in {(steps, spec.obs_dim), (steps + 1, spec.obs_dim)}
        and bool(np.isfinite(raw.observations).all())
        and bool(np.isfinite(raw.actions).all())
    )


def _spread_columns(values: Floats) -> Floats:
    """At most 64 columns, evenly spread: more cost time and prove no more."""
    count = values.shape[1]
    return values[:, np.linspace(0, count - 1, min(count, _MAX_COLUMNS)).astype(np.int64)]


def _standardise(values: Floats) -> Floats:
    """Columns of mean 0 and deviation 1; those that never change are left out."""
    if len(values) == 0:
        return values[:, :0]
    with np.errstate(over="ignore", invalid="ignore"):
        std = values.std(axis=0)
        is_varying = np.isfinite(std) & (np.ptp(values, axis=0) > 1e-9 * np.abs(values).max(axis=0))
    return (values[:, is_varying] - values[:, is_varying].mean(axis=0)) / np.maximum(std[is_varying], 1e-300)
