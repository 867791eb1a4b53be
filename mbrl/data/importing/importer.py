"""Imports raw files: run by run, so that one run at a time is in memory."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.core.history import History
from mbrl.data.assemble import assemble
from mbrl.data.dataset import Dataset
from mbrl.data.flags import flag_array
from mbrl.data.importing.channels import Sampler, resolve_channels
from mbrl.data.importing.report import ImportReport, RunClock, run_clock
from mbrl.data.importing.rules import Steps, check_formulas, formula_columns, known_rule
from mbrl.data.importing.runs import FileKind, Piece, Run, group_files, list_files, read_pieces
from mbrl.data.importing.schema import ALL, ImportSchema
from mbrl.data.importing.signals import Floats
from mbrl.data.importing.stretches import Stretch, find_stretches, step_times
from mbrl.data.importing.tables import expand, unknown_column
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawEpisode, RawLog, absent_rewards
from mbrl.data.splits import TEST_INFO

_MAX_LISTED: Final = 2000


def import_files(schema: ImportSchema, paths: Sequence[Path]) -> tuple[Dataset, ImportReport]:
    """Makes a dataset of raw files.

    Args:
        schema: how to read them.
        paths: files, and folders whose matching files are read in the order of their paths.

    Returns:
        The dataset, the same bits from the same files, and what was done.

    Raises:
        DataError: a file or a value cannot be used; the message says where and what to do.
        ExpressionError: an expression reads an unknown name.
    """
    files = list_files(paths, schema)
    runs = group_files(files, schema)
    schema = resolve(schema, runs[0])
    wanted = _wanted(schema)
    counts: Counter[str] = Counter()
    clocks: list[RunClock] = []
    episodes: list[RawEpisode] = []
    for run in runs:
        for piece in read_pieces(run, schema, wanted, counts):
            clocks.append(run_clock(run.name, piece))
            episodes += _episodes(piece, run, schema, counts, first=len(episodes))
    rows = counts.pop("rows read")
    counts += Counter()  # drops the zeros
    if not episodes:
        done = ", ".join(f"{reason}: {count}" for reason, count in counts.items()) or "none"
        raise DataError(
            f"no stretch of the log is long enough for a step (left out: {done})",
            file=files[0],
            remedy="Check rate, max_gap, windows and episodes.min_steps in the schema, and time.unit.",
        )
    log = _log(schema, runs, episodes, counts, clocks)
    dataset = assemble(log, LoadOptions())
    report = ImportReport.of(schema, files, rows, dataset, clocks)
    return dataset, report


def resolve(schema: ImportSchema, run: Run) -> ImportSchema:
    """The schema with every default, name and list of columns written out, checked against the first run.

    Raises:
        DataError: a name with `[*]` stands for nothing.
        ExpressionError: an expression reads an unknown name.
    """
    names = run.columns(FileKind.of(schema))
    updates: dict[str, Any] = {}
    for kind in ("observations", "actions"):
        channels: list[Any] = []
        for index, channel in enumerate(getattr(schema, kind)):
            key = "derivative" if getattr(channel, "derivative", None) is not None else "column"
            pattern = getattr(channel, key)
            if pattern is None or not pattern.endswith(ALL):
                channels.append(channel)
                continue
            found = expand(pattern, names)
            if not found:
                place = f"{kind}.{index}.{key}"
                raise unknown_column(pattern, names, place=place, file=run.files[0])
            root = channel.name.removesuffix(ALL) or pattern.removesuffix(ALL)
            channels += [
                channel.model_copy(update={key: name, "name": f"{root}[{k}]"}) for k, name in enumerate(found)
            ]
        updates[kind] = tuple(channels)
    resolved = resolve_channels(schema.model_copy(update=updates))
    resolved = ImportSchema.model_validate(resolved.model_dump())  # names are unique now, too
    check_formulas(resolved, [*names, *schema.columns])
    return resolved


def _wanted(schema: ImportSchema) -> list[tuple[str, str]]:
    """Columns to be read, with the place that names each."""
    wanted = list(schema.read_columns())
    for place, text in schema.formulas().items():
        wanted += [(place, name) for name in formula_columns(schema, text)]
    return wanted


def _episodes(
    piece: Piece, run: Run, schema: ImportSchema, counts: Counter[str], *, first: int
) -> Iterator[RawEpisode]:
    sampler = Sampler.of(schema, piece.signals)
    made = 0
    for stretch in find_stretches(piece, schema, counts):
        edges = step_times(stretch, piece, schema)
        steps = len(edges) - schema.history  # the first frames only complete the history
        if steps < schema.episodes.min_steps:
            if len(edges) > 1:
                counts[f"episodes left out: fewer than {schema.episodes.min_steps} steps"] += 1
            continue
        name = f"{first + made} ({run.name}, {edges[0]:.3f} to {edges[-1]:.3f} s)"
        made += 1
        is_test = _is_test(schema, run, first + made)
        yield _episode(sampler, stretch, edges, schema, name, counts, is_test=is_test)


def _episode(
    sampler: Sampler,
    stretch: Stretch,
    edges: Floats,
    schema: ImportSchema,
    name: str,
    counts: Counter[str],
    *,
    is_test: bool | None,
) -> RawEpisode:
    frames, actions = sampler.frames(edges), sampler.actions(edges)
    steps = Steps(schema, sampler.signals, edges, frames, actions)
    count, skipped = len(actions), schema.history - 1
    terminated = False
    if schema.termination is not None:
        ends = np.flatnonzero(steps.evaluate(schema.termination, flags=True)[skipped:])
        if len(ends):
            terminated = True
            counts["steps left out after a termination"] += count - skipped - int(ends[0]) - 1
            count = skipped + int(ends[0]) + 1
    if not terminated and stretch.is_end:
        terminated = _has_failed(steps, stretch, schema, counts)
    rewards = absent_rewards(count)
    if schema.reward is not None:
        rewards = steps.rewards(schema.reward, episode=name)[:count]
    stacked = np.concatenate(
        [frames[skipped - lag : count + 1 - lag] for lag in range(schema.history)], axis=1
    )
    kept = count - skipped
    infos = {} if is_test is None else {TEST_INFO: np.full(kept, is_test)}
    return RawEpisode(
        name=name,
        observations=stacked,
        actions=actions[skipped:count],
        rewards=rewards[skipped:],
        terminations=flag_array(kept, last=terminated),
        truncations=flag_array(kept, last=not terminated),
        timestamps=edges[skipped : count + 1],
        infos=infos,
        has_rewards=schema.reward is not None,
    )


def _has_failed(steps: Steps, stretch: Stretch, schema: ImportSchema, counts: Counter[str]) -> bool:
    """Whether an episode was stopped by a failure that nothing marks."""
    failures = schema.failures
    is_early = failures.ends_before is not None and stretch.stop - stretch.begun < failures.ends_before
    is_beyond = failures.limit is not None and steps.holds_at_end(failures.limit)
    if is_early or is_beyond:
        counts["episodes taken to end by a failure"] += 1
    return is_early or is_beyond


def _is_test(schema: ImportSchema, run: Run, number: int) -> bool | None:
    """Whether episode `number` (from 1) is kept for tests; None where the schema tags nothing."""
    tags = schema.tags
    if not tags.test and tags.every is None:
        return None
    by_file = any(file.match(pattern) for file in run.files for pattern in tags.test)
    return by_file or (tags.every is not None and number % tags.every == 0)


def _log(
    schema: ImportSchema,
    runs: Sequence[Run],
    episodes: Sequence[RawEpisode],
    counts: Counter[str],
    clocks: Sequence[RunClock],
) -> RawLog:
    step = 1.0 / schema.rate if schema.rate is not None else float(np.median([c.interval for c in clocks]))
    names = ", ".join(file.name for run in runs for file in run.files)
    kinds = {channel.label: channel.kind for channel in schema.actions}
    info = DatasetInfo(
        name=schema.name,
        time_step=step,
        obs_names=schema.obs_names,
        act_names=schema.action_names,
        provenance={
            "source": schema.source,
            "files": names if len(names) <= _MAX_LISTED else f"{names[:_MAX_LISTED]}...",
            "actions_are": json.dumps(kinds),
        },
        schema=schema.model_dump_json(),
        reward_rule=known_rule(schema, schema.reward),
        termination_rule=known_rule(schema, schema.termination),
        history=History(schema.history) if schema.history > 1 else None,
    )
    low = tuple(-np.inf if channel.low is None else channel.low for channel in schema.actions)
    high = tuple(np.inf if channel.high is None else channel.high for channel in schema.actions)
    choices = schema.actions[0].vocabulary
    return RawLog(None, tuple(episodes), info, act_low=low, act_high=high, choices=choices, counts=counts)
