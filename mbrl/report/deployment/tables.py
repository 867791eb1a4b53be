"""The deployment report as tables and sentences; reads the JSON alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mbrl.ope.judgement.findings import BEHAVIOUR, PRIMARY, count_families
from mbrl.ope.judgement.report_fields import listed, part
from mbrl.ope.judgement.rule import JudgeRule
from mbrl.report.kit.message import Message, Tone
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import format_count, format_number, format_share

WORDS: Final[Mapping[str, str]] = {
    "go": "GO",
    "go_with_guard": "GO WITH GUARD",
    "no_go": "NO-GO",
    "cannot_tell": "CANNOT TELL",
}

_TONES: Final[Mapping[str, Tone]] = {
    "go": "good",
    "go_with_guard": "caution",
    "no_go": "bad",
    "cannot_tell": "plain",
}

_MEANING: Final[Mapping[str, str]] = {
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


MOST_OF_A_REGRET: Final = 0.95
"""Share of a regret that must not be left for tests to be worth a word."""


def counted_names(report: Mapping[str, Any]) -> set[str]:
    """Estimators that count in the verdict."""
    rule = JudgeRule(**report["verdict"]["thresholds"])
    return {PRIMARY[finding.family] for finding in count_families(report, rule)[0]}


def why_not_counted(report: Mapping[str, Any]) -> dict[str, str]:
    """Why an estimator does not count in the verdict; empty for one that does."""
    rule = JudgeRule(**report["verdict"]["thresholds"])
    problems = {PRIMARY[family]: text for family, text in count_families(report, rule)[1].items()}
    primary = set(PRIMARY.values())
    return {
        estimate["name"]: problems.get(estimate["name"])
        or estimate["why_not"]
        or ("" if estimate["name"] in primary else "shown beside its family's primary estimator")
        for estimate in report["estimates"]
    }


def estimate_table(report: Mapping[str, Any]) -> Table:
    """Every estimator's answer and its difference to the baseline; those that count are marked."""
    counted, paired = counted_names(report), part(report["baseline"], "paired")
    rows: list[list[Cell]] = [
        [
            estimate["name"],
            _number(estimate["point"]),
            format_ends(estimate["ci95"]),
            format_ends(part(paired, estimate["name"]).get("ci95"), signed=True),
            _number(estimate["n_eff"]),
            "yes" if estimate["name"] in counted else "",
        ]
        for estimate in report["estimates"]
    ]
    baseline = report["baseline"]
    value, ends = _number(baseline["value"]), format_ends(baseline["ci95"])
    rows.append([baseline["policy"], value, ends, "", "", ""])
    caption = f"{report['candidate']} on {report['data']['name']}: {report['estimand']['text']}"
    columns = (
        "estimator",
        "value",
        "95 % interval",
        f"less {baseline['policy']}",
        "n_eff",
        "counts",
    )
    return Table(caption, columns, rows)


def reason_table(report: Mapping[str, Any]) -> Table:
    """Estimators that do not count in the verdict, and why."""
    names: dict[str, list[str]] = {}
    for name, reason in why_not_counted(report).items():
        if reason:
            names.setdefault(reason, []).append(name)
    rows: list[list[Cell]] = [[", ".join(alike), reason] for reason, alike in names.items()]
    return Table("What does not count, and why", ("estimators", "reason"), rows)


def candidate_table(whole: Mapping[str, Any]) -> Table:
    """Several candidates: value, difference at the corrected level, chance of being the best, verdicts."""
    ranking = whole["ranking"]
    count = len(whole["candidates"])
    rows: list[list[Cell]] = []
    for index, report in enumerate(whole["reports"]):
        name = None if ranking is None else ranking["estimator"]
        paired = part(part(report["baseline"], "paired"), name or "")
        verdict = report["verdict"]
        rows.append(
            [
                report["candidate"] + (" (proposed)" if report["candidate"] == whole["proposed"] else ""),
                "" if ranking is None else _number(ranking["points"][index]),
                format_ends(paired.get("ci_corrected"), signed=True),
                "" if ranking is None else format_share(ranking["p_best"][index]),
                WORDS[verdict["verdict"]],
                WORDS[part(verdict, "corrected").get("verdict", verdict["verdict"])],
            ]
        )
    by = "" if ranking is None else f" by {ranking['estimator']}"
    doubt = "" if ranking is None or ranking["counts_for_all"] else ", which does not count for all"
    columns = (
        "candidate",
        f"value{by}",
        f"less {whole['baseline']}, all at once",
        "P(best)",
        "verdict alone",
        f"as one of {count}",
    )
    return Table(f"Candidates{by}{doubt}; intervals in common by Bonferroni", columns, rows)


def trial_table(whole: Mapping[str, Any]) -> Table:
    """What each candidate is thought to be worth, tests included, and how often to test it next."""
    plan = whole.get("test_plan")
    columns = ("candidate", "by the log", "tested", "now", "P(best)", "next episodes")
    if plan is None:
        return Table(f"What to test next: {whole.get('why_no_test_plan', 'not known')}", columns, [])
    rows: list[list[Cell]] = [
        [
            entry["candidate"],
            f"{format_number(entry['prior'])} +- {format_number(entry['prior_se'])}",
            entry["tested"],
            f"{format_number(entry['mean'])} +- {format_number(entry['se'])}",
            format_share(entry["p_best"]),
            entry["next"],
        ]
        for entry in plan["candidates"]
    ]
    caption = (
        f"What to test next, {format_count(plan['episodes'], 'episode')}: the expected loss of picking the "
        f"wrong one {_change(plan['regret_now'], plan['regret_then'])}"
    )
    return Table(caption, columns, rows)


def _change(now: float, then: float) -> str:
    if now == 0.0:
        return "is 0 already"
    verb = "falls from" if then < MOST_OF_A_REGRET * now else "hardly changes, from"
    return f"{verb} {format_number(now)} to {format_number(then)}"


def risk_table(report: Mapping[str, Any]) -> Table:
    """The event's probability and the worst tenth, by source."""
    risk = report["risk"]
    rows: list[list[Cell]] = [
        [
            source["source"],
            "not available" if source["p_violation"] is None else format_share(source["p_violation"]),
            format_ends(source["p_violation_ci95"], shares=True),
            _number(source["cvar10"]),
            format_ends(source["cvar10_ci95"]),
            _number(source["n_eff"]),
            source["why_not"] or "",
        ]
        for source in [*risk["sources"], risk["behaviour"]]
    ]
    limit = "" if risk["limit"] is None else f"; the limit is {format_share(risk['limit'])}"
    columns = ("source", "P(event)", "95 % interval", "worst tenth", "95 % interval ", "n_eff", "why not")
    return Table(f"Event: {risk['text']}{limit}", columns, rows)


def heat_table(report: Mapping[str, Any], *, most: int | None = None) -> Table:
    """Which episodes and steps to look at; at most `most` of each kind."""
    kinds = {"support": "actions outside of the log", "weight": "ratio mass"}
    rows: list[list[Cell]] = [
        [
            kinds[entry["kind"]],
            f"{entry['episode']}",
            f"{entry['first_step']} to {entry['last_step']} of {entry['length']}",
            format_share(entry["share"]),
        ]
        for kind in kinds
        for entry in [e for e in listed(report["diagnostics"], "heat") if e["kind"] == kind][:most]
    ]
    return Table("Ranges with the most of it", ("what", "episode", "steps", "share there"), rows)


def backtest_table(report: Mapping[str, Any]) -> Table:
    """What each estimator said of the behaviour, in standard errors off the logged mean."""
    rows: list[list[Cell]] = [
        [name, "not available" if z is None else f"{z:+.2f}"]
        for name, z in sorted(part(part(report, "backtest"), "z").items())
    ]
    return Table("Standard errors off the behaviour's known value", ("estimator", "z"), rows)


def missing_table(report: Mapping[str, Any]) -> Table:
    """Fields that are null, and why."""
    rows: list[list[Cell]] = [[path, reason] for path, reason in part(report, "why_not").items()]
    return Table("What is not known, and why", ("field", "reason"), rows)


def baseline_name(report: Mapping[str, Any]) -> str:
    """What the candidate is compared with, in words."""
    name = report["baseline"]["policy"]
    return "the logged behaviour" if name == BEHAVIOUR else name


def verdict_message(report: Mapping[str, Any]) -> Message:
    """The verdict in plain words; of several candidates the one that holds for all at once."""
    verdict = report["verdict"]
    final = part(verdict, "corrected") or verdict
    word = final["verdict"]
    meaning = _MEANING[word].format(name=report["candidate"], baseline=baseline_name(report))
    return Message(f"{WORDS[word]}: {meaning}", _TONES[word])


def verdict_reasons(report: Mapping[str, Any]) -> list[str]:
    """Why, one sentence each; those of the corrected verdict where there are several candidates."""
    verdict = report["verdict"]
    reasons: Sequence[str] = (part(verdict, "corrected") or verdict)["reasons"]
    return [f"{reason[:1].upper()}{reason[1:].removesuffix('.')}." for reason in reasons]


def agreement_sentence(report: Mapping[str, Any]) -> str:
    """Whether the families that count tell the same story."""
    agreement = report["agreement"]
    families: Sequence[str] = agreement["families_used"]
    if not families:
        return "No family of estimators counts."
    if len(families) == 1:
        return f"One family counts ({families[0]}), so nothing confirms it."
    z, paired = agreement["z"], agreement["paired_z"]
    text = f"The families {', '.join(families)} differ by {z:.1f} standard errors at most"
    text += "" if paired is None else f" ({paired:.1f} where what they share is cancelled)"
    if agreement["outlier"] is not None:
        text += f"; {agreement['outlier']} stands apart"
    reason = agreement["likely_reason"]
    return f"{text}. Likely reason: {reason}." if reason is not None else f"{text}."


def next_sentence(report: Mapping[str, Any]) -> str:
    """What to collect next and what it would buy."""
    proposal = report["next_data"]
    if proposal["episodes"] is None:
        return f"Nothing to collect: {proposal['why_not']}."
    then, shrink = format_number(proposal["half_width_then"]), proposal["shrink"]
    gain = "" if shrink is None else f", {format_share(shrink)} less than now"
    what = f"{format_count(proposal['episodes'], 'episode')} of the {proposal['policy']}"
    what, would = (what, "would") if proposal["is_enough"] else (f"Even {what}", "would not")
    text = f"{what} {would} {proposal['reason']}: the half width of the interval would be {then}{gain}."
    states = [f"episode {s['episode']} step {s['step']}" for s in proposal["states"]]
    if states:
        text += f" Start some from states like {', '.join(states)}, where it leaves the log."
    for other in proposal["alternatives"]:
        count = format_count(other["episodes"], "more episode")
        text += f" Or {count} of the {other['policy']} would {other['reason']}."
    return text


def next_table(report: Mapping[str, Any]) -> Table:
    """The proposals side by side."""
    proposal = report["next_data"]
    rows: list[list[Cell]] = []
    if proposal["episodes"] is not None:
        now, then = (format_number(proposal[f"half_width_{when}"]) for when in ("now", "then"))
        shrink = "" if proposal["shrink"] is None else format_share(proposal["shrink"])
        rows.append([proposal["policy"], proposal["episodes"], now, then, shrink])
    rows += [[other["policy"], other["episodes"], "", "", ""] for other in proposal["alternatives"]]
    columns = ("policy", "episodes", "half width now", "then", "shrink")
    return Table("Proposals", columns, rows)


def verdict_lines(report: Mapping[str, Any]) -> list[str]:
    """The verdict, its reasons, the risk and the proposal, for a terminal."""
    final = part(report["verdict"], "corrected") or report["verdict"]
    lines = [f"{report['candidate']}: {WORDS[final['verdict']]}"]
    lines += [f"  {reason}" for reason in final["reasons"]]
    return [*lines, f"  next: {next_sentence(report)}"]


def format_ends(ends: Sequence[float | None] | None, *, signed: bool = False, shares: bool = False) -> str:
    """`[low, high]`; empty without both ends."""
    if ends is None or None in ends:
        return ""
    low, high = (_end(end, signed=signed, shares=shares) for end in ends)
    return f"[{low}, {high}]"


def _end(value: float | None, *, signed: bool, shares: bool) -> str:
    if shares:
        return format_share(value)
    text = format_number(value)
    return f"+{text}" if signed and value is not None and value > 0 else text


def _number(value: float | None) -> Cell:
    return None if value is None else float(value)
