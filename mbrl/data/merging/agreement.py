"""What datasets must have in common before they are one: every difference by the name of its field."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic import ValidationError

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.importing.schema import ImportSchema

_SAME_RATE: Final = 1e-3
"""Relative difference of two time steps that is rounding of a clock."""

_KNOWN: Final = ("task", "env_id", "max_episode_steps", "ref_min_score", "ref_max_score")
"""Facts that a dataset may leave open: two that state them must state the same."""

_RULES: Final = ("reward_rule", "termination_rule", "history")
"""Facts whose absence says something: all datasets have the same, or none has any."""

_REMEDIES: Final = {
    "task": "Merge logs of one task; a task of its own is a policy of its own.",
    "env_id": "Merge logs of one simulator.",
    "max_episode_steps": "Import them with the same time limit: an end means the same in both then.",
    "reward_rule": "Give both the same reward: mbrl relabel DATASET --reward EXPRESSION --out NEW.",
    "termination_rule": "Give both the same end: mbrl relabel DATASET --termination CONDITION --out NEW.",
    "history": "Open both with the same history (--set history=N), not history=auto.",
    "ref_min_score": "Import them with the same scores, or with none.",
    "ref_max_score": "Import them with the same scores, or with none.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class _Pair:
    """The first dataset and another, and the error that names both."""

    first: Dataset
    other: Dataset

    def differ(self, field: str, of: Callable[[Dataset], Any], remedy: str) -> DataError:
        one, two = (f"{log.info.name!r} has {_shown(of(log))}" for log in (self.first, self.other))
        return DataError(f"{one}, and {two}", field=field, remedy=remedy)


def find_differences(first: Dataset, other: Dataset) -> Iterator[DataError]:
    """Yields what keeps two datasets from being one, the field that differs in each error.

    Sizes, names, units, bounds or choices, rate, task, rules, history, and whether there are rewards. What
    one of them leaves open (a name, a rate, a task) the other may state.
    """
    pair = _Pair(first, other)
    yield from _space_differences(pair)
    yield from _channel_differences(pair)
    yield from _rate_differences(pair)
    for field in (*_KNOWN, *_RULES):
        one, two = (getattr(log.info, field) for log in (first, other))
        if one != two and (field in _RULES or (one is not None and two is not None)):
            yield pair.differ(field, functools.partial(_fact, field), _REMEDIES[field])
    one, two = (log.info.provenance.get("task_hash") for log in (first, other))
    if one is not None and two is not None and one != two:
        yield pair.differ(
            "provenance.task_hash",
            lambda log: log.info.provenance["task_hash"],
            "Their tasks have one name and other contents: merge logs of one task.",
        )
    if first.has_rewards != other.has_rewards:
        yield pair.differ(
            "rewards",
            lambda log: "rewards" if log.has_rewards else "no rewards",
            "Give both rewards (mbrl relabel), or read both without: --set rewards=ignore.",
        )


def _space_differences(pair: _Pair) -> Iterator[DataError]:
    one, two = pair.first.spec, pair.other.spec
    if one.obs_dim != two.obs_dim:
        remedy = "Import both with the same channels; a missing one cannot be made up."
        yield pair.differ("observations", lambda log: f"{log.spec.obs_dim} dimensions", remedy)
    if one.choices != two.choices:
        remedy = "State the same choices for both: --set choices=[...]."
        yield pair.differ("choices", lambda log: log.spec.choices or "continuous actions", remedy)
    elif one.act_dim != two.act_dim:
        remedy = "Import both with the same actions."
        yield pair.differ("actions", lambda log: f"{log.spec.act_dim} dimensions", remedy)
    elif (one.act_low, one.act_high) != (two.act_low, two.act_high):
        names = pair.first.act_names
        bounds = [list(zip(spec.act_low, spec.act_high, strict=True)) for spec in (one, two)]
        place = next(k for k in range(one.act_dim) if bounds[0][k] != bounds[1][k])
        yield pair.differ(
            "action bounds",
            lambda log: f"{names[place]} in [{log.spec.act_low[place]:g}, {log.spec.act_high[place]:g}]",
            "State the limits of the machine for both: --set action_low=[...] --set action_high=[...].",
        )


def _channel_differences(pair: _Pair) -> Iterator[DataError]:
    for field in ("obs_names", "act_names"):
        one, two = (getattr(log.info, field) for log in (pair.first, pair.other))
        if one is None or two is None or one == two or len(one) != len(two):
            continue
        place = next(k for k in range(len(one)) if one[k] != two[k])
        remedy = (
            "Their order differs: import both with the channels in one order."
            if sorted(one) == sorted(two)
            else "Import both with the same names, if these are the same channels."
        )
        yield pair.differ(field, lambda log, f=field, k=place: f"{getattr(log.info, f)[k]!r} at {k}", remedy)
    units = [_units(log) for log in (pair.first, pair.other)]
    for name in units[0].keys() & units[1].keys():
        if units[0][name] != units[1][name]:
            yield pair.differ(
                f"unit of {name}",
                lambda log, n=name: _units(log)[n],
                "Bring both to one unit in their import schemas (scale, offset).",
            )


def _rate_differences(pair: _Pair) -> Iterator[DataError]:
    one, two = (log.info.time_step for log in (pair.first, pair.other))
    if one is not None and two is not None and not math.isclose(one, two, rel_tol=_SAME_RATE):
        yield pair.differ(
            "time_step",
            lambda log: f"a step every {log.info.time_step:g} s",
            "Import both at one rate (rate: in their schemas): a step means the same then.",
        )


def _fact(field: str, log: Dataset) -> Any:
    return getattr(log.info, field)


def _units(log: Dataset) -> dict[str, str]:
    """The units that the import schema states, by channel; none where it states none or cannot be read."""
    if log.info.schema is None:
        return {}
    try:
        schema = ImportSchema.model_validate_json(log.info.schema)
    except ValidationError:
        return {}
    channels = [*schema.observations, *schema.actions]
    return {channel.label: channel.unit for channel in channels if channel.unit is not None}


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
