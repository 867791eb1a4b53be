"""Datasets of what a user holds in memory: flat arrays, episodes, replay buffers, lists of transitions.

Everything goes through the checks that files go through; their errors name the argument and its row.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mbrl.core.choices import is_choice_space, space_names
from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.assemble import assemble
from mbrl.data.dataset import Dataset
from mbrl.data.flags import first_odd_flag, flag_array, read_flags
from mbrl.data.flat import LOG_PROB, cut_flat, read_flat
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions, with_choices
from mbrl.data.raw import AnyArray, RawEpisode, RawLog, absent_rewards
from mbrl.data.spaces import read_bounds

_NAMES: Final = {
    "terminals": "terminations",
    "timeouts": "truncations",
    LOG_PROB: "behaviour_log_prob",
}
_TRANSITION: Final = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminations",
    "truncations",
)


def dataset_from_arrays(
    arrays: Mapping[str, ArrayLike | None],
    *,
    infos: Mapping[str, ArrayLike] | None = None,
    act_low: ArrayLike | float | None = None,
    act_high: ArrayLike | float | None = None,
    info: DatasetInfo | None = None,
    options: LoadOptions | None = None,
    counts: Counter[str] | None = None,
) -> Dataset:
    """A dataset of flat rows, one transition each; see `Dataset.from_arrays`.

    Args:
        arrays: by the names of its arguments; None where there is none.
        infos: further arrays of N rows.
        act_low: lower action bounds.
        act_high: upper action bounds.
        info: description.
        options: what may be repaired.
        counts: what was left out before.

    Raises:
        DataError: an array is none, or its content would make training wrong.
    """
    options, info = options or LoadOptions(), info or DatasetInfo(name="arrays")
    flat_names = {name: key for key, name in _NAMES.items()}
    stored = {
        flat_names.get(name, name): _as_array(values, name)
        for name, values in arrays.items()
        if values is not None
    }
    further = {name: _as_array(values, name) for name, values in (infos or {}).items()}
    if LOG_PROB in stored:
        further[LOG_PROB] = stored.pop(LOG_PROB)
    counts = Counter() if counts is None else counts
    flat = read_flat(stored, further, counts, file=None, names=_NAMES)
    limit = info.max_episode_steps or options.max_episode_steps
    episodes = cut_flat(flat, counts, max_episode_steps=limit)
    low, high = _read_pair(act_low, act_high)
    log = RawLog(file=None, episodes=episodes, info=info, act_low=low, act_high=high, counts=counts)
    try:
        return assemble(log, options)
    except DataError as error:
        raise _in_rows(error, episodes) from error


def dataset_from_episodes(
    episodes: Iterable[Episode | Mapping[str, Any]],
    *,
    act_low: ArrayLike | float | None = None,
    act_high: ArrayLike | float | None = None,
    info: DatasetInfo | None = None,
    options: LoadOptions | None = None,
) -> Dataset:
    """A dataset of whole episodes; see `Dataset.from_episodes`.

    Args:
        episodes: in order.
        act_low: lower action bounds.
        act_high: upper action bounds.
        info: description.
        options: what may be repaired.

    Raises:
        DataError: an episode lacks an array, or its content would make training wrong.
    """
    raws = tuple(_as_raw(episode, index) for index, episode in enumerate(episodes))
    low, high = _read_pair(act_low, act_high)
    info = info or DatasetInfo(name="episodes")
    log = RawLog(file=None, episodes=raws, info=info, act_low=low, act_high=high)
    return assemble(log, options or LoadOptions())


def dataset_from_buffer(
    buffer: Any,
    *,
    scaled_actions: bool,
    act_low: ArrayLike | float | None = None,
    act_high: ArrayLike | float | None = None,
    info: DatasetInfo | None = None,
    options: LoadOptions | None = None,
) -> Dataset:
    """A dataset of a replay buffer or a list of transitions; see `Dataset.from_gymnasium_buffer`.

    Args:
        buffer: of Stable-Baselines3, or transitions.
        scaled_actions: whether a buffer's actions are scaled to [-1, 1].
        act_low: lower action bounds; None takes those of the buffer.
        act_high: upper action bounds.
        info: description.
        options: what may be repaired.

    Raises:
        DataError: the buffer is of another kind, or its content would make training wrong.
    """
    info = info or DatasetInfo(name="buffer")
    counts: Counter[str] = Counter()
    if all(hasattr(buffer, name) for name in ("observations", "actions", "rewards", "dones", "pos", "full")):
        limit = info.max_episode_steps or (options or LoadOptions()).max_episode_steps
        arrays = _read_buffer(buffer, counts, scaled=scaled_actions, limit=limit)
        space = getattr(buffer, "action_space", None)
        options = _with_space(options, space)
        if act_low is None and act_high is None and not is_choice_space(space):
            act_low, act_high = getattr(space, "low", None), getattr(space, "high", None)
    elif isinstance(buffer, Sequence):
        arrays = _read_transitions(cast("Sequence[Any]", buffer))
    else:
        raise DataError(
            f"a {type(buffer).__name__} is neither a replay buffer nor a list of transitions",
            field="buffer",
            remedy="Give a ReplayBuffer of Stable-Baselines3, or a list of (observation, action, reward, "
            "next_observation, terminated, truncated).",
        )
    return dataset_from_arrays(
        arrays, act_low=act_low, act_high=act_high, info=info, options=options, counts=counts
    )


def _as_array(values: Any, name: str) -> AnyArray:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"it is no array of numbers ({error})",
            field=name,
            remedy="Give rows of equal length; ragged episodes go through Dataset.from_episodes.",
        ) from error


def _read_pair(
    low: ArrayLike | float | None, high: ArrayLike | float | None
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if (low is None) != (high is None):
        raise DataError(
            "one of two action bounds is missing",
            field="act_low" if low is None else "act_high",
            remedy="Give both, or neither.",
        )
    if low is None or high is None:
        return None, None
    return read_bounds(low, file=None, field="act_low"), read_bounds(high, file=None, field="act_high")


def _in_rows(error: DataError, episodes: Sequence[RawEpisode]) -> DataError:
    """The same error with the row of the user's arrays instead of that of an episode."""
    start = 0
    for raw in episodes:
        steps = len(raw.rewards)
        if raw.name != error.episode:
            start += steps
            continue
        field, row = error.field, start if error.row is None else start + error.row
        if field == "observations" and error.row == steps:  # what the last action of the episode led to
            field, row = "next_observations", row - 1
        return DataError(error.problem, field=field, row=row, remedy=error.remedy)
    return error


def _as_raw(episode: Episode | Mapping[str, Any], index: int) -> RawEpisode:
    if isinstance(episode, Episode):
        steps = len(episode)
        return RawEpisode(
            name=str(index),
            observations=episode.observations,
            actions=episode.actions,
            rewards=episode.rewards,
            terminations=flag_array(steps, last=episode.terminated),
            truncations=flag_array(steps, last=episode.truncated),
            final_observation="logged" if episode.is_final_observation_known else "unknown",
            behaviour_log_prob=episode.behaviour_log_prob,
            timestamps=episode.timestamps,
            infos=episode.infos,
            has_rewards=episode.has_rewards,
        )
    arrays: dict[str, AnyArray] = {}
    has_rewards = episode.get("rewards") is not None
    for name in ("observations", "actions", *(["rewards"] if has_rewards else [])):
        if name not in episode:
            raise DataError(
                f"the array is missing; present: {', '.join(map(str, episode))}",
                episode=index,
                field=name,
                remedy="Give observations of T + 1 rows, actions and rewards of T, terminated and truncated.",
            )
        arrays[name] = _as_array(episode[name], name)
    counted = arrays["rewards" if has_rewards else "actions"]
    steps = len(counted) if counted.ndim else 1
    log_prob, timestamps = episode.get("behaviour_log_prob"), episode.get("timestamps")
    infos = cast("Mapping[str, Any]", episode.get("infos") or {})
    return RawEpisode(
        name=str(index),
        terminations=_read_end(episode, "terminated", "terminations", steps=steps, index=index),
        truncations=_read_end(episode, "truncated", "truncations", steps=steps, index=index),
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=arrays["rewards"] if has_rewards else absent_rewards(steps),
        has_rewards=has_rewards,
        behaviour_log_prob=None if log_prob is None else _as_array(log_prob, "behaviour_log_prob"),
        timestamps=None if timestamps is None else _as_array(timestamps, "timestamps"),
        infos={name: _as_array(values, f"infos/{name}") for name, values in infos.items()},
    )


def _read_end(episode: Mapping[str, Any], last: str, each: str, *, steps: int, index: int) -> AnyArray:
    """`[T]` flags of an episode that says how it ended, or gives a flag for each step."""
    if each in episode:
        return _as_array(episode[each], each)
    value = np.asarray(episode.get(last, False))
    if value.size != 1 or first_odd_flag(value) is not None:
        raise DataError(
            f"{str(episode[last])[:40]!r} is neither true nor false",
            episode=index,
            field=last,
            remedy=f"Say whether the episode was {last}, or give {each} for each step.",
        )
    return flag_array(steps, last=bool(value.reshape(-1)[0]))


def _read_buffer(
    buffer: Any, counts: Counter[str], *, scaled: bool, limit: int | None
) -> dict[str, ArrayLike | None]:
    """The rows of a ring, oldest first, one environment after the other."""
    if getattr(buffer, "next_observations", None) is None:
        raise DataError(
            "the buffer keeps no next observations",
            field="buffer",
            remedy="Make it with optimize_memory_usage=False.",
        )
    size, start = (len(buffer.rewards), int(buffer.pos)) if buffer.full else (int(buffer.pos), 0)
    if size == 0:
        raise DataError("the buffer is empty", field="buffer", remedy="Collect transitions first.")
    if buffer.full:
        counts["episodes whose beginning was overwritten"] += int(np.asarray(buffer.rewards).shape[1])
    order = (start + np.arange(size)) % len(buffer.rewards)

    def rows(name: str) -> AnyArray:
        values = _as_array(getattr(buffer, name), name)
        if values.ndim < 2 or len(values) != len(buffer.rewards):
            raise DataError(
                f"shape {values.shape} is not [size, environments, ...]",
                field=name,
                remedy="Give a buffer of vectors; dictionaries of observations are unsupported.",
            )
        values = values[order]
        return np.concatenate([values[:, env] for env in range(values.shape[1])])

    actions = rows("actions")
    space: Any = getattr(buffer, "action_space", None)
    if scaled and not is_choice_space(space):
        if not (hasattr(space, "low") and hasattr(space, "high")):
            raise DataError(
                "its action space has no bounds to scale by, and no choices",
                field="action_space",
                remedy="Give a buffer of a Box, Discrete, MultiDiscrete or MultiBinary action space, or "
                "scaled_actions=False.",
            )
        low, high = np.asarray(space.low, dtype=np.float64), np.asarray(space.high, dtype=np.float64)
        actions = low + 0.5 * (actions.astype(np.float64) + 1.0) * (high - low)
    dones, timeouts = (
        read_flags(rows(name), functools.partial(DataError, file=None), field=name, count=len(actions))
        for name in ("dones", "timeouts")
    )
    if not getattr(buffer, "handle_timeout_termination", True):
        timeouts = _find_timeouts(dones, size, limit)
    truncations = timeouts.copy()
    truncations[size - 1 :: size] |= ~dones[size - 1 :: size]  # where the log of an environment stops
    return {
        "observations": rows("observations"),
        "actions": actions,
        "rewards": rows("rewards"),
        "next_observations": rows("next_observations"),
        "terminations": dones & ~timeouts,
        "truncations": truncations,
        "is_successor_known": np.ones(len(dones), dtype=np.bool_),
    }


def _with_space(options: LoadOptions | None, space: Any) -> LoadOptions | None:
    """The options, with the choices of a buffer's action space unless they state others."""
    options = options or LoadOptions()
    if not is_choice_space(space) or options.choices is not None or options.action_low is not None:
        return options
    return with_choices(options, space_names(space))


def _find_timeouts(dones: NDArray[np.bool_], size: int, limit: int | None) -> NDArray[np.bool_]:
    """Ends after exactly `limit` steps, in a buffer that did not note time-outs."""
    if limit is None:
        raise DataError(
            "the buffer was made with handle_timeout_termination=False: time limits look like terminations",
            field="buffer",
            remedy="Give the time limit: info=DatasetInfo(name=..., max_episode_steps=...).",
        )
    timeouts = np.zeros_like(dones)
    for first in range(0, len(dones), size):
        ends = first + np.flatnonzero(dones[first : first + size])
        lengths = np.diff(np.concatenate([[first - 1], ends]))
        timeouts[ends] = lengths == limit
    return timeouts


def _read_transitions(transitions: Sequence[Any]) -> dict[str, ArrayLike | None]:
    """The columns of (observation, action, reward, next_observation, terminated, truncated)."""
    if not transitions:
        raise DataError("there are no transitions", field="buffer", remedy="Give one at least.")
    columns: list[list[Any]] = [[] for _ in _TRANSITION]
    for row, transition in enumerate(transitions):
        parts = _split_transition(transition, row)
        for column, part in zip(columns, parts, strict=True):
            column.append(np.asarray(part))
    arrays: dict[str, ArrayLike | None] = {}
    for name, column in zip(_TRANSITION, columns, strict=True):
        odd = next((row for row, value in enumerate(column) if value.shape != column[0].shape), None)
        if odd is not None:
            raise DataError(
                f"shape {column[odd].shape}, where the first transition has {column[0].shape}",
                field=name,
                row=odd,
                remedy="All transitions of a dataset need the same shapes.",
            )
        arrays[name] = np.stack(column)
    return {**arrays, "is_successor_known": np.ones(len(transitions), dtype=np.bool_)}


def _split_transition(transition: Any, row: int) -> list[Any]:
    singular = [name.removesuffix("s") for name in _TRANSITION[:4]] + ["terminated", "truncated"]
    if isinstance(transition, Mapping):
        fields = cast("Mapping[str, Any]", transition)
        if all(name in fields for name in singular):
            return [fields[name] for name in singular]
    elif isinstance(transition, Sequence) and len(cast("Sequence[Any]", transition)) == len(_TRANSITION):
        return list(cast("Sequence[Any]", transition))
    raise DataError(
        f"a transition needs {', '.join(singular)}",
        field="buffer",
        row=row,
        remedy="Give tuples of these six in this order, or mappings with these names; a single done flag "
        "does not say whether the task ended or a time limit cut the episode.",
    )
