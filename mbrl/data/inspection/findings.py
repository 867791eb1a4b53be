"""What a user should know of a dataset that passed its checks: warnings and notes, each with a remedy."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.data.dataset import Dataset
from mbrl.data.inspection.choices import choice_findings, leak_findings
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.inspection.stats import DatasetStats, Dimension
from mbrl.data.splits import MIN_EPISODES

MIN_TRANSITIONS: Final = 1000
MANY_SATURATED: Final = 0.5
MANY_DUPLICATES: Final = 0.01
MANY_STILL: Final = 0.05

NEARLY_CONSTANT: Final = 1e-4
"""Range of a channel, as a share of its mean, below which it hardly changes."""

FEW_VALUES: Final = 8
"""A column of whole numbers that takes no more values than this looks like choices."""

IMPROBABLE: Final = -100.0
"""Log-density per action dimension below which the behaviour would never have acted so."""

_COMMON_LENGTH: Final = 0.2  # share of the episodes, from which one length looks like a time limit
_CLOCK_TOLERANCE: Final = 0.2


def dataset_findings(dataset: Dataset) -> Iterator[DataFinding]:
    """Yields what the load, the ends of episodes, densities and clocks give reason to say."""
    for reason, count in dataset.dropped.items():
        text = f"On loading: {reason}, {count} times."
        yield DataFinding(severity="note", text=text, remedy="None needed if that was intended.")
    for key in ("action_bounds", "pinned_actions"):
        if key in dataset.info.provenance:
            text = f"Assumed {key.replace('_', ' ')}: {dataset.info.provenance[key]}."
            yield DataFinding(severity="warning", text=text, remedy="Give action_low and action_high.")
    if "choices" in dataset.info.provenance:
        text = f"Assumed choices: {dataset.info.provenance['choices']}."
        remedy = "State them if there are others: choices=4, or choices=[left,right]."
        yield DataFinding(severity="note", text=text, remedy=remedy)
    yield from leak_findings(dataset)
    yield from _end_findings(dataset)
    yield from _density_findings(dataset)
    yield from _clock_findings(dataset)
    yield from _choice_findings(dataset)


def _end_findings(dataset: Dataset) -> Iterator[DataFinding]:
    """A time limit that was stored as termination would teach that time kills."""
    if not all(episode.terminated for episode in dataset.episodes):
        return
    lengths = Counter(len(episode) for episode in dataset.episodes)
    longest, limit = max(lengths), dataset.info.max_episode_steps
    count = lengths[longest]
    is_common = count >= max(3, _COMMON_LENGTH * len(dataset)) and longest > 1
    if not is_common or not (len(lengths) == 1 or longest >= 20 or longest == limit):
        return
    share = "every episode" if len(lengths) == 1 else f"{count} of {len(dataset)} episodes"
    yield DataFinding(
        severity="warning",
        text=f"No episode is cut, and {share} terminates at exactly step {longest}, the last of all: that "
        "looks like a time limit stored as termination.",
        remedy="Store steps that a time limit cut as truncated: nothing is bootstrapped from a termination.",
    )


def _density_findings(dataset: Dataset) -> Iterator[DataFinding]:
    logged = [episode.behaviour_log_prob for episode in dataset.episodes]
    known = [values for values in logged if values is not None]
    if not known:
        return
    remedy = "Use estimators that fit the behaviour policy, or read the log with behaviour=ignore."
    if len(known) < len(logged):
        text = f"{len(logged) - len(known)} of {len(logged)} episodes lack behaviour log-probabilities."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    values = np.concatenate(known)
    improbable = int((values < IMPROBABLE * dataset.spec.act_dim).sum())
    if improbable:
        text = (
            f"{improbable} logged actions have a log-density below {IMPROBABLE * dataset.spec.act_dim:g} "
            f"(the least is {float(values.min()):g}): no policy acts so."
        )
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    if len(values) >= 100 and 0.0 <= float(values.min()) < float(values.max()) <= 1.0:
        text = "Every behaviour log-probability lies in [0, 1], as probabilities do, not their logarithms."
        yield DataFinding(severity="warning", text=text, remedy="Store their natural logarithms.")


def _clock_findings(dataset: Dataset) -> Iterator[DataFinding]:
    timed = [episode.timestamps for episode in dataset.episodes if episode.timestamps is not None]
    if not timed:
        return
    if len(timed) < len(dataset):
        text = f"{len(dataset) - len(timed)} of {len(dataset)} episodes lack time stamps."
        yield DataFinding(severity="note", text=text, remedy="None needed: training does not read them.")
    usual = float(np.median(np.concatenate([np.diff(times) for times in timed])))
    stated = dataset.info.time_step
    if stated is not None and abs(usual - stated) > _CLOCK_TOLERANCE * stated:
        text = f"Time stamps are {usual:g} s apart in the median, and the log states {stated:g} s."
        yield DataFinding(severity="warning", text=text, remedy="Correct time_step, or the time stamps.")


def _choice_findings(dataset: Dataset) -> Iterator[DataFinding]:
    actions = dataset.transitions().action
    if actions.shape[1] != 1 or len(actions) < 100 or dataset.spec.is_discrete:
        return
    found: NDArray[np.float32] = np.unique(actions[:, 0])
    if 1 < len(found) <= FEW_VALUES and bool((found == np.round(found)).all()):
        listed = ", ".join(f"{value:g}" for value in found)
        text = f"The action takes the values {listed} alone, and a policy commands any between its bounds."
        remedy = "None needed for a continuous command; state choices, and no bounds, if they are choices."
        yield DataFinding(severity="note", text=text, remedy=remedy)


def stats_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    """Yields what sizes, rows and dimensions give reason to say."""
    yield from _size_findings(stats)
    yield from _reward_findings(stats)
    yield from _row_findings(stats)
    yield from _dimension_findings(stats)
    if stats.choices is not None:
        yield from choice_findings(stats.choices)


def _size_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    if stats.num_transitions < MIN_TRANSITIONS:
        text = f"Only {stats.num_transitions} transitions: a model will hardly generalise from them."
        yield DataFinding(severity="warning", text=text, remedy="Log more data.")
    if stats.num_episodes < MIN_EPISODES:
        text = f"Only {stats.num_episodes} episodes: blocks of time are held out, not whole episodes."
        yield DataFinding(severity="note", text=text, remedy="Log more episodes for a stricter holdout.")
    if stats.terminated == 0:
        text = "No step terminates: the termination head stays off."
        remedy = "Mark failures as terminated if the log has any."
        yield DataFinding(severity="note", text=text, remedy=remedy)
    if stats.unknown_successors:
        text = f"{stats.unknown_successors} terminal steps have no logged successor."
        remedy = "None needed: value learning keeps them, dynamics are learned without them."
        yield DataFinding(severity="note", text=text, remedy=remedy)


def _reward_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    for outlier in stats.reward_outliers:
        yield DataFinding(severity="warning", text=f"{outlier.describe()}.", remedy=outlier.remedy)
    if stats.rewards is None:
        text = "There are no rewards: dynamics can be fitted and behaviour cloned, but no policy improved."
        remedy = "None needed for a model; mbrl relabel DATASET --reward EXPRESSION --out NEW defines one."
        yield DataFinding(severity="note", text=text, remedy=remedy)
    elif stats.rewards.minimum == stats.rewards.maximum:
        text = f"Every reward is {stats.rewards.mean:g}: there is nothing to prefer."
        remedy = "Relabel the log with the reward of the task."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    elif max(abs(stats.rewards.minimum), abs(stats.rewards.maximum)) > 100.0:
        text = f"Rewards lie between {stats.rewards.minimum:g} and {stats.rewards.maximum:g}."
        remedy = "Scale them down if value learning is unstable."
        yield DataFinding(severity="note", text=text, remedy=remedy)


def _row_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    if stats.duplicate_rows > MANY_DUPLICATES * stats.num_transitions:
        text = f"{stats.duplicate_rows} transitions repeat stretches of an earlier episode in every number."
        remedy = "Remove copied episodes: they may stand on both sides of a split."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    if stats.still_rows > MANY_STILL * stats.num_transitions:
        text = f"{stats.still_rows} transitions equal the one before them: nothing moves there."
        remedy = "None needed; leave long pauses out to save time."
        yield DataFinding(severity="note", text=text, remedy=remedy)
    if stats.inconsistent_rows:
        text = f"{stats.inconsistent_rows} transitions repeat a state and action with another successor."
        remedy = "Check the order of rows; if the machine is random or has hidden state, add what is missing."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    if stats.jump_rows:
        text = f"{stats.jump_rows} transitions jump far beyond a usual step."
        remedy = "Look for resets without a flag, gaps in time and wrapped angles."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    if stats.time_gaps is not None:
        gaps = stats.time_gaps
        text = (
            f"{gaps.count} pauses between time stamps are far longer than the usual {gaps.usual:g} s; the "
            f"longest, {gaps.seconds:g} s, follows row {gaps.row} of episode {gaps.episode}."
        )
        remedy = "Cut the log into episodes at the gaps: a step across one is no step of the machine."
        yield DataFinding(severity="warning", text=text, remedy=remedy)


def _dimension_findings(stats: DatasetStats) -> Iterator[DataFinding]:
    constant = [dimension.name for dimension in stats.observations if dimension.is_constant]
    if constant:
        text = f"Observation dimensions that never change: {', '.join(constant)}."
        yield DataFinding(severity="note", text=text, remedy="None needed; leave them out to save time.")
    nearly = [dimension.name for dimension in stats.observations if _hardly_changes(dimension)]
    if nearly:
        text = f"Observation dimensions that hardly change: {', '.join(nearly)}."
        remedy = "Leave them out if what is left of them is noise: it is scaled up like any other signal."
        yield DataFinding(severity="note", text=text, remedy=remedy)
    idle = [d.name for d in stats.actions if d.is_constant and stats.choices is None]
    if idle:
        text = f"Action dimensions that never change: {', '.join(idle)}. Their effect cannot be learned."
        remedy = "Leave them out, or log data that vary them."
        yield DataFinding(severity="warning", text=text, remedy=remedy)
    for dimension in stats.actions:
        if dimension.saturation is not None and dimension.saturation > MANY_SATURATED:
            text = f"Action {dimension.name} is at a bound in {100 * dimension.saturation:.0f} % of steps."
            remedy = "Check that the bounds are the machine's own."
            yield DataFinding(severity="note", text=text, remedy=remedy)


def _hardly_changes(dimension: Dimension) -> bool:
    values = dimension.values
    return not dimension.is_constant and values.maximum - values.minimum < NEARLY_CONSTANT * abs(values.mean)
