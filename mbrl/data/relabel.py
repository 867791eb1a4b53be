"""The same log with another reward or termination, linked to the first by its hash."""

import dataclasses
import hashlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError, DataError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.data.expressions.steps import NEXT, StepNames
from mbrl.data.expressions.tree import Expression
from mbrl.data.info import DatasetInfo

RewardFunction = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], Any]
"""Observations `[T, obs_dim]`, actions `[T, act_dim]`, next observations `[T, obs_dim]` to rewards `[T]`."""


def relabel_dataset(
    dataset: Dataset,
    *,
    reward: str | None = None,
    termination: str | None = None,
    function: RewardFunction | None = None,
    function_name: str = "",
    reads_next: bool = True,
) -> Dataset:
    """Gives every step a new reward, and ends episodes where a condition holds.

    Expressions read the names of observations and actions (`obs_0`, `act_0`, ... in a log without names) and
    `next_<name>`; an angle whose cosine and sine are observed as `q_cos`, `q_sin` has its own name `q`, too.
    What follows the first step that fulfils `termination` is left out; an episode where none does is
    truncated, whatever the log said. A step whose successor was not logged is left out where an expression or
    the function reads it.

    Args:
        dataset: the log.
        reward: expression.
        termination: condition.
        function: or a function that computes rewards.
        function_name: what the dataset says of it.
        reads_next: whether the function reads successors.

    Raises:
        ConfigError: nothing is to be changed, or two rewards are given.
        ExpressionError: an expression reads an unknown name.
        DataError: a reward is not finite, or no step is left.
    """
    if (reward is None and termination is None and function is None) or (reward and function):
        raise ConfigError("Give a reward (an expression or a function, not both), a termination, or both.")
    names = StepNames(dataset.obs_names, dataset.act_names)
    rule, condition = names.parse(reward), names.parse(termination)
    counts: Counter[str] = Counter()
    reads_next = reads_next and function is not None
    reads_next |= any(e is not None and any(n.startswith(NEXT) for n in e.names) for e in (rule, condition))
    episodes: list[Episode] = []
    for index, whole in enumerate(dataset.episodes):
        episode = _without_unknown(whole, counts) if reads_next else whole
        if episode is not None:
            episodes.append(_relabel(episode, index, names, rule, condition, function, counts))
    if not episodes:
        raise DataError("no step is left", remedy="Use an expression that reads no successor.")
    info = _describe(dataset, rule, condition, function, function_name)
    dropped = Counter(dataset.dropped) + counts
    return dataclasses.replace(
        dataset, episodes=tuple(episodes), info=info, dropped=dict(dropped), origin=None
    )


def _relabel(
    episode: Episode,
    index: int,
    names: StepNames,
    rule: Expression | None,
    condition: Expression | None,
    function: RewardFunction | None,
    counts: Counter[str],
) -> Episode:
    columns, steps = names.columns(episode), len(episode)
    if condition is not None:
        ends = np.flatnonzero(condition.evaluate(columns, steps))
        count = int(ends[0]) + 1 if len(ends) else steps
        counts["steps left out after a termination"] += steps - count
        keeps_end = not episode.is_final_observation_known and count == steps
        terminated = bool(len(ends)) or keeps_end  # what follows is unknown: nothing to bootstrap from
        episode = _first_steps(episode, count)
        episode = dataclasses.replace(episode, terminated=terminated, truncated=not terminated)
        columns, steps = names.columns(episode), count
    if rule is None and function is None:
        return episode
    if rule is not None:
        rewards: Any = rule.evaluate(columns, steps)
    else:
        assert function is not None
        rewards = _call(function, episode, index)
    found = np.asarray(rewards, dtype=np.float64)
    is_bad = ~np.isfinite(found.astype(np.float32))
    if bool(is_bad.any()):
        raise DataError(
            f"the new reward is {found[is_bad][0]} ({int(is_bad.sum())} such steps)",
            episode=index,
            field="rewards",
            row=int(is_bad.argmax()),
            remedy="Correct the expression: no root or logarithm of a negative number, no division by 0.",
        )
    return dataclasses.replace(episode, rewards=found.astype(np.float32), has_rewards=True)


def _call(function: RewardFunction, episode: Episode, index: int) -> NDArray[np.float64]:
    obs = episode.observations
    try:
        found = np.asarray(function(obs[:-1], episode.actions, obs[1:]), dtype=np.float64)
    except Exception as error:
        raise ConfigError(
            f"The reward function failed in episode {index} ({type(error).__name__}: {str(error)[:300]})."
        ) from error
    if found.shape != (len(episode),):
        raise ConfigError(
            f"The reward function gave an array of shape {list(found.shape)} for {len(episode)} steps. "
            "Remedy: return one number for each step."
        )
    return found


def _without_unknown(episode: Episode, counts: Counter[str]) -> Episode | None:
    """Without the last step, where its successor was not logged."""
    if episode.is_final_observation_known:
        return episode
    counts["rows dropped: no successor"] += 1
    if len(episode) == 1:
        return None
    shorter = _first_steps(episode, len(episode) - 1)
    return dataclasses.replace(shorter, terminated=False, truncated=True)


def _first_steps(episode: Episode, count: int) -> Episode:
    steps = len(episode)
    log_prob, times = episode.behaviour_log_prob, episode.timestamps
    return dataclasses.replace(
        episode,
        observations=episode.observations[: count + 1],
        actions=episode.actions[:count],
        rewards=episode.rewards[:count],
        is_final_observation_known=episode.is_final_observation_known or count < steps,
        behaviour_log_prob=None if log_prob is None else log_prob[:count],
        timestamps=None if times is None else times[: count + 1],
        infos={k: v[: count + len(v) - steps] for k, v in episode.infos.items()},
    )


def _describe(
    dataset: Dataset,
    rule: Expression | None,
    condition: Expression | None,
    function: RewardFunction | None,
    function_name: str,
) -> DatasetInfo:
    info = dataset.info
    provenance = dict(info.provenance)
    if rule is not None or function is not None:
        provenance["reward"] = rule.text if rule is not None else function_name
    if condition is not None:
        provenance["termination"] = condition.text
    reward_rule = info.reward_rule if rule is None and function is None else None
    return dataclasses.replace(
        info,
        provenance=provenance,
        reward_rule=rule.text if rule is not None else reward_rule,
        termination_rule=condition.text if condition is not None else info.termination_rule,
        derived_from=dataset.content_hash,
        ref_min_score=None if rule is not None or function is not None else info.ref_min_score,
        ref_max_score=None if rule is not None or function is not None else info.ref_max_score,
    )


def load_reward_function(text: str) -> tuple[RewardFunction, str]:
    """The function that `file.py:function` names, and what a dataset says of it: file, name and digest.

    This runs the file, which the user named for that.

    Raises:
        ConfigError: there is no such file or function, or the file fails.
    """
    path_text, colon, name = text.rpartition(":")
    path = Path(path_text)
    if not colon or path.suffix != ".py" or not name.isidentifier():
        raise ConfigError(f"{text[:200]!r} does not name a function. Example: my_reward.py:reward.")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    spec = importlib.util.spec_from_file_location(f"_mbrl_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{path} fails ({type(error).__name__}: {str(error)[:300]}).") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigError(f"{path} has no function {name!r}. It has: {', '.join(_public(module)) or 'none'}.")
    digest = hashlib.blake2b(source, digest_size=8).hexdigest()
    return function, f"function {name} of {path.name}, blake2b {digest}"


def _public(module: Any) -> Iterator[str]:
    return (n for n in dir(module) if not n.startswith("_") and callable(getattr(module, n)))
