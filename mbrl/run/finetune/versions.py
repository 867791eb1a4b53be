"""Versions of a log: each is the one before with a batch of trials behind it, and says so by hashes."""

import dataclasses
import re
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from mbrl.core.errors import ConfigError, DataError
from mbrl.data.dataset import Dataset
from mbrl.data.merging.merge import merge_datasets, sources_of
from mbrl.data.relabel import relabel_dataset
from mbrl.data.stacking.choose import apply_history

LINEAGE: Final = "version"
"""Entry of the provenance that holds the lineage, as JSON."""

_NUMBERED: Final = re.compile(r"-v\d+$")


class Lineage(BaseModel):
    """Where a version comes from.

    Attributes:
        version: its number; a log without trials is version 1.
        appended_to: content hash of the version before.
        trials: content hash of the batch that was appended.
        policy: content hash of the policy that made the batch; None where nobody noted it.
        old_sources: datasets that the log without trials was merged from; 1 for a log that was not.
        episodes: trials in all batches so far.
        budget: trials that were permitted in all when the batch was appended.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    appended_to: str
    trials: str
    policy: str | None
    old_sources: int
    episodes: int
    budget: int


def lineage_of(dataset: Dataset) -> Lineage | None:
    """The lineage of a version; None for a log without trials.

    Raises:
        DataError: it cannot be read.
    """
    text = dataset.info.provenance.get(LINEAGE)
    if text is None:
        return None
    try:
        return Lineage.model_validate_json(text)
    except ValidationError as error:
        raise DataError(
            f"the lineage of {dataset.info.name!r} cannot be read ({error.errors()[0]['msg']})",
            field=f"provenance.{LINEAGE}",
            remedy="Take the version before, and append its trials again.",
        ) from error


def require_budget(log: Dataset, episodes: int, budget: int | None) -> int:
    """The budget of trials of a log, which `episodes` more do not exceed.

    Args:
        log: a version, or a log without trials.
        episodes: that are to come.
        budget: as it is stated now; None takes that of the version.

    Raises:
        ConfigError: nobody stated one, or it is exceeded.
    """
    before = lineage_of(log)
    known = budget if budget is not None or before is None else before.budget
    if known is None:
        raise ConfigError(
            "No budget of trials is stated. Remedy: --budget N, the episodes that may be run in all."
        )
    used = 0 if before is None else before.episodes
    if used + episodes > known:
        raise ConfigError(
            f"The budget is {known} trials; {used} are used, and {episodes} more would make "
            f"{used + episodes}. Remedy: fewer trials, or a larger budget (--budget), if the machine may."
        )
    return known


def as_logged(trials: Dataset, log: Dataset) -> Dataset:
    """Trials as their log has them: its rules of rewards and ends, its history, its description.

    Raises:
        ConfigError: the rewards of the log came from a function or a model, and the trials have others.
        DataError: the trials do not have the channels that its rules read.
    """
    info = log.info
    rule = info.reward_rule if trials.info.reward_rule != info.reward_rule else None
    end = info.termination_rule if trials.info.termination_rule != info.termination_rule else None
    made_by = info.provenance.get("reward")
    if info.reward_rule is None and made_by is not None and trials.info.provenance.get("reward") != made_by:
        raise ConfigError(
            f"The rewards of the log {info.name!r} are those of {made_by}, and the trials have others. "
            "Remedy: give them the same (mbrl relabel) and name them as --trials."
        )
    # Before the history: rules read the channels of single frames.
    if info.history is None and (rule is not None or end is not None):
        trials = relabel_dataset(trials, reward=rule, termination=end)
    if info.history is not None and trials.info.history is None:
        trials = apply_history(trials, info.history.frames)
        if rule is not None or end is not None:
            trials = relabel_dataset(trials, reward=rule, termination=end)
    # What the trials do not say, the log may: a name of its channels, a rate, the task.
    described = dataclasses.replace(
        trials.info,
        task=trials.info.task or info.task,
        env_id=trials.info.env_id or info.env_id,
        max_episode_steps=trials.info.max_episode_steps or info.max_episode_steps,
        ref_min_score=info.ref_min_score,
        ref_max_score=info.ref_max_score,
        time_step=trials.info.time_step or info.time_step,
        obs_names=trials.info.obs_names or info.obs_names,
        act_names=trials.info.act_names or info.act_names,
        derived_from=None,
    )
    return dataclasses.replace(trials, info=described, origin=None)


def append_trials(log: Dataset, trials: Dataset, *, budget: int, policy: str | None = None) -> Dataset:
    """The next version of a log: its episodes, then those of the trials.

    Args:
        log: a version, or a log without trials.
        trials: as `as_logged` gives them.
        budget: see `Lineage`.
        policy: content hash of the policy that made them.

    Raises:
        DataError: they differ from the log in channels, bounds, rate, rules or history, or are in it already.
    """
    before = lineage_of(log)
    lineage = Lineage(
        version=2 if before is None else before.version + 1,
        appended_to=log.content_hash,
        trials=trials.content_hash,
        policy=policy,
        old_sources=(len(sources_of(log)) or 1) if before is None else before.old_sources,
        episodes=len(trials) + (0 if before is None else before.episodes),
        budget=budget,
    )
    name = f"{_NUMBERED.sub('', log.info.name)}-v{lineage.version}"
    merged = merge_datasets([log, trials], name=name)
    # Merging keeps what all parts say alike; a version goes on being what its log is.
    provenance = {**log.info.provenance, **merged.info.provenance, LINEAGE: lineage.model_dump_json()}
    info = dataclasses.replace(
        merged.info,
        provenance=provenance,
        ref_min_score=log.info.ref_min_score,
        ref_max_score=log.info.ref_max_score,
    )
    return dataclasses.replace(merged, info=info, origin=None)


def mixing_weights(version: Dataset, *, old_share: float) -> list[float]:
    """Weights of the sources of a version: the old log has its share of a batch, all trials the rest.

    Within the old log and within the trials every row weighs the same (RLPD, Ball et al. 2023,
    arXiv:2302.02948, section 4.1: half and half).

    Args:
        version: with trials.
        old_share: of the log without trials, in (0, 1).
    """
    lineage, sources = lineage_of(version), sources_of(version)
    assert lineage is not None
    steps = [source.transitions for source in sources]
    old, new = sum(steps[: lineage.old_sources]), sum(steps[lineage.old_sources :])
    return [
        old_share * count / old if k < lineage.old_sources else (1 - old_share) * count / new
        for k, count in enumerate(steps)
    ]
