"""From what a file holds to a checked dataset: sizes, bounds, requested repairs, checks."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from mbrl.core.errors import DataError
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.checks import as_float32, excess_rows, first_problem, structure_problems
from mbrl.data.dataset import Dataset
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog


def assemble(log: RawLog, options: LoadOptions) -> Dataset:
    """Checks and, where `options` ask for it, repairs the episodes of a log.

    Raises:
        DataError: the first thing that is wrong and that no option covers.
    """
    raws, spec, notes = prepare(log, options)
    counts = Counter(log.counts)
    episodes = [episode for raw in raws if (episode := _convert(raw, spec, log, options, counts)) is not None]
    if not episodes:
        counted = ", ".join(f"{reason}: {count}" for reason, count in counts.items())
        raise DataError(
            f"no usable episode{f' ({counted})' if counted else ''}", file=log.file, remedy="Check the file."
        )
    info = dataclasses.replace(log.info, provenance={**log.info.provenance, **notes})
    return Dataset(episodes=tuple(episodes), spec=spec, info=info, dropped=dict(counts))


def prepare(log: RawLog, options: LoadOptions) -> tuple[list[RawEpisode], SpaceSpec, dict[str, str]]:
    """Episodes in one layout, the sizes and bounds of the dataset, and notes on what had to be assumed.

    Raises:
        DataError: sizes or bounds cannot be told.
    """
    raws = [tidy(_select_fields(raw, options)) for raw in log.episodes]
    spec, notes = infer_spec(log, raws, options)
    return raws, spec, notes


def _select_fields(raw: RawEpisode, options: LoadOptions) -> RawEpisode:
    return dataclasses.replace(
        raw,
        behaviour_log_prob=raw.behaviour_log_prob if options.behaviour == "read" else None,
        infos=raw.infos if options.infos == "all" else {},
    )


def tidy(raw: RawEpisode) -> RawEpisode:
    """Removes differences of layout that lose nothing: `(T, 1)` numbers, `(T,)` vectors of size 1."""
    log_prob = raw.behaviour_log_prob
    return dataclasses.replace(
        raw,
        observations=_as_rows(raw.observations),
        actions=_as_rows(raw.actions),
        rewards=_as_column(raw.rewards),
        terminations=_as_column(raw.terminations),
        truncations=_as_column(raw.truncations),
        behaviour_log_prob=None if log_prob is None else _as_column(log_prob)[: len(_as_column(raw.rewards))],
    )


def _as_column(values: AnyArray) -> AnyArray:
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    return values if values.ndim else values.reshape(1)


def _as_rows(values: AnyArray) -> AnyArray:
    if values.ndim == 1:
        return values[:, None]
    return values if values.ndim else values.reshape(1, 1)


def infer_spec(
    log: RawLog, raws: Sequence[RawEpisode], options: LoadOptions
) -> tuple[SpaceSpec, dict[str, str]]:
    """Sizes (the most common width) and bounds (options, else the file, else the range of the data).

    Returns:
        The spec, and a note for the provenance where bounds had to be taken from the data.

    Raises:
        DataError: no episode has two-dimensional observations and actions, or bounds of another size.
    """
    obs_dim = _common_width([raw.observations for raw in raws], log, "observations")
    act_dim = _common_width([raw.actions for raw in raws], log, "actions")
    low, high = log.act_low, log.act_high
    if options.action_low is not None:
        low, high = options.action_low, options.action_high
    unknown = (np.nan,) * act_dim
    bounds = np.array([low or unknown, high or unknown], dtype=np.float64)
    if bounds.shape != (2, act_dim):
        raise DataError(
            f"{bounds.shape[1]} action bounds for {act_dim} action dimensions",
            file=log.file,
            field="actions",
            remedy="Give one bound per action dimension.",
        )
    is_open = ~np.isfinite(bounds).all(axis=0)
    notes: dict[str, str] = {}
    if bool(is_open.any()):
        bounds[:, is_open] = _data_bounds(raws, act_dim)[:, is_open]
        dims = ", ".join(str(d) for d in np.flatnonzero(is_open))
        notes["action_bounds"] = f"range of the data in dimension {dims}: the log gives no finite bounds"
    spec = SpaceSpec(
        obs_dim=obs_dim,
        act_dim=act_dim,
        act_low=tuple(float(v) for v in bounds[0]),
        act_high=tuple(float(v) for v in bounds[1]),
    )
    return spec, notes


def _common_width(arrays: Sequence[AnyArray], log: RawLog, field: str) -> int:
    widths = Counter(array.shape[1] for array in arrays if array.ndim == 2)
    if not widths:
        shapes = sorted({array.shape for array in arrays})[:3]
        raise DataError(
            f"no episode holds vectors; shapes found: {shapes}",
            file=log.file,
            episode=log.episodes[0].name if log.episodes else None,
            field=field,
            remedy="Store one vector per step, shape [rows, dimensions].",
        )
    return widths.most_common(1)[0][0]


def _data_bounds(raws: Sequence[RawEpisode], act_dim: int) -> AnyArray:
    rows = [
        raw.actions.astype(np.float64)
        for raw in raws
        if raw.actions.dtype.kind in "fiub" and raw.actions.ndim == 2 and raw.actions.shape[1] == act_dim
    ]
    actions = np.concatenate(rows) if rows else np.zeros((0, act_dim))
    actions = actions[np.isfinite(actions).all(axis=1)]
    if len(actions) == 0:
        return np.stack([-np.ones(act_dim), np.ones(act_dim)])
    low, high = actions.min(axis=0), actions.max(axis=0)
    margin = np.where(low < high, 0.0, np.maximum(np.abs(low), 1.0))
    return np.stack([low - margin, high + margin])


def _convert(
    raw: RawEpisode, spec: SpaceSpec, log: RawLog, options: LoadOptions, counts: Counter[str]
) -> Episode | None:
    repaired = repair(raw, spec, options, counts)
    if repaired is None:
        return None
    problem = first_problem(repaired, spec, file=log.file)
    if problem is None:
        return _to_episode(repaired, counts)
    if options.bad_episodes == "error":
        raise problem
    counts[f"episodes dropped: bad {problem.field}"] += 1
    return None


def repair(raw: RawEpisode, spec: SpaceSpec, options: LoadOptions, counts: Counter[str]) -> RawEpisode | None:
    """Does what `options` permit, and counts it; the checks decide whether that was enough.

    Returns:
        The episode, or None if nothing is left of it.
    """
    closed = close_log(raw, options, counts)
    if closed is None or next(structure_problems(closed, spec), None) is not None:
        return closed
    return _repair_values(closed, spec, options, counts)


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


def _repair_values(
    raw: RawEpisode, spec: SpaceSpec, options: LoadOptions, counts: Counter[str]
) -> RawEpisode:
    actions, truncations = raw.actions, raw.truncations
    if options.actions == "clip":
        beyond = excess_rows(actions, spec).any(axis=1)
        if bool(beyond.any()) and bool(np.isfinite(actions).all()):
            counts["actions clipped"] += int(beyond.sum())
            actions = np.clip(actions, np.array(spec.act_low), np.array(spec.act_high))
    if options.overlap == "terminated":
        both = raw.terminations.astype(np.bool_) & truncations.astype(np.bool_)
        if bool(both.any()):
            counts["overlapping flags: termination wins"] += int(both.sum())
            truncations = truncations.astype(np.bool_) & ~both
    return dataclasses.replace(raw, actions=actions, truncations=truncations)


def _to_episode(raw: RawEpisode, counts: Counter[str]) -> Episode:
    terminated, truncated = bool(raw.terminations[-1]), bool(raw.truncations[-1])
    if not (terminated or truncated):
        counts["ends of log marked as truncated"] += 1
        truncated = True
    log_prob, times = raw.behaviour_log_prob, raw.timestamps
    return Episode(
        observations=as_float32(raw.observations),
        actions=as_float32(raw.actions),
        rewards=as_float32(raw.rewards),
        terminated=terminated,
        truncated=truncated,
        is_final_observation_known=raw.final_observation != "unknown",
        behaviour_log_prob=None if log_prob is None else as_float32(log_prob),
        timestamps=None if times is None else np.ascontiguousarray(times, dtype=np.float64),
        infos=dict(raw.infos),
    )
