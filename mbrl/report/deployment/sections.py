"""The parts of a deployment page, one candidate each; they read the JSON alone."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mbrl.ope.judgement.report_fields import listed, part
from mbrl.report.deployment import plots
from mbrl.report.deployment.flags import flag_table
from mbrl.report.deployment.tables import (
    agreement_sentence,
    backtest_table,
    candidate_table,
    counted_names,
    estimate_table,
    format_ends,
    heat_table,
    missing_table,
    next_sentence,
    next_table,
    reason_table,
    risk_table,
    trial_table,
    verdict_message,
    verdict_reasons,
)
from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.message import Message
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_number, format_share
from mbrl.shift.support import NOMINAL_SHARE


def candidate_section(whole: Mapping[str, Any]) -> Section:
    """Candidates side by side: chances, regret, verdicts."""
    ranking, names = whole["ranking"], whole["candidates"]
    if ranking is None:
        text = f"There is no ranking: {whole['why_no_ranking']}."
        return Section("Candidates", text=text, tables=[candidate_table(whole)])
    messages: list[Message] = []
    if not ranking["counts_for_all"]:
        text = f"The order is that of {ranking['estimator']}, which does not count for every candidate."
        messages.append(Message(text, "caution"))
    regret = f"{format_number(ranking['regret'])} {format_ends(ranking['regret_ci95'])}"
    text = (
        "Joint draws (one resample of the episodes for all). Picking the largest estimate would lose "
        f"{regret} against the best of them."
    )
    picture = Picture(
        "p-best",
        "Which is the best?",
        plots.chances(names, ranking["p_best"]),
        alt="; ".join(f"{n} {format_share(p)}" for n, p in zip(names, ranking["p_best"], strict=True)),
        note="A chance near 1 / n for all of them says that the log cannot tell them apart.",
    )
    return Section(
        "Candidates",
        text=text,
        messages=messages,
        pictures=[picture],
        tables=[table for table in (candidate_table(whole), trial_table(whole)) if table.rows],
    )


def verdict_messages(report: Mapping[str, Any]) -> list[Message]:
    """The verdict, and its reasons."""
    return [verdict_message(report), Message(" ".join(["Why:", *verdict_reasons(report)]))]


def estimate_section(report: Mapping[str, Any], *, key: str, has_verdict: bool) -> Section:
    """Every estimate, what counts, whether the families agree.

    Args:
        report: of one candidate.
        key: prefix of the names of pictures.
        has_verdict: begin with the verdict, where it does not stand at the head of the page.
    """
    reasons = reason_table(report)
    return Section(
        "What the estimators say",
        text=agreement_sentence(report),
        messages=verdict_messages(report) if has_verdict else [],
        pictures=[_estimate_picture(report, key)] if any(map(_has_point, report["estimates"])) else [],
        tables=[estimate_table(report), *(table for table in (reasons, flag_table(report)) if table.rows)],
    )


def next_section(report: Mapping[str, Any]) -> Section:
    """What to collect or test next."""
    table = next_table(report)
    return Section("What to collect next", text=next_sentence(report), tables=[table] if table.rows else [])


def support_section(report: Mapping[str, Any], *, key: str) -> Section:
    """Where in the data the policy leaves the log, and where the weight lies."""
    diagnostics, title = report["diagnostics"], "Where the policy leaves the log"
    share, pictures = diagnostics["support_share"], list[Picture]()
    text = f"Not measured: {report['why_not'].get('diagnostics.support_share', 'unknown')}."
    if share is not None:
        text = (
            f"At {format_share(share)} of the logged states the policy takes an action that the log does not "
            f"know there; {format_share(NOMINAL_SHARE)} would be normal. What follows such an action in an "
            "episode is extrapolated."
        )
        pictures.append(_time_picture(report, key))
    if diagnostics["support_by_place"] is not None:
        pictures.append(_plane_picture(diagnostics["support_by_place"], key))
    heat = heat_table(report, most=3)
    return Section(title, text=text, pictures=pictures, tables=[heat] if heat.rows else [])


def ratio_section(report: Mapping[str, Any], *, key: str) -> Section:
    """How many episodes speak of the policy."""
    diagnostics, title = report["diagnostics"], "Ratios: how many episodes speak of it"
    ess = listed(diagnostics, "ess_t")
    if not ess:
        return Section(title, text=f"There are none. {report['why_not'].get('diagnostics.ess_t', 'unknown')}")
    needed = _thresholds(report)["least_ess"]
    last = format_number(ess[-1])
    picture = Picture(
        f"{key}-ess",
        "Effective episodes",
        plots.effective_episodes(ess, needed=needed),
        alt=f"Effective number of episodes against the step; it ends at {last} of the {needed:g} needed.",
        note="How many episodes carry the weight. It falls as the policies part.",
    )
    rows = [
        ("effective episodes at the end", format_number(ess[-1])),
        ("steps with enough of them", format_number(diagnostics["effective_horizon"])),
        ("largest share of one episode", format_share(diagnostics["max_weight_share"])),
        ("Pareto k of the weights", format_number(diagnostics["pareto_k"])),
        ("share of weights removed by clipping", format_share(diagnostics["clipped_mass"])),
    ]
    return Section(title, pictures=[picture], tables=[Table("The weights", ("", "value"), rows)])


def model_section(report: Mapping[str, Any], *, key: str) -> Section:
    """How far roll-outs stayed where the model knows."""
    diagnostics, title = report["diagnostics"], "Model: disagreement along roll-outs"
    share = diagnostics["model_disagreement_share"]
    if share is None:
        reason = report["why_not"].get("diagnostics.model_disagreement_share", "unknown")
        return Section(title, text=f"Not measured: {reason}.")
    curves = _rollout_curves(diagnostics)
    pictures = [
        Picture(
            f"{key}-rollouts",
            "Where roll-outs leave the data",
            plots.rollout_shares(curves),
            alt="; ".join(f"{n} ends at {format_share(c[-1])}" for n, c in curves.items()),
            note="Stopped: the members disagreed more than on the data. Clipped: beyond the data's range.",
        )
    ]
    messages = (
        [Message("The policy seems to exploit the model's errors.", "caution")]
        if diagnostics["exploitation_alarm"]
        else []
    )
    most = format_share(_thresholds(report)["most_model_disagreement"])
    text = (
        f"At {format_share(share)} of the imagined steps the members disagree more than on 99 % of the data; "
        f"below {most} the model counts."
    )
    return Section(title, text=text, messages=messages, pictures=pictures if curves else [])


def risk_section(report: Mapping[str, Any], *, key: str) -> Section:
    """How bad an episode may become."""
    risk = report["risk"]
    sources = [s for s in [*risk["sources"], risk["behaviour"]] if s["p_violation"] is not None]
    pictures: list[Picture] = []
    if sources:
        pictures = [
            Picture(
                f"{key}-event",
                "Probability of the event",
                plots.event_probabilities(sources, limit=risk["limit"], text=risk["text"]),
                alt="; ".join(f"{s['source']} {format_share(s['p_violation'])}" for s in sources),
                note="Never narrower than the number of effective episodes allows.",
            ),
            Picture(
                f"{key}-returns",
                "Distribution of the return",
                plots.return_distributions(sources, x_label="discounted return"),
                alt="; ".join(f"{s['source']}: worst tenth {format_number(s['cvar10'])}" for s in sources),
                note="Curves farther to the left are worse.",
            ),
        ]
    text = "" if risk["sources"] else "Nothing speaks of the candidate: it takes ratios or a model."
    return Section("Risk", text=text, pictures=pictures, tables=[risk_table(report)])


def backtest_section(report: Mapping[str, Any], *, key: str) -> Section:
    """What the estimators say of a value that is known."""
    title = "Back-test on the behaviour"
    z = {name: value for name, value in part(part(report, "backtest"), "z").items() if value is not None}
    if not z:
        return Section(title, text=f"Not made: {report['why_not'].get('backtest.z', 'unknown')}.")
    most = _thresholds(report)["most_backtest_z"]
    picture = Picture(
        f"{key}-backtest",
        "Estimates of the behaviour's value",
        plots.backtest(z, most=most),
        alt="; ".join(f"{name} {value:+.1f}" for name, value in z.items()),
        note="The log says what the behaviour is worth. An estimator that misses it does not count.",
        table=backtest_table(report),
    )
    return Section(title, pictures=[picture])


def data_section(report: Mapping[str, Any]) -> Section:
    """What the log holds, and what is not known."""
    data = report["data"]
    lengths = " / ".join(format_number(value) for value in data["length_quantiles"])
    rows = [
        ("episodes", format_number(data["episodes"])),
        ("steps", format_number(data["steps"])),
        ("terminated / cut by a time-out", f"{data['terminals']:,} / {data['time_outs']:,}"),
        ("length: least, quartiles, largest", lengths),
        ("density of the behaviour", data["behaviour"] or "not known"),
        ("held-out log-likelihood of its fit, negative", format_number(data["fit_nll"])),
        ("calibration error of its fit", format_number(data["calibration_error"])),
    ]
    missing = missing_table(report)
    tables = [Table(f"{data['name']}", ("", "value"), rows), *([missing] if missing.rows else [])]
    return Section("Data", text=f"Estimated: {report['estimand']['text']}.", tables=tables)


def _estimate_picture(report: Mapping[str, Any], key: str) -> Picture:
    counted = counted_names(report)
    rows = [
        plots.Row(e["name"], e["point"], e["ci95"][0], e["ci95"][1], e["name"] in counted)
        for e in report["estimates"]
        if _has_point(e)
    ]
    base = report["baseline"]
    band = None
    if base["value"] is not None:
        low, high = base["ci95"] or (base["value"], base["value"])
        band = (base["policy"], base["value"], low, high)
    figure = plots.estimates(
        rows, baseline=band, spread=report["data"]["return_std"], x_label="value, units of the estimand"
    )
    gone = [e["name"] for e in report["estimates"] if not _has_point(e)]
    note = "Grey: does not count, for the reason in the table. Arrows: beyond the axis."
    return Picture(
        f"{key}-estimates",
        "Estimates of its value",
        figure,
        alt="; ".join(f"{row.label} {format_number(row.point)}" for row in rows),
        note=note + (f" Without an answer: {', '.join(gone)}." if gone else ""),
    )


def _time_picture(report: Mapping[str, Any], key: str) -> Picture:
    found, most = report["diagnostics"]["support_by_time"], _thresholds(report)["most_support_share"]
    return Picture(
        f"{key}-support-time",
        "When it leaves the log",
        plots.support_over_time(found, nominal=NOMINAL_SHARE, most=most),
        alt=f"Share outside of the log by step, from {format_share(found['share'][0])} to "
        f"{format_share(found['share'][-1])}.",
        note="At the logged states of each step of the episode. Below: the ranges to look at.",
        table=heat_table(report),
    )


def _plane_picture(found: Mapping[str, Any], key: str) -> Picture:
    worst = max(range(len(found["share"])), key=lambda k: found["share"][k] * found["count"][k])
    place = f"{format_number(found['x'][worst])}, {format_number(found['y'][worst])}"
    return Picture(
        f"{key}-support-place",
        "In which states",
        plots.support_over_plane(found),
        alt=f"Most states that the policy leaves lie near {place} in the plane of the components.",
        note="States by their first two principal components. All red: the log knows no such action there.",
    )


def _rollout_curves(diagnostics: Mapping[str, Any]) -> dict[str, Sequence[float | None]]:
    curves: dict[str, Sequence[float | None]] = {}
    stopped, rollouts = listed(diagnostics, "stopped"), diagnostics.get("model_rollouts")
    if stopped and rollouts:
        running, total = list[float | None](), 0
        for count in stopped:
            total += count
            running.append(total / rollouts)
        curves["stopped so far"] = running
    if listed(diagnostics, "clip_rate"):
        curves["clipped"] = listed(diagnostics, "clip_rate")
    return curves


def _thresholds(report: Mapping[str, Any]) -> Mapping[str, Any]:
    return report["verdict"]["thresholds"]


def _has_point(estimate: Mapping[str, Any]) -> bool:
    return estimate["point"] is not None and math.isfinite(estimate["point"])
