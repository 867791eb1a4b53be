"""What a fit says about itself, as tables and in words."""

import math
from collections.abc import Sequence

from mbrl.dynamics.assessment.model_warnings import explain_first_step
from mbrl.dynamics.channel_report import SuccessorReport
from mbrl.dynamics.report import DynamicsReport, RankCorrelation
from mbrl.evaluation.statistics import Interval
from mbrl.report.kit.message import Message
from mbrl.report.kit.table import Cell, Table
from mbrl.report.kit.wording import MISSING, format_count, format_interval, format_number, format_share

INTERVAL_LEVEL = 0.9
"""Level of the intervals in a dynamics report."""

_SHOWN_LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Levels whose coverage a table shows."""

_SHOWN_EPISODES = 5
"""Held-out episodes that a table shows, the worst first."""

_SHOWN_STEPS = (1, 2, 3, 5, 10, 15, 20, 25, 50, 100, 200, 500, 1000)
"""Steps of an open-loop rollout that a short table shows, beside the trusted horizon and the last."""


def dynamics_tables(report: DynamicsReport, *, names: Sequence[str] | None = None) -> list[Table]:
    """All figures of a fit, short enough for a terminal.

    Args:
        report: of the fit.
        names: of the observation dimensions; None takes the report's.
    """
    return [
        fit_table(report),
        step_table(report, is_short=True),
        *forecast_tables(report, is_short=True),
        coverage_table(report),
        correlation_table(report),
        dimension_table(report, names),
        head_table(report),
        *episode_tables(report),
    ]


def trust_message(report: DynamicsReport) -> Message:
    """The trusted horizon in words."""
    open_loop, horizon = report.open_loop, report.trusted_horizon
    if horizon == 0:
        text = (
            "Trusted horizon 0: the model is trusted for no step. Do not roll out; use a model-free learner."
            + explain_first_step(report)
        )
        return Message(text, "bad")
    steps = format_count(horizon, "step")
    all_of_them = "all that were tried; " if horizon == len(open_loop.steps) else ""
    text = (
        f"The model is trusted for {steps} ({all_of_them}error up to {open_loop.tolerance:g} standard "
        f"deviations, better than persistence, at least {100 * open_loop.least_coverage:.0f} % of states "
        "inside the 90 % interval)."
    )
    return Message(text, "good")


def warning_messages(report: DynamicsReport) -> list[Message]:
    """The report's own warnings, except the one that `trust_message` already gives."""
    return [Message(text, "caution") for text in report.warnings if "trusted horizon" not in text.lower()]


def fit_table(report: DynamicsReport) -> Table:
    """Sizes of the fit and its errors one step ahead."""
    training, one_step = report.training, report.one_step
    rows: list[tuple[str, Cell]] = [
        ("trusted horizon, steps", report.trusted_horizon),
        ("rows fitted, held out", f"{training.train_rows:,}, {training.holdout_rows:,}"),
        ("episodes fitted, held out", f"{training.train_episodes:,}, {training.holdout_episodes:,}"),
        ("held out by", "blocks of time: few episodes" if training.is_split_by_block else "whole episodes"),
        ("members, kept", f"{len(training.member_best)}, {len(training.elites)}"),
        ("gradient steps", training.updates[-1] if training.updates else 0),
        ("held-out error had settled", training.settled_words),
        *_law(report),
        ("one-step error, share of the observation's deviation", one_step.nrmse),
        ("the same of ridge-linear", one_step.nrmse_linear),
        ("the same of persistence", one_step.nrmse_persistence),
        ("negative log-likelihood, nats, as fitted", _mean(report.calibration.nll_before)),
        ("the same, recalibrated", _mean(report.calibration.nll)),
        *_successors(report.calibration.successors),
    ]
    return Table(
        "Fit and one step ahead, held-out data", ("", "value"), [(name, _text(cell)) for name, cell in rows]
    )


def _successors(found: SuccessorReport | None) -> list[tuple[str, Cell]]:
    if found is None:
        return []
    return [
        ("states that steps enter", found.states),
        ("negative log-chance of the next one, nats", found.nll),
        ("the same by how often each is entered", found.marginal_nll),
        ("temperature of the logits", found.temperature),
    ]


def _law(report: DynamicsReport) -> list[tuple[str, Cell]]:
    error = report.open_loop.behaviour_error
    return [] if error is None else [("linear law of the actions leaves, share of their deviation", error)]


def judge_table(reports: Sequence[DynamicsReport]) -> Table:
    """The judges of a log side by side: how well they were fitted."""
    rows: list[list[Cell]] = []
    for number, report in enumerate(reports):
        training = report.training
        best = [training.member_best[elite] for elite in training.elites]
        rows.append(
            [
                number,
                f"{len(training.member_best)}, {len(training.elites)}",
                training.updates[-1] if training.updates else 0,
                _mean(best),
                training.settled_words,
                report.trusted_horizon,
            ]
        )
    columns = ("judge", "members, kept", "updates", "held-out error", "settled", "trusted steps")
    return Table("Judges, which never train a policy", columns, rows)


def step_table(report: DynamicsReport, *, is_short: bool = False) -> Table:
    """Error against the horizon; a few horizons only if it is to be short."""
    loop = report.open_loop
    wanted = _wanted_steps(report, is_short=is_short)
    rows = [
        (
            step,
            format_interval(_interval(loop.error[k], loop.low[k], loop.high[k], loop.segments[k])),
            loop.persistence[k],
            loop.linear[k],
            format_share(loop.coverage[k]),
            format_share(loop.ended_early[k]),
            loop.segments[k],
        )
        for k, step in enumerate(loop.steps)
        if step in wanted
    ]
    columns = ("step", "ensemble", "persistence", "linear", "covered", "ended early", "segments")
    return Table("Median open-loop error, standard deviations, with 90 % interval", columns, rows)


def forecast_tables(report: DynamicsReport, *, is_short: bool = False) -> list[Table]:
    """Errors and intervals of what `rollout` returns, against the horizon; none in reports without them."""
    loop = report.open_loop
    if not loop.forecast_nrmse:
        return []
    wanted = _wanted_steps(report, is_short=is_short)
    rows = [
        (
            step,
            loop.forecast_nrmse[k],
            loop.nrmse[k],
            loop.nrmse_linear[k],
            loop.nrmse_persistence[k],
            loop.closed_nrmse[k] if loop.closed_nrmse else MISSING,
            format_share(loop.forecast_coverage[k]),
            format_share(loop.coverage[k]),
        )
        for k, step in enumerate(loop.steps)
        if step in wanted
    ]
    columns = (
        "step",
        "forecast",
        "particles",
        "linear",
        "persistence",
        "in closed loop",
        "forecast covers",
        "particles cover",
    )
    title = "Forecasts: root mean square error, standard deviations, and coverage of 90 % intervals"
    return [Table(title, columns, rows)]


def _wanted_steps(report: DynamicsReport, *, is_short: bool) -> set[int]:
    loop = report.open_loop
    if is_short and loop.steps:
        return {*_SHOWN_STEPS, loop.trusted_horizon, loop.steps[-1]}
    return set(loop.steps)


def coverage_table(report: DynamicsReport, levels: Sequence[float] = _SHOWN_LEVELS) -> Table:
    """Observed coverage of central intervals."""
    calibration = report.calibration
    found = [
        k for k, level in enumerate(calibration.levels) if any(abs(level - shown) < 1e-9 for shown in levels)
    ]
    rows = [
        (
            format_share(calibration.levels[k]),
            format_share(calibration.coverage_before[k]),
            format_share(calibration.coverage_after[k]),
        )
        for k in found
    ]
    caption = f"Coverage, judged on {calibration.rows:,} rows that recalibration did not see"
    return Table(caption, ("interval", "as fitted", "recalibrated"), rows)


def correlation_table(report: DynamicsReport) -> Table:
    """Which uncertainty measure ranks the true errors."""
    rows = [
        (
            name,
            format_interval(near(c, report.one_step.rows)),
            format_interval(far(c, report.one_step.rows // 10)),
        )
        for name, c in report.correlations.items()
    ]
    caption = "Rank correlation of uncertainty with the one-step error, with 90 % interval"
    return Table(caption, ("measure", "all held-out rows", "farthest tenth"), rows)


def dimension_table(report: DynamicsReport, names: Sequence[str] | None = None) -> Table:
    """Errors and calibration of each observation dimension."""
    one_step, calibration = report.one_step, report.calibration
    rows = [
        (
            name,
            one_step.rmse[d],
            one_step.rmse_normalised[d],
            one_step.linear_normalised[d],
            one_step.persistence_normalised[d],
            calibration.ece[d],
            calibration.temperature[d],
        )
        for d, name in enumerate(dimension_names(report, names))
    ]
    columns = ("dimension", "RMSE, raw", "RMSE", "linear", "persistence", "coverage error", "temperature")
    return Table("One step ahead by dimension; RMSE in deviations of the change", columns, rows)


def head_table(report: DynamicsReport) -> Table:
    """The learned reward and the termination head."""
    reward, head = report.reward, report.termination
    rewarded: list[tuple[str, Cell]] = (
        [("reward", "none in the log, so none was learned")]
        if reward is None
        else [
            ("reward RMSE, reward units", reward.rmse),
            ("reward RMSE, deviations of the reward", reward.rmse_normalised),
            ("rows with reward exactly 0", format_share(reward.share_zero)),
        ]
    )
    rows: list[tuple[str, Cell]] = [
        *rewarded,
        (
            "termination head",
            "learned" if head.is_learned else "off: no logged step terminates, or a known rule",
        ),
        (
            "terminated rows: trained on, held out",
            f"{head.train_terminated:,}, {head.terminated:,} of {head.rows:,}",
        ),
        ("terminations per step: logged, predicted", f"{head.logged_rate:.3g}, {head.predicted_rate:.3g}"),
        (
            "precision at 1/2",
            MISSING + ": never fires" if head.precision is None else format_share(head.precision),
        ),
        ("recall at 1/2", MISSING + ": none held out" if head.recall is None else format_share(head.recall)),
        (
            "Brier score, and that of a constant",
            f"{format_number(head.brier)}, {format_number(head.brier_constant)}",
        ),
    ]
    return Table(
        "Reward and termination, held-out data", ("", "value"), [(name, _text(cell)) for name, cell in rows]
    )


def episode_tables(report: DynamicsReport) -> list[Table]:
    """The held-out episodes that the model misses most; none where no episode was judged by itself."""
    gaps = report.gaps
    if len(gaps.episodes) < 2:
        return []
    rows = [
        (
            one.episode if not one.first_step else f"{one.episode}, from step {one.first_step:,}",
            one.rows,
            one.error,
            format_share(one.coverage),
            gaps.channels[one.worst],
        )
        for one in gaps.episodes[:_SHOWN_EPISODES]
    ]
    caption = "Held-out episodes with the largest errors one step ahead; RMSE in deviations of the change"
    return [Table(caption, ("episode", "steps", "RMSE", "90 % covers", "worst in"), rows)]


def next_messages(report: DynamicsReport) -> list[Message]:
    """What further data should show."""
    return [Message(text, "plain") for text in report.gaps.next_to_log()]


def dimension_names(report: DynamicsReport, names: Sequence[str] | None) -> list[str]:
    """Names of the observation dimensions: as given, else as the report has them, else their numbers."""
    size = len(report.one_step.rmse)
    known = report.channels.names if names is None else names
    return list(known) if len(known) == size else [str(d) for d in range(size)]


def near(correlation: RankCorrelation, rows: int) -> Interval:
    """The correlation over all held-out rows."""
    return _interval(correlation.value, correlation.low, correlation.high, rows)


def far(correlation: RankCorrelation, rows: int) -> Interval:
    """The correlation over the rows farthest from the training data."""
    return _interval(correlation.far_value, correlation.far_low, correlation.far_high, rows)


def _interval(value: float, low: float, high: float, n: int) -> Interval:
    if not low < high:  # resamples of a single episode are all the same: that is no certainty
        low = high = math.nan
    return Interval(value, low, high, INTERVAL_LEVEL, "none: too few episodes", n)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else format_number(None if cell is None else float(cell))
