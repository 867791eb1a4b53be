"""From what a file holds to a checked dataset: sizes, bounds, requested repairs, checks."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.checks import (
    all_problems,
    as_float32,
    excess_rows,
    first_problem,
    resolution_problems,
    structure_problems,
)
from mbrl.data.choices.infer import as_text, encode
from mbrl.data.dataset import Dataset
from mbrl.data.flags import advise_overlap, has_sound_flags
from mbrl.data.info import info_problems
from mbrl.data.options import LoadOptions
from mbrl.data.order import order_problems
from mbrl.data.raw import AnyArray, RawEpisode, RawLog, absent_rewards
from mbrl.data.spaces import infer_spec
from mbrl.data.stored.gathered import is_stored


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PreparedLog:
    """A log in one layout, before its checks.

    Attributes:
        log: as it was read.
        episodes: in one layout.
        spec: sizes and bounds.
        notes: what had to be assumed, for the provenance.
        overlap_hint: which reading of steps with both flags fits.
    """

    log: RawLog
    episodes: tuple[RawEpisode, ...]
    spec: SpaceSpec
    notes: dict[str, str]
    overlap_hint: str


def assemble(log: RawLog, options: LoadOptions) -> Dataset:
    """Checks and, where `options` ask for it, repairs the episodes of a log.

    Raises:
        DataError: the first thing that is wrong and that no option covers.
    """
    prepared = prepare(log, options)
    for problem in log_problems(prepared, options):
        raise problem
    return build(prepared, options)


def prepare(log: RawLog, options: LoadOptions) -> PreparedLog:
    """Brings the episodes of a log to one layout, and settles its sizes and bounds.

    Raises:
        DataError: there are no episodes, or sizes or bounds cannot be told.
    """
    if not log.episodes:
        raise DataError(
            "the log holds no episodes", file=log.file, remedy="Check that it was written to its end."
        )
    raws = tuple(tidy(_select_fields(raw, options)) for raw in log.episodes)
    spec, notes = infer_spec(log, raws, options)
    if spec.choices is not None:
        raws = tuple(encode(raw, spec.choices) for raw in raws)
        log = _without_column_names(log, spec)
    limit = log.info.max_episode_steps or options.max_episode_steps
    return PreparedLog(log, raws, spec, notes, advise_overlap(raws, limit))


def _without_column_names(log: RawLog, spec: SpaceSpec) -> RawLog:
    """The column of ids may have a name, where the choices have their own."""
    names = log.info.act_names
    if names is None or len(names) == spec.act_dim:
        return log
    return dataclasses.replace(log, info=dataclasses.replace(log.info, act_names=None))


def log_problems(prepared: PreparedLog, options: LoadOptions) -> Iterator[DataError]:
    """Yields what is wrong with a log as a whole, rather than with one of its episodes."""
    log = prepared.log
    yield from info_problems(log.info, prepared.spec, file=log.file)
    yield from resolution_problems(prepared.episodes, prepared.spec, file=log.file)
    if options.order == "check":
        yield from order_problems(prepared.episodes, prepared.spec, file=log.file)


def episode_problems(prepared: PreparedLog, options: LoadOptions) -> Iterator[DataError]:
    """Yields everything that is wrong with the episodes after the repairs that `options` permit."""
    for raw in prepared.episodes:
        repaired = repair(raw, prepared.spec, options, Counter())
        if repaired is not None:
            yield from all_problems(
                repaired, prepared.spec, file=prepared.log.file, overlap_hint=prepared.overlap_hint
            )


def build(prepared: PreparedLog, options: LoadOptions) -> Dataset:
    """The dataset of the sound episodes.

    Raises:
        DataError: an episode is not sound and may not be dropped, or none is left.
    """
    log, counts = prepared.log, Counter(prepared.log.counts)
    converted = (_convert(raw, prepared, options, counts) for raw in prepared.episodes)
    episodes = tuple(episode for episode in converted if episode is not None)
    if not episodes:
        counted = ", ".join(f"{reason}: {count}" for reason, count in counts.items())
        raise DataError(
            f"no usable episode{f' ({counted})' if counted else ''}", file=log.file, remedy="Check the file."
        )
    info = dataclasses.replace(log.info, provenance={**log.info.provenance, **prepared.notes})
    return Dataset(episodes=episodes, spec=prepared.spec, info=info, dropped=dict(counts))


def _select_fields(raw: RawEpisode, options: LoadOptions) -> RawEpisode:
    if options.rewards == "ignore" and raw.rewards.ndim:
        raw = dataclasses.replace(raw, rewards=absent_rewards(len(raw.rewards)), has_rewards=False)
    return dataclasses.replace(
        raw,
        behaviour_log_prob=raw.behaviour_log_prob if options.behaviour == "read" else None,
        infos=raw.infos if options.infos == "all" else {},
    )


def tidy(raw: RawEpisode) -> RawEpisode:
    """Removes differences of layout that lose nothing.

    `(T, 1)` numbers, `(T,)` vectors of size 1, and the padding in row T + 1 of a log-density.
    """
    rewards = _as_column(raw.rewards)
    log_prob = None if raw.behaviour_log_prob is None else _as_column(raw.behaviour_log_prob)
    if log_prob is not None and log_prob.shape[0] == len(rewards) + 1:
        log_prob = log_prob[:-1]
    return dataclasses.replace(
        raw,
        observations=_as_rows(raw.observations),
        actions=_as_rows(as_text(raw.actions)),
        rewards=rewards,
        terminations=_as_column(raw.terminations),
        truncations=_as_column(raw.truncations),
        behaviour_log_prob=log_prob,
    )


def _as_column(values: AnyArray) -> AnyArray:
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return values if values.ndim else values.reshape(1)


def _as_rows(values: AnyArray) -> AnyArray:
    if values.ndim == 1:
        return values[:, None]
    return values if values.ndim else values.reshape(1, 1)


def _convert(
    raw: RawEpisode, prepared: PreparedLog, options: LoadOptions, counts: Counter[str]
) -> Episode | None:
    repaired = repair(raw, prepared.spec, options, counts)
    if repaired is None:
        return None
    problem = first_problem(
        repaired, prepared.spec, file=prepared.log.file, overlap_hint=prepared.overlap_hint
    )
    if problem is None:
        return _to_episode(_keep_infos(repaired, counts), counts)
    if options.bad_episodes == "error":
        raise problem
    counts[f"episodes dropped: bad {problem.field}"] += 1
    return None


def repair(raw: RawEpisode, spec: SpaceSpec, options: LoadOptions, counts: Counter[str]) -> RawEpisode | None:
    """Does what `options` permit, and counts it; the checks decide whether that was enough.

    Returns:
        The episode, or None if nothing is left of it.
    """
    if not has_sound_flags(raw):
        return raw  # no repair may turn what is no flag into one
    closed = close_log(_settle_overlap(raw, options, counts), options, counts)
    if closed is None or next(structure_problems(closed, spec), None) is not None:
        return closed
    return _clip_actions(closed, spec, options, counts)


def _settle_overlap(raw: RawEpisode, options: LoadOptions, counts: Counter[str]) -> RawEpisode:
    """Takes one of two flags of the same step away, as the options say."""
    both = raw.terminations.astype(np.bool_) & raw.truncations.astype(np.bool_)
    if options.overlap == "error" or not bool(both.any()):
        return raw
    if options.overlap == "terminated":
        counts["overlapping flags: termination wins"] += int(both.sum())
        return dataclasses.replace(raw, truncations=raw.truncations.astype(np.bool_) & ~both)
    counts["overlapping flags: truncation wins"] += int(both.sum())
    return dataclasses.replace(raw, terminations=raw.terminations.astype(np.bool_) & ~both)


def close_log(raw: RawEpisode, options: LoadOptions, counts: Counter[str]) -> RawEpisode | None:
    """Gives an episode of T observations its end, where the format or `options` permit it.

    A terminated last step keeps an unknown successor; any other last step has nothing to bootstrap from and
    is dropped, its observation becoming the final one.

    Returns:
        The episode, or None if nothing is left of it.
    """
    steps = len(raw.rewards)
    is_short = (
        len(raw.observations) == steps == len(raw.actions) == len(raw.terminations) == len(raw.truncations)
    )
    is_permitted = raw.final_observation == "absent" or options.final_observation == "repair"
    if not (is_short and is_permitted and steps):
        return raw
    if bool(raw.terminations[-1]):
        counts["terminal successors unknown"] += 1
        padded = np.concatenate([raw.observations, raw.observations[-1:]])
        return dataclasses.replace(raw, observations=padded, final_observation="unknown")
    counts["rows dropped: no successor"] += 1
    if steps == 1:
        counts["episodes dropped: no successor"] += 1
        return None
    truncations = raw.truncations[:-1].copy()
    truncations[-1] = True
    log_prob, times = raw.behaviour_log_prob, raw.timestamps
    return dataclasses.replace(
        raw,
        actions=raw.actions[:-1],
        rewards=raw.rewards[:-1],
        terminations=raw.terminations[:-1],
        truncations=truncations,
        final_observation="logged",
        behaviour_log_prob=None if log_prob is None else log_prob[:-1],
        timestamps=None if times is None else times[:steps],
        infos={name: values[:steps] for name, values in raw.infos.items()},
    )


def _clip_actions(raw: RawEpisode, spec: SpaceSpec, options: LoadOptions, counts: Counter[str]) -> RawEpisode:
    if options.actions != "clip":
        return raw
    beyond = excess_rows(raw.actions, spec).any(axis=1)
    if not bool(beyond.any()) or not bool(np.isfinite(raw.actions).all()):
        return raw
    counts["actions clipped"] += int(beyond.sum())
    clipped = np.clip(raw.actions, np.array(spec.act_low), np.array(spec.act_high))
    return dataclasses.replace(raw, actions=clipped)


def _keep_infos(raw: RawEpisode, counts: Counter[str]) -> RawEpisode:
    """Leaves out, and counts, further arrays that do not go with the steps."""
    steps = len(raw.rewards)
    kept = {
        name: values for name, values in raw.infos.items() if values.shape[:1] in {(steps,), (steps + 1,)}
    }
    if len(kept) < len(raw.infos):
        counts["infos left out: other number of rows"] += len(raw.infos) - len(kept)
        return dataclasses.replace(raw, infos=kept)
    return raw


def _kept(values: AnyArray) -> NDArray[np.float32]:
    """`as_float32`; a view of a mapped file stays one, since a copy would load it."""
    return values if values.dtype == np.float32 and is_stored(values) else as_float32(values)


def _to_episode(raw: RawEpisode, counts: Counter[str]) -> Episode:
    terminated, truncated = bool(raw.terminations[-1]), bool(raw.truncations[-1])
    if not (terminated or truncated):
        counts["ends of log marked as truncated"] += 1
        truncated = True
    log_prob, times = raw.behaviour_log_prob, raw.timestamps
    return Episode(
        observations=_kept(raw.observations),
        actions=_kept(raw.actions),
        rewards=_kept(raw.rewards),
        terminated=terminated,
        truncated=truncated,
        is_final_observation_known=raw.final_observation != "unknown",
        behaviour_log_prob=None if log_prob is None else _kept(log_prob),
        timestamps=None if times is None else np.ascontiguousarray(times, dtype=np.float64),
        infos=dict(raw.infos),
        has_rewards=raw.has_rewards,
    )
