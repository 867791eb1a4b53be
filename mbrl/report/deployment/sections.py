"""The parts of a deployment page, one candidate each."""

from collections.abc import Mapping, Sequence

from mbrl.off_policy.judgement.report.documents import DeploymentReport, OPEReport
from mbrl.off_policy.judgement.report.measured import (
    Diagnostics,
    ReportedEstimate,
    SupportByPlace,
    SupportByTime,
)
from mbrl.off_policy.judgement.report.records import known_ends
from mbrl.report.deployment import plots
from mbrl.report.deployment.flags import flag_table
from mbrl.report.deployment.sentences import agreement_sentence, next_sentence, verdict_messages
from mbrl.report.deployment.tables import (
    backtest_table,
    candidate_table,
    counted_names,
    estimate_table,
    format_ends,
    missing_table,
    next_table,
    reason_table,
    risk_table,
    segment_table,
    trial_table,
)
from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.message import Message
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_number, format_share
from mbrl.shift.support import NOMINAL_SHARE


def candidate_section(whole: DeploymentReport) -> Section:
    """Candidates side by side: chances, regret, verdicts."""
    ranking, names = whole.ranking, whole.candidates
    if ranking is None:
        text = f"There is no ranking: {whole.why_no_ranking}."
        return Section("Candidates", text=text, tables=[candidate_table(whole)])
    messages: list[Message] = []
    if not ranking.counts_for_all:
        text = f"The order is that of {ranking.estimator}, which does not count for every candidate."
        messages.append(Message(text, "caution"))
    regret = f"{format_number(ranking.regret)} {format_ends(ranking.regret_ci95)}"
    text = (
        "Joint draws (one resample of the episodes for all). Picking the largest estimate would lose "
        f"{regret} against the best of them."
    )
    picture = Picture(
        "p-best",
        "Which is the best?",
        plots.chances(names, ranking.p_best),
        alt="; ".join(f"{n} {format_share(p)}" for n, p in zip(names, ranking.p_best, strict=True)),
        note="A chance near 1 / n for all of them says that the log cannot tell them apart.",
    )
    return Section(
        "Candidates",
        text=text,
        messages=messages,
        pictures=[picture],
        tables=[table for table in (candidate_table(whole), trial_table(whole)) if table.rows],
    )


def estimate_section(report: OPEReport, *, key: str, has_verdict: bool) -> Section:
    """Every estimate, what counts, whether the families agree.

    Args:
        report: of one candidate.
        key: prefix of the names of pictures.
        has_verdict: begin with the verdict, where it does not stand at the head of the page.
    """
    reasons, answered = reason_table(report), [e for e in report.estimates if e.point is not None]
    return Section(
        "What the estimators say",
        text=agreement_sentence(report),
        messages=verdict_messages(report) if has_verdict else [],
        pictures=[_estimate_picture(report, answered, key)] if answered else [],
        tables=[estimate_table(report), *(table for table in (reasons, flag_table(report)) if table.rows)],
    )


def next_section(report: OPEReport) -> Section:
    """What to collect or test next."""
    table = next_table(report)
    return Section("What to collect next", text=next_sentence(report), tables=[table] if table.rows else [])


def support_section(report: OPEReport, *, key: str) -> Section:
    """Where in the data the policy leaves the log, and where the weight lies."""
    diagnostics, pictures = report.diagnostics, list[Picture]()
    share = diagnostics.support_share
    text = f"Not measured: {_why_not(report, 'diagnostics.support_share')}."
    if share is not None:
        text = (
            f"At {format_share(share)} of the logged states the policy takes an action that the log does not "
            f"know there; {format_share(NOMINAL_SHARE)} would be normal. What follows such an action in an "
            "episode is extrapolated."
        )
    if diagnostics.support_by_time is not None:
        pictures.append(_time_picture(report, diagnostics.support_by_time, key))
    if diagnostics.support_by_place is not None:
        pictures.append(_plane_picture(diagnostics.support_by_place, key))
    segments = segment_table(report, most=3)
    return Section(
        "Where the policy leaves the log",
        text=text,
        pictures=pictures,
        tables=[segments] if segments.rows else [],
    )


def ratio_section(report: OPEReport, *, key: str) -> Section:
    """How many episodes speak of the policy."""
    diagnostics, title = report.diagnostics, "Ratios: how many episodes speak of it"
    ess = diagnostics.ess_t
    if not ess:
        return Section(title, text=f"There are none. {_why_not(report, 'diagnostics.ess_t')}")
    needed = report.verdict.thresholds.least_ess
    last = format_number(ess[-1])
    picture = Picture(
        f"{key}-ess",
        "Effective episodes",
        plots.effective_episodes(ess, needed=needed),
        alt=f"Effective number of episodes against the step; it ends at {last} of the {needed:g} needed.",
        note="How many episodes carry the weight. It falls as the policies part.",
    )
    rows = [
        ("effective episodes at the end", last),
        ("steps with enough of them", format_number(diagnostics.effective_horizon)),
        ("largest share of one episode", format_share(diagnostics.max_weight_share)),
        ("Pareto k of the weights", format_number(diagnostics.pareto_k)),
        ("share of weights removed by clipping", format_share(diagnostics.clipped_mass)),
    ]
    return Section(title, pictures=[picture], tables=[Table("The weights", ("", "value"), rows)])


def model_section(report: OPEReport, *, key: str) -> Section:
    """How far roll-outs stayed where the model knows."""
    diagnostics, title = report.diagnostics, "Model: disagreement along roll-outs"
    share = diagnostics.model_disagreement_share
    if share is None:
        reason = _why_not(report, "diagnostics.model_disagreement_share")
        return Section(title, text=f"Not measured: {reason}.")
    curves = _rollout_curves(diagnostics)
    picture = Picture(
        f"{key}-rollouts",
        "Where roll-outs leave the data",
        plots.rollout_shares(curves),
        alt="; ".join(f"{n} ends at {format_share(c[-1])}" for n, c in curves.items()),
        note="Stopped: the members disagreed more than on the data. Clipped: beyond the data's range.",
    )
    warning = Message("The policy seems to exploit the model's errors.", "caution")
    most = format_share(report.verdict.thresholds.most_model_disagreement)
    text = (
        f"At {format_share(share)} of the imagined steps the members disagree more than on 99 % of the data; "
        f"below {most} the model counts."
    )
    return Section(
        title,
        text=text,
        messages=[warning] if diagnostics.exploitation_alarm else [],
        pictures=[picture] if curves else [],
    )


def risk_section(report: OPEReport, *, key: str) -> Section:
    """How bad an episode may become."""
    risk = report.risk
    sources = [s for s in [*risk.sources, risk.behaviour] if s.p_violation is not None]
    pictures: list[Picture] = []
    if sources:
        axis = "return" if report.estimand.discount == 1.0 else "discounted return"
        pictures = [
            Picture(
                f"{key}-event",
                "Probability of the event",
                plots.event_probabilities(sources, limit=risk.limit, text=risk.text),
                alt="; ".join(f"{s.source} {format_share(s.p_violation)}" for s in sources),
                note="Never narrower than the number of effective episodes allows.",
            ),
            Picture(
                f"{key}-returns",
                "Distribution of the return",
                plots.return_distributions(sources, x_label=axis),
                alt="; ".join(f"{s.source}: worst tenth {format_number(s.cvar10)}" for s in sources),
                note="Curves farther to the left are worse.",
            ),
        ]
    text = "" if risk.sources else "Nothing speaks of the candidate: it takes ratios or a model."
    return Section("Risk", text=text, pictures=pictures, tables=[risk_table(report)])


def backtest_section(report: OPEReport, *, key: str) -> Section:
    """What the estimators say of a value that is known."""
    title, backtest = "Back-test on the behaviour", report.backtest
    if backtest is None:
        return Section(title, text=f"Not made: {_why_not(report, 'backtest')}.")
    z = {name: value for name, value in backtest.z.items() if value is not None}
    if not z:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in backtest.why_no_z.items())
        return Section(title, text=f"Not made: {(backtest.why_not or reasons or 'unknown').rstrip('.')}.")
    picture = Picture(
        f"{key}-backtest",
        "Estimates of the behaviour's value",
        plots.backtest(z, most=report.verdict.thresholds.most_backtest_z),
        alt="; ".join(f"{name} {value:+.1f}" for name, value in z.items()),
        note="The log says what the behaviour is worth. An estimator that misses it does not count.",
        table=backtest_table(report),
    )
    return Section(title, pictures=[picture])


def data_section(report: OPEReport) -> Section:
    """What the log holds, and what is not known."""
    data = report.data
    lengths = " / ".join(format_number(value) for value in data.length_quantiles)
    rows = [
        ("episodes", format_number(data.episodes)),
        ("steps", format_number(data.steps)),
        ("terminated / cut, by the time limit or else", f"{data.terminals:,} / {data.time_outs:,}"),
        ("of them cut before the horizon", format_number(data.censored)),
        ("length: least, quartiles, largest", lengths),
        ("density of the behaviour", data.behaviour or "not known"),
        ("held-out log-likelihood of its fit, negative", format_number(data.fit_nll)),
        ("calibration error of its fit", format_number(data.calibration_error)),
    ]
    missing = missing_table(report)
    tables = [Table(data.name, ("", "value"), rows), *([missing] if missing.rows else [])]
    return Section("Data", text=f"Estimated: {report.estimand.describe()}.", tables=tables)


def _estimate_picture(report: OPEReport, answered: Sequence[ReportedEstimate], key: str) -> Picture:
    counted, base = counted_names(report), report.baseline
    rows = [plots.Row(e.name, e.point, *e.ci95, e.name in counted) for e in answered if e.point is not None]
    band = None
    if base.value is not None:
        low, high = known_ends(base.ci95) or (base.value, base.value)
        band = (base.policy, base.value, low, high)
    figure = plots.estimates(
        rows, baseline=band, spread=report.data.return_std, x_label="value, units of the estimand"
    )
    silent = [e.name for e in report.estimates if e.point is None]
    note = "Grey: does not count, for the reason in the table. Arrows: beyond the axis."
    return Picture(
        f"{key}-estimates",
        "Estimates of its value",
        figure,
        alt="; ".join(f"{row.label} {format_number(row.point)}" for row in rows),
        note=note + (f" Without an answer: {', '.join(silent)}." if silent else ""),
    )


def _time_picture(report: OPEReport, support: SupportByTime, key: str) -> Picture:
    return Picture(
        f"{key}-support-time",
        "When it leaves the log",
        plots.support_over_time(
            support, nominal=NOMINAL_SHARE, most=report.verdict.thresholds.most_support_share
        ),
        alt=f"Share outside of the log by step, from {format_share(support.share[0])} to "
        f"{format_share(support.share[-1])}.",
        note="At the logged states of each step of the episode. Below: the segments to look at.",
        table=segment_table(report),
    )


def _plane_picture(support: SupportByPlace, key: str) -> Picture:
    worst = max(range(len(support.share)), key=lambda k: support.share[k] * support.count[k])
    place = f"{format_number(support.x[worst])}, {format_number(support.y[worst])}"
    return Picture(
        f"{key}-support-place",
        "In which states",
        plots.support_over_plane(support),
        alt=f"Most states that the policy leaves lie near {place} in the plane of the components.",
        note="States by their first two principal components. All red: the log knows no such action there.",
    )


def _rollout_curves(diagnostics: Diagnostics) -> Mapping[str, Sequence[float | None]]:
    curves: dict[str, Sequence[float | None]] = {}
    rollouts = diagnostics.model_rollouts
    if diagnostics.stopped and rollouts:
        running, total = list[float | None](), 0
        for count in diagnostics.stopped:
            total += count
            running.append(total / rollouts)
        curves["stopped so far"] = running
    if diagnostics.clip_rate:
        curves["clipped"] = diagnostics.clip_rate
    return curves


def _why_not(report: OPEReport, path: str) -> str:
    return report.why_not.get(path, "unknown")
