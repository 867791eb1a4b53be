"""The parts of a page that show a dynamics ensemble."""

from collections.abc import Sequence

from mbrl.dynamics.gap_report import DoubtMap, GapReport
from mbrl.dynamics.report import DynamicsReport
from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_count, format_number, format_share
from mbrl.report.run import dynamics_plots as plots
from mbrl.report.run.dynamics_tables import (
    INTERVAL_LEVEL,
    correlation_table,
    coverage_table,
    dimension_names,
    dimension_table,
    episode_tables,
    far,
    fit_table,
    forecast_tables,
    head_table,
    near,
    next_messages,
    step_table,
)


def dynamics_sections(report: DynamicsReport, *, names: Sequence[str] | None = None) -> list[Section]:
    """How far the model can be trusted, whether its intervals hold, and how it was fitted.

    Args:
        report: of the fit.
        names: of the observation dimensions; None takes the report's.
    """
    return [
        Section(
            "How far ahead",
            text="Logged actions are replayed from held-out states; the model never looks at the log again.",
            pictures=[horizon_picture(report), coverage_picture(report)],
            tables=forecast_tables(report),
        ),
        Section(
            "One step ahead",
            pictures=[
                reliability_picture(report),
                _pit(report),
                _dimensions(report, names),
                _correlations(report),
            ],
            tables=[head_table(report)],
        ),
        *_gap_sections(report),
        Section("Fit", pictures=[_training(report)], tables=[fit_table(report)]),
    ]


def _gap_sections(report: DynamicsReport) -> list[Section]:
    gaps = report.gaps
    if not gaps.episodes:
        return []
    return [
        Section(
            "What the model does not know",
            text="What stands out on this log; further data there would teach the model most."
            if gaps.next_to_log()
            else "No range of a channel stands out: the model is about as sure everywhere on this log.",
            messages=next_messages(report),
            pictures=[] if gaps.map is None else [_map_picture(gaps, gaps.map)],
            tables=episode_tables(report),
        )
    ]


def _map_picture(gaps: GapReport, doubt: DoubtMap) -> Picture:
    names = [gaps.channels[channel] for channel in doubt.channels]
    worst = max(range(len(doubt.doubt)), key=lambda k: doubt.doubt[k])
    return Picture(
        "uncertainty-map",
        "Where the model is unsure",
        plots.doubt_over_plane(doubt, names),
        alt=f"Uncertainty over {names[0]} and {names[1]}; the largest, {doubt.doubt[worst]:.2g} times the "
        f"median, is near {names[0]} {format_number(doubt.x[worst])}, {names[1]} "
        f"{format_number(doubt.y[worst])}, with {doubt.count[worst]:,} rows.",
        note="The two channels along which uncertainty varies most. Grey: how many rows were logged there. "
        f"Red: how unsure the model is ({gaps.measure}), as an area against the most unsure cell. Much red "
        "on little grey asks for data.",
    )


def horizon_picture(report: DynamicsReport) -> Picture:
    """Error against the horizon, with the trusted horizon marked."""
    loop = report.open_loop
    ceiling = plots.error_ceiling(loop.error, loop.persistence, loop.linear, loop.tolerance)
    beyond = [
        name
        for name, values in (("ensemble", loop.error), ("ridge-linear", loop.linear))
        if max(values) > ceiling
    ]
    has_band = any(low < high for low, high in zip(loop.low, loop.high, strict=True))
    note = "The band is the 90 % interval over episodes."
    if not has_band:
        note = "There is no interval: too few held-out episodes."
    if beyond:
        note += f" Beyond the upper edge at some step: {', '.join(beyond)}; see the numbers."
    return Picture(
        "horizon-error",
        "Error against the horizon",
        plots.k_step_error(
            loop.steps,
            loop.error,
            low=loop.low if has_band else None,
            high=loop.high if has_band else None,
            persistence=loop.persistence,
            linear=loop.linear,
            tolerance=loop.tolerance,
            trusted_horizon=loop.trusted_horizon,
        ),
        alt=f"Open-loop error by horizon: {format_number(loop.error[0])} standard deviations at step "
        f"{loop.steps[0]}, {format_number(loop.error[-1])} at step {loop.steps[-1]}, where persistence has "
        f"{format_number(loop.persistence[-1])}. Trusted horizon {loop.trusted_horizon}.",
        note=note,
        table=step_table(report),
    )


def coverage_picture(report: DynamicsReport) -> Picture:
    """Coverage of the particles' interval along the horizon."""
    loop = report.open_loop
    return Picture(
        "horizon-coverage",
        "Coverage along the horizon",
        plots.coverage_by_step(
            loop.steps,
            loop.coverage,
            forecast=loop.forecast_coverage or None,
            level=INTERVAL_LEVEL,
            least=loop.least_coverage,
            trusted_horizon=loop.trusted_horizon,
        ),
        alt=f"Coverage of the 90 % interval: {format_share(loop.coverage[0])} at step {loop.steps[0]}, "
        f"{format_share(loop.coverage[-1])} at step {loop.steps[-1]}.",
        note="Below nominal the model is surer than it may be; above, it is too careful. Policies are "
        "trained on particles; a model that is asked for several steps answers with forecasts: particles, "
        "corrected by held-out episodes.",
    )


def reliability_picture(report: DynamicsReport) -> Picture:
    """Coverage of one-step intervals before and after recalibration."""
    calibration = report.calibration
    return Picture(
        "reliability",
        "Calibration",
        plots.reliability(calibration.levels, calibration.coverage_before, calibration.coverage_after),
        alt="Observed against nominal coverage; the 90 % interval covers "
        f"{format_share(calibration.coverage(INTERVAL_LEVEL))} after recalibration.",
        note=f"Mean over dimensions, on {calibration.rows:,} rows of "
        f"{format_count(calibration.episodes, 'episode')} that "
        f"recalibration did not see. {_flagged(report)}",
        table=coverage_table(report, calibration.levels),
    )


def _flagged(report: DynamicsReport) -> str:
    flagged = report.calibration.flagged
    if not flagged:
        return "No dimension is off by more than 0.05."
    return f"Off by more than 0.05 on average: {len(flagged)} of {len(report.calibration.ece)} targets."


def _pit(report: DynamicsReport) -> Picture:
    calibration = report.calibration
    return Picture(
        "pit",
        "Probability of what came",
        plots.pit_histogram(calibration.pit_before, calibration.pit_after),
        alt="Histogram of the probability integral transform; the largest distance from uniform of any "
        f"dimension is {format_number(max(calibration.ks))}.",
        note="Flat is right. A hump: too careful. Raised ends: too sure. A slope: biased.",
    )


def _dimensions(report: DynamicsReport, names: Sequence[str] | None) -> Picture:
    one_step, labels = report.one_step, dimension_names(report, names)
    worst = max(range(len(labels)), key=lambda d: one_step.rmse_normalised[d])
    return Picture(
        "dimension-errors",
        "Error by dimension",
        plots.errors_by_dimension(
            labels, one_step.rmse_normalised, one_step.persistence_normalised, one_step.linear_normalised
        ),
        alt="One-step error of each dimension; the largest is "
        f"{format_number(one_step.rmse_normalised[worst])} standard deviations of the change, "
        f"in {labels[worst]}.",
        table=dimension_table(report, names),
    )


def _correlations(report: DynamicsReport) -> Picture:
    names, rows = list(report.correlations), report.one_step.rows
    best = max(names, key=lambda name: report.correlations[name].value, default="none")
    return Picture(
        "rank-correlation",
        "Does uncertainty tell the error?",
        plots.rank_correlation(
            names,
            [near(report.correlations[name], rows) for name in names],
            [far(report.correlations[name], rows // 10) for name in names],
        ),
        alt=f"Rank correlation of {len(names)} uncertainty measures with the error; the best is {best}.",
        note=f"Best over all held-out rows: {best}. Bars are 90 % intervals over episodes.",
        table=correlation_table(report),
    )


def _training(report: DynamicsReport) -> Picture:
    training = report.training
    rows = [(member, best, member in training.elites) for member, best in enumerate(training.member_best)]
    return Picture(
        "training-curves",
        "Holdout error in training",
        plots.training_curves(training.updates, training.member_errors, training.elites),
        alt=f"Holdout error of {len(rows)} members; the best reaches "
        f"{format_number(min(training.member_best))}.",
        note="Mean squared error of the mean, in variances of the targets; each member keeps its best epoch.",
        table=Table("Members", ("member", "least holdout error", "kept"), rows),
    )
