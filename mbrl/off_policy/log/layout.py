"""Logged episodes as padded arrays: one layout for every estimator of the ratio family.

Arrays are `[n, T]` in column order: a reduction over episodes walks through contiguous memory, and its sum is
pairwise, so results do not depend on the order of the episodes.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand
from mbrl.core.types import Episode

Array = NDArray[np.float64]

LOG_PROBABILITY_SLACK: Final = 1e-6
"""How far above 0 rounding may lift the logarithm of a probability."""


@dataclasses.dataclass(frozen=True, eq=False)
class OPEArrays:
    """Scalar streams of n episodes, padded to the longest, T; float64, read-only.

    A terminal state is absorbing: rewards, values and log-ratios are padded with 0, so a cumulative weight is
    carried to the end of the array by itself.

    Attributes:
        log_ratio: `[n, T]`, `log pi(a_t|s_t) - log b(a_t|s_t)`; -inf where pi never acts so.
        reward: `[n, T]`.
        action_value: `[n, T]`, `Q(s_t, a_t)`; zeros without one.
        value: `[n, T + 1]`, `V(s_t) = E_{a~pi} Q(s_t, a)`; at the end of an episode the tail: `V(s_T)` of a
            time-out that is bootstrapped, 0 after a terminal.
        length: `[n]` steps.
        terminated: `[n]`.
        truncated: `[n]`, cut before the horizon, with more to come; never together with `terminated`, and
            False where the horizon ends the episode.
        estimand: what is to be estimated.
        has_values: whether Q and V were given.
        both_flags: episodes that were marked terminated and truncated; they count as terminated.
        log_start: `[n]`, logarithm of the weight that each episode starts with; None for 0 everywhere.

    Raises:
        DataError: an entry makes estimates wrong; the message names episode and row.
    """

    log_ratio: Array
    reward: Array
    action_value: Array
    value: Array
    length: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    estimand: Estimand
    has_values: bool = True
    both_flags: int = 0
    log_start: Array | None = None

    def __post_init__(self) -> None:
        n, steps = self.reward.shape
        shapes = {
            "log_ratio": (n, steps),
            "action_value": (n, steps),
            "value": (n, steps + 1),
            "length": (n,),
            "terminated": (n,),
            "truncated": (n,),
        }
        if self.log_start is not None:
            shapes["log_start"] = (n,)
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise DataError(f"shape {found} does not go with rewards of shape {(n, steps)}", field=name)
        for name in ("log_ratio", "reward", "action_value", "value"):
            array = np.asfortranarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, array)
            _refuse_bad(name, array)
        for name in shapes:
            getattr(self, name).setflags(write=False)

    def __len__(self) -> int:
        return self.reward.shape[0]

    @property
    def steps(self) -> int:
        """T, steps of the longest episode."""
        return self.reward.shape[1]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """`[n, T]`, `t < length`."""
        return self.alive_in(slice(0, self.steps))

    def alive_in(self, rows: slice) -> NDArray[np.bool_]:
        """`alive` of some steps."""
        return np.less(np.arange(self.steps)[rows], self.length[:, None])

    @property
    def discounts(self) -> Array:
        """`[T + 1]`, `discount^t`."""
        return self.estimand.discount ** np.arange(self.steps + 1, dtype=np.float64)

    @property
    def tail(self) -> Array:
        """`[n]`, value of the state in which a time-out cut the episode; 0 elsewhere."""
        last = self.value[np.arange(len(self)), self.length]
        return np.where(self.truncated, last, 0.0)

    def returns(self) -> Array:
        """`[n]` discounted returns `G_i` of what was logged, without tails."""
        return self.reward @ self.discounts[:-1]


def pad_log(
    episodes: Sequence[Episode],
    evaluation_log_prob: ArrayLike | None,
    *,
    estimand: Estimand,
    behaviour_log_prob: ArrayLike | None = None,
    action_value: ArrayLike | None = None,
    value: ArrayLike | None = None,
    is_discrete: bool = False,
) -> OPEArrays:
    """Pads logged episodes for the estimators, cut at the horizon of the estimand.

    Args:
        episodes: n of them, N steps in all.
        evaluation_log_prob: `[N]`, log-density under the evaluated policy of the logged actions, step by step
            through all episodes; None for estimators without ratios (then all ratios are 1).
        estimand: what is to be estimated.
        behaviour_log_prob: `[N]`, under the policy that acted; None takes what the episodes hold. Both refer
            to the same scale of the action.
        action_value: `[N]`, `Q(s_t, a_t)`; None without.
        value: `[N + n]`, `V(s_t)` of every logged state, the last of each episode included; None without.
        is_discrete: the log-densities are logarithms of probabilities, so none may lie above 0.

    Raises:
        DataError: lengths differ, an entry cannot be used, or an episode ends without a flag.
    """
    grid = _Grid.of(episodes, estimand)
    log_ratio = np.zeros(grid.rows)
    if evaluation_log_prob is not None:
        logged = _logged_log_prob(episodes) if behaviour_log_prob is None else behaviour_log_prob
        log_ratio = _log_ratio(
            _flat(evaluation_log_prob, grid.rows, "evaluation_log_prob"),
            _flat(logged, grid.rows, "behaviour_log_prob"),
            grid.lengths,
            is_discrete=is_discrete,
        )
    reward = np.concatenate([np.asarray(episode.rewards, dtype=np.float64) for episode in episodes])
    q = np.zeros(grid.rows) if action_value is None else _flat(action_value, grid.rows, "action_value")
    return OPEArrays(
        log_ratio=grid.pad(log_ratio),
        reward=grid.pad(reward),
        action_value=grid.pad(q),
        value=grid.pad_values(value),
        length=grid.kept,
        terminated=grid.terminated,
        truncated=grid.truncated,
        estimand=estimand,
        has_values=value is not None,
        both_flags=sum(e.terminated and e.truncated for e in episodes),
    )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Where the rows of a flat log lie in padded arrays; `[n]` each."""

    lengths: NDArray[np.int64]
    kept: NDArray[np.int64]  # steps up to the horizon
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]

    @classmethod
    def of(cls, episodes: Sequence[Episode], estimand: Estimand) -> "_Grid":
        lengths, horizon = _checked_lengths(episodes), estimand.horizon
        kept = lengths if horizon is None else np.minimum(lengths, horizon)
        # The horizon ends an episode like a terminal: neither flag remains where it cut, and one that ends
        # just there has nothing to come either. What was cut before it is censored: a tail is to come.
        ends_inside = kept == lengths if horizon is None else lengths < horizon
        terminated = np.array([e.terminated for e in episodes]) & (kept == lengths)
        truncated = np.array([e.truncated for e in episodes]) & ends_inside & ~terminated
        return cls(lengths, kept, terminated, truncated)

    @property
    def rows(self) -> int:
        """N."""
        return int(self.lengths.sum())

    @property
    def starts(self) -> NDArray[np.int64]:
        """Row of each episode's first step."""
        return np.cumsum(self.lengths) - self.lengths

    def pad(self, flat: Array) -> Array:
        """`[N] -> [n, T]`."""
        return _padded(flat, self.starts, self.kept, int(self.kept.max()))

    def pad_values(self, value: ArrayLike | None) -> Array:
        """`[N + n] -> [n, T + 1]`; what follows an episode's end is worth 0, but for a time-out."""
        n, width = len(self.kept), int(self.kept.max()) + 1
        if value is None:
            return np.zeros((n, width), order="F")
        flat = _flat(value, self.rows + n, "value")
        # An episode has one state more than steps, so it begins one row later for each one before it.
        values = _padded(flat, self.starts + np.arange(n), self.kept + 1, width)
        values[np.arange(n)[~self.truncated], self.kept[~self.truncated]] = 0.0
        return values


def _checked_lengths(episodes: Sequence[Episode]) -> NDArray[np.int64]:
    if not episodes:
        raise DataError("there are no episodes", remedy="Check the path and the options.")
    lengths = np.array([len(episode) for episode in episodes], dtype=np.int64)
    for index, episode in enumerate(episodes):
        if not (episode.terminated or episode.truncated):
            raise DataError(
                "the episode ends without a flag",
                episode=index,
                row=len(episode) - 1,
                remedy="Mark the end of a log as truncated.",
            )
    return lengths


def _logged_log_prob(episodes: Sequence[Episode]) -> Array:
    parts: list[Array] = []
    for index, episode in enumerate(episodes):
        if episode.behaviour_log_prob is None:
            raise DataError(
                "the log does not say how likely its actions were",
                episode=index,
                field="behaviour_log_prob",
                remedy="Fit the behaviour policy (mbrl.off_policy.log.behaviour).",
            )
        parts.append(np.asarray(episode.behaviour_log_prob, dtype=np.float64))
    return np.concatenate(parts)


def _log_ratio(
    evaluation: Array, behaviour: Array, lengths: NDArray[np.int64], *, is_discrete: bool
) -> Array:
    for name, log_prob in (("evaluation_log_prob", evaluation), ("behaviour_log_prob", behaviour)):
        if is_discrete and (log_prob > LOG_PROBABILITY_SLACK).any():
            raise _at(
                lengths,
                log_prob > LOG_PROBABILITY_SLACK,
                name,
                "the logarithm of a probability lies above 0",
                "Pass logarithms, not probabilities, and a row for each logged action.",
            )
        bad = np.isnan(log_prob) | (log_prob == np.inf)
        if bad.any():
            raise _at(lengths, bad, name, "a log-density is NaN or +inf", "Check the policy at this row.")
    impossible = behaviour == -np.inf
    if impossible.any():
        raise _at(
            lengths,
            impossible,
            "behaviour_log_prob",
            "the logged action has probability 0 under the policy that is said to have acted",
            "Check that the log-densities belong to these actions.",
        )
    return evaluation - behaviour


def _at(
    lengths: NDArray[np.int64], bad: NDArray[np.bool_], field: str, problem: str, remedy: str
) -> DataError:
    first = int(np.flatnonzero(bad)[0])
    ends = np.cumsum(lengths)
    episode = int(np.searchsorted(ends, first, side="right"))
    row = first - int(ends[episode] - lengths[episode])
    return DataError(problem, episode=episode, field=field, row=row, remedy=remedy)


def _flat(values: ArrayLike, count: int, name: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise DataError(f"shape {array.shape}, the episodes need {(count,)}", field=name)
    return array


def _padded(flat: Array, starts: NDArray[np.int64], kept: NDArray[np.int64], width: int) -> Array:
    """`[n, width]` in column order, zeros from `kept` on."""
    out = np.zeros((len(starts), width), order="F")
    columns = np.arange(width)
    if bool((kept == width).all()):
        out[:] = flat[starts[:, None] + columns]
        return out
    alive = columns < kept[:, None]
    rows = np.minimum(starts[:, None] + columns, flat.size - 1)
    np.copyto(out, flat[rows], where=alive)
    return out


def _refuse_bad(name: str, array: Array) -> None:
    bad = np.isnan(array) | (array == np.inf) if name == "log_ratio" else ~np.isfinite(array)
    if bad.any():
        episode, row = (int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"the entry is {array[episode, row]}",
            episode=episode,
            row=row,
            field=name,
            remedy="Mend the log, or the policy that gave this number.",
        )
