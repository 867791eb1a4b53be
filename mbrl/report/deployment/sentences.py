"""The deployment report in sentences: the verdict and its reasons, agreement, and what to collect next."""

from collections.abc import Mapping
from typing import Final

from mbrl.off_policy.judgement.families import BEHAVIOUR
from mbrl.off_policy.judgement.report.concluded import VERDICT_WORDS, VerdictName
from mbrl.off_policy.judgement.report.documents import OPEReport
from mbrl.off_policy.log.task_horizon import SOURCE_WORDS
from mbrl.report.kit.message import Message, Tone
from mbrl.report.kit.wording import format_count, format_number, format_share

_TONES: Final[Mapping[VerdictName, Tone]] = {
    "go": "good",
    "go_with_guard": "caution",
    "no_go": "bad",
    "cannot_tell": "plain",
}

_MEANING: Final[Mapping[VerdictName, str]] = {
    "go": "{name} may be deployed: by every family that counts it is better than {baseline}.",
    "go_with_guard": (
        "{name} may be tried with a guard (a fallback controller and limits that stop it): something says "
        "that it is better than {baseline}, and nothing that counts says otherwise."
    ),
    "no_go": "do not deploy {name}.",
    "cannot_tell": (
        "the log does not say whether {name} is better than {baseline}. That is the ordinary answer of a "
        "thin log, and no judgement of the policy."
    ),
}


def baseline_name(report: OPEReport) -> str:
    """What the candidate is compared with, in words."""
    name = report.baseline.policy
    return "the logged behaviour" if name == BEHAVIOUR else name


def question_sentence(report: OPEReport) -> str:
    """What was asked, who says how long an episode is, and how much of the log was cut before."""
    data, cut = report.data, report.data.censored
    text = f"Asked: {report.estimand.words}"
    if report.estimand.horizon is not None:
        text += f" ({SOURCE_WORDS[report.horizon_source]})"
    if cut == 0:
        return f"{text}."
    verb = "was" if cut == 1 else "were"
    return f"{text}. {cut:,} of {data.episodes:,} logged episodes {verb} cut sooner."


def verdict_message(report: OPEReport) -> Message:
    """The verdict in plain words; of several candidates the one that holds for all at once."""
    word = report.verdict.final.verdict
    meaning = _MEANING[word].format(name=report.candidate, baseline=baseline_name(report))
    return Message(f"{VERDICT_WORDS[word]}: {meaning}", _TONES[word])


def verdict_reasons(report: OPEReport) -> list[str]:
    """Why, one sentence each; those of the corrected verdict where there are several candidates."""
    reasons = report.verdict.final.reasons
    return [f"{reason[:1].upper()}{reason[1:].removesuffix('.')}." for reason in reasons]


def verdict_messages(report: OPEReport) -> list[Message]:
    """The verdict, and its reasons."""
    return [verdict_message(report), Message(" ".join(["Why:", *verdict_reasons(report)]))]


def verdict_lines(report: OPEReport) -> list[str]:
    """The verdict, its reasons and the proposal, for a terminal."""
    final = report.verdict.final
    lines = [
        f"{report.candidate}: {VERDICT_WORDS[final.verdict]}",
        *(f"  {reason}" for reason in final.reasons),
    ]
    return [*lines, f"  next: {next_sentence(report)}"]


def agreement_sentence(report: OPEReport) -> str:
    """Whether the families that count tell the same story."""
    agreement = report.agreement
    families, z, paired = agreement.families_used, agreement.z, agreement.paired_z
    if not families:
        return "No family of estimators counts."
    if z is None:
        return f"One family counts ({families[0]}), so nothing confirms it."
    text = f"The families {', '.join(families)} differ by {z:.1f} standard errors at most"
    text += "" if paired is None else f" ({paired:.1f} where what they share is cancelled)"
    if agreement.outlier is not None:
        text += f"; {agreement.outlier} stands apart"
    reason = agreement.likely_reason
    return f"{text}. Likely reason: {reason}." if reason is not None else f"{text}."


def next_sentence(report: OPEReport) -> str:
    """What to collect next and what it would buy."""
    proposal = report.next_data
    if proposal.episodes is None:
        return f"Nothing to collect: {proposal.why_not}."
    then, shrink = format_number(proposal.half_width_then), proposal.shrink
    gain = "" if shrink is None else f", {format_share(shrink)} less than now"
    what = f"{format_count(proposal.episodes, 'episode')} of the {proposal.policy}"
    what, would = (what, "would") if proposal.is_enough else (f"Even {what}", "would not")
    text = f"{what} {would} {proposal.reason}: the half width of the interval would be {then}{gain}."
    states = [f"episode {state.episode} step {state.step}" for state in proposal.states]
    if states:
        text += f" Start some from states like {', '.join(states)}, where it leaves the log."
    for other in proposal.alternatives:
        count = format_count(other.episodes, "more episode")
        text += f" Or {count} of the {other.policy} would {other.reason}."
    return text
