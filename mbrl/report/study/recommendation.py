"""Which algorithm to take for a dataset, and why; and when not to take one that learns from a model.

The rule, in this order:

1. Candidates have an interval over seeds, and no failed run: what survives a crash is not a fair sample.
2. The leader has the largest interquartile mean. Candidates whose 95 % intervals overlap the leader's are
   tied with it. With five seeds of normal scores and no true difference, two such intervals stay apart in
   2 % of pairs (with three seeds in 11 %).
3. A model that is trusted for no step, whose errors no measure ranks, or that misses most terminations rules
   its algorithms out. Intervals that miss their level only caution, and so do data of a kind on which models
   usually lose: here the scores themselves are better evidence (`mbrl.report.study.model_trust`).
4. Of what is tied, model-free goes before model-based, then clearly less wall time before more. Times within
   a quarter of the least count as equal; among those the largest interquartile mean is taken.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

from mbrl.report.kit.message import Message
from mbrl.report.kit.wording import format_count, format_interval, format_number, has_ends
from mbrl.report.run.comparison import Method, contrast
from mbrl.report.study.facts import Study, StudyDataset
from mbrl.report.study.model_trust import ModelTrust, about_models, judge_models
from mbrl.report.study.scores import (
    Standing,
    all_alarms,
    comparison,
    logged_values,
    standings,
    unit_of,
)

EQUAL_COST: Final = 1.25
"""Wall time over the least one, up to which it counts as equal: machines are not quieter than that."""

ENOUGH_SEEDS: Final = 5
"""Seeds that a comparison should have; published tables should have ten."""

CLONES: Final = frozenset({"bc", "discrete_bc"})
"""Learners that only imitate."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recommendation:
    """What to use on one dataset.

    Attributes:
        dataset: label.
        algorithm: label of what is recommended, or None where the runs permit no recommendation.
        leader: label of the largest interquartile mean among the candidates, or None.
        tied: candidates that cannot be told apart from the leader, the leader included.
        against_models: what speaks against a model on this dataset, in words, whether it forbids or cautions.
        reasons: the recommendation first, then why, then the cautions.
    """

    dataset: str
    algorithm: str | None
    leader: str | None
    tied: tuple[str, ...]
    against_models: tuple[str, ...]
    reasons: tuple[Message, ...]


def recommend(study: Study, dataset: str) -> Recommendation:
    """Applies the rule of this module to one dataset of a study.

    Args:
        study: the runs.
        dataset: label of the dataset.

    Raises:
        KeyError: the study has no such dataset.
    """
    data = {item.label: item for item in study.datasets}[dataset]
    everyone = standings(study, data)
    uses_models = any(standing.algorithm.needs_dynamics for standing in everyone)
    trust = judge_models(data) if uses_models else ModelTrust()
    candidates = [standing for standing in everyone if has_ends(standing.iqm) and not standing.failed]
    permitted = [c for c in candidates if not (trust.ruled_out and c.algorithm.needs_dynamics)]
    of_models = about_models(data, trust) if uses_models else []
    if not permitted:
        reasons = (_abstention(data, everyone, candidates), *of_models, *_about_runs(everyone))
        return Recommendation(data.label, None, None, (), trust.against, reasons)
    leader, best = (max(group, key=_estimate) for group in (candidates, permitted))
    level = [c for c in permitted if _overlap(c, best)]
    chosen = _simplest(level)
    tied = [c for c in candidates if _overlap(c, leader)]
    reasons = (
        _headline(data, chosen, level, leader),
        *_against_references(study, data, chosen, everyone),
        *of_models,
        *_about_chosen(data, chosen, everyone),
        *_about_runs(everyone),
    )
    return Recommendation(
        dataset, chosen.label, leader.label, tuple(c.label for c in tied), trust.against, reasons
    )


def basis(study: Study) -> Message:
    """Where the scores of a study come from, and what choosing by them means."""
    episodes = sorted({len(run.returns) for run in study.runs if run.status == "done" and run.returns})
    counted = "no" if not episodes else f"{episodes[0]}" if len(episodes) == 1 else f"{episodes[0]} or more"
    seeds = format_count(len(study.seeds), "seed")
    policy = "last policy" if study.selection == "last" else f"policy that the rule `{study.selection}` picks"
    text = (
        f"Every score is the mean over {counted} episodes in a simulator, played after training had ended, "
        f"of the {policy} of a run; {seeds} each, and a seed includes its model. Comparing after the fact is "
        "not tuning: no checkpoint and no hyper-parameter was chosen by these scores. Taking the best of "
        f"{len(study.algorithms)} methods by them is a choice made with the simulator, and flatters the one "
        "that is taken."
    )
    few = len(study.seeds) < ENOUGH_SEEDS
    text += f" Fewer than {ENOUGH_SEEDS} seeds: the intervals are too narrow." if few else ""
    return Message(text, "caution" if few else "plain")


def is_clone(standing: Standing) -> bool:
    """Whether it only imitates the log: what every other method has to beat."""
    return standing.algorithm.learner in CLONES and not standing.algorithm.needs_dynamics


def _estimate(standing: Standing) -> float:
    return standing.iqm.estimate


def _simplest(level: Sequence[Standing]) -> Standing:
    """Of methods that cannot be told apart: model-free, then cheap, then the largest average."""
    pool = [s for s in level if not s.algorithm.needs_dynamics] or list(level)
    least = min(map(_cost, pool))
    return max((s for s in pool if _cost(s) <= EQUAL_COST * least), key=_estimate)


def _cost(standing: Standing) -> float:
    return math.inf if standing.seconds is None else standing.seconds


def _overlap(one: Standing, other: Standing) -> bool:
    return one.iqm.low <= other.iqm.high and other.iqm.low <= one.iqm.high


def _method(standing: Standing) -> Method:
    return Method(standing.label, tuple(standing.values.values()), standing.iqm, standing.seconds)


def _headline(data: StudyDataset, chosen: Standing, level: Sequence[Standing], leader: Standing) -> Message:
    own, unit, best = format_interval(chosen.iqm), unit_of(data), max(level, key=_estimate)
    others = ", ".join(standing.label for standing in level if standing is not chosen)
    text = f"{data.label}: use {chosen.label}. Interquartile mean of the {unit} {own}, {chosen.seeds} seeds. "
    if chosen is not best:
        text += (
            f"{best.label} at {format_interval(best.iqm)} cannot be told apart from it, and "
            f"{_why_simpler(chosen, best)}. "
        )
    elif others:
        text += f"It has the largest; what is level with it, {others}, is neither simpler nor much cheaper. "
    else:
        text += "No other interval of what may be used overlaps it. "
    if not _overlap(leader, best):
        text += (
            f"{leader.label} scored higher, {format_interval(leader.iqm)}, but learns from a model that "
            "fails its checks: that its policies are good is known from the simulator only. "
        )
    return Message(text.strip())


def _why_simpler(chosen: Standing, best: Standing) -> str:
    if best.algorithm.needs_dynamics and not chosen.algorithm.needs_dynamics:
        return f"{chosen.label} needs no model"
    seconds = (format_number(standing.seconds) for standing in (chosen, best))
    return "{} costs less: {} s against {} s".format(chosen.label, *seconds)


def _abstention(data: StudyDataset, everyone: Sequence[Standing], candidates: Sequence[Standing]) -> Message:
    if candidates:
        names = ", ".join(candidate.label for candidate in candidates)
        text = f"only model-based methods can be judged ({names}), and their model fails its checks."
    else:
        seeds = "; ".join(f"{standing.label} {standing.seeds}" for standing in everyone)
        text = (
            "no algorithm has two finished seeds and no failed run, and one seed tells nothing of the next. "
            f"Finished: {seeds}."
        )
    return Message(f"{data.label}: nothing is recommended: {text}", "caution")


def _against_references(
    study: Study, data: StudyDataset, chosen: Standing, everyone: Sequence[Standing]
) -> list[Message]:
    """Against the clone, which is the bar, and against the log itself."""
    clones = [standing for standing in everyone if is_clone(standing)]
    messages: list[Message] = []
    if is_clone(chosen):
        messages.append(Message(f"{chosen.label} is the clone of the log: imitation suffices."))
    elif clones:
        rival = clones[0]
        messages.append(contrast(_method(chosen), f"the clone, {rival.label}", rival.iqm))
    else:
        text = "The study has no behaviour clone: whether anything beats imitation is not known."
        messages.append(Message(text, "caution"))
    behaviour = comparison(study, data).behaviour
    if behaviour is not None:
        against_log = contrast(_method(chosen), "the logged behaviour", behaviour)
        is_level = against_log.tone == "caution" and has_ends(behaviour)
        messages.append(dataclasses.replace(against_log, tone="plain") if is_level else against_log)
        if all(standing.iqm.high < behaviour.low for standing in everyone if has_ends(standing.iqm)):
            text = f"{data.label}: keep the controller that made the log; it is better than all of these."
            messages.append(Message(text, "bad"))
    return messages


def _about_chosen(data: StudyDataset, chosen: Standing, everyone: Sequence[Standing]) -> list[Message]:
    messages: list[Message] = []
    worst, (bar, name) = chosen.worst, _bar(data, everyone)
    if worst is not None and worst[1] < bar and not is_clone(chosen):
        text = (
            f"The worst seed of {chosen.label}, {worst[0]}, reaches {format_number(worst[1])}, less than the "
            f"{format_number(bar)} of {name}: evaluate the very policy that you deploy."
        )
        messages.append(Message(text, "caution"))
    alarmed = [run for run in chosen.runs if all_alarms(run)]
    if alarmed:
        text = f"{len(alarmed)} of {len(chosen.runs)} runs of {chosen.label} raised alarms: see their shift."
        messages.append(Message(text, "caution"))
    return messages


def _bar(data: StudyDataset, everyone: Sequence[Standing]) -> tuple[float, str]:
    """What a method should reach with every seed: the clone, or the log itself where there is none."""
    for standing in everyone:
        if is_clone(standing) and standing.values:
            return standing.iqm.estimate, f"the clone, {standing.label}"
    logged = logged_values(data)
    return (math.fsum(logged) / len(logged) if logged else -math.inf), "the log"


def _about_runs(everyone: Sequence[Standing]) -> list[Message]:
    messages: list[Message] = []
    failed = [f"{s.label} ({s.failed} of {s.planned})" for s in everyone if s.failed]
    if failed:
        text = f"Not considered, because what survives a crash is no fair sample: {', '.join(failed)} failed."
        messages.append(Message(text, "caution"))
    unfinished = [f"{s.label} ({s.seeds})" for s in everyone if len(s.values) + s.failed < s.planned]
    if unfinished:
        text = f"Not all seeds are finished: {', '.join(unfinished)}."
        messages.append(Message(text, "caution"))
    return messages
