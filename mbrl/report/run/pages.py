"""The pages: one self-contained HTML text each.

Importing this module imports matplotlib; do so where a page is made.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mbrl.data.inspection.record import Record
from mbrl.data.inspection.report import Inspection
from mbrl.dynamics.report import DynamicsReport
from mbrl.evaluation.evaluator import Evaluation
from mbrl.report.kit.html import Section, render_page
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_count, format_interval, format_number, format_share
from mbrl.report.plan.sections import plan_sections
from mbrl.report.run.comparison import Comparison, conclude
from mbrl.report.run.data_sections import data_sections
from mbrl.report.run.data_tables import verdict
from mbrl.report.run.dynamics_sections import dynamics_sections
from mbrl.report.run.dynamics_tables import trust_message, warning_messages
from mbrl.report.run.evaluation_tables import evaluation_table
from mbrl.report.run.score_sections import score_section
from mbrl.report.run.shift_sections import shift_section
from mbrl.report.run.training_sections import Records, training_section


@dataclasses.dataclass(frozen=True, slots=True)
class DemoResults:
    """Everything that the demo's page shows.

    Attributes:
        data: what the doctor found.
        dynamics: report of the fit.
        comparison: the methods, the one of interest first.
        runs: rows of `metrics.jsonl` by the name of the run.
        seconds: wall time by stage, in order.
        value_bounds: least and largest value that the rewards permit, or None.
        shift: JSON of the last `ShiftReport` by the name of the run, or None.
    """

    data: Inspection
    dynamics: DynamicsReport
    comparison: Comparison
    runs: Mapping[str, Records]
    seconds: Mapping[str, float]
    value_bounds: tuple[float, float] | None = None
    shift: Mapping[str, Mapping[str, Any] | None] = dataclasses.field(
        default_factory=dict[str, Mapping[str, Any] | None]
    )


def doctor_page(
    report: Inspection, record: Record | None = None, *, provenance: Mapping[str, str] | None = None
) -> str:
    """What is in a log, and whether training may start.

    Args:
        report: of the doctor.
        record: channels against time, for the viewer of episodes; None leaves it out.
        provenance: versions and the command that makes this page again.
    """
    stats = report.stats
    facts: list[tuple[str, str]] = []
    hashes: dict[str, str] = {}
    if report.raw is not None:
        facts = [
            ("files", format_number(report.raw.files)),
            ("rows", format_number(report.raw.rows)),
            ("seconds", format_number(report.raw.seconds)),
            ("columns", format_number(len(report.raw.channels))),
        ]
    if stats is not None:
        facts = [
            ("episodes", format_number(stats.num_episodes)),
            ("transitions", format_number(stats.num_transitions)),
            (
                "mean episode return",
                "no rewards" if stats.returns is None else format_number(stats.returns.mean),
            ),
            ("observation, action", f"{len(stats.observations)}, {len(stats.actions)}"),
        ]
        hashes = {"dataset hash": stats.content_hash}
    is_raw = report.raw is not None
    return render_page(
        f"{'Raw log' if is_raw else 'Dataset'} {report.name}",
        data_sections(report, record),
        subtitle="What is in the files, and what an import has to see to."
        if is_raw
        else "What is in the log, and whether a model may be trained on it.",
        facts=facts,
        messages=[verdict(report)],
        provenance={**hashes, **(provenance or {})},
    )


def dynamics_page(
    name: str,
    report: DynamicsReport,
    *,
    obs_names: Sequence[str] | None = None,
    more: Sequence[Section] = (),
    provenance: Mapping[str, str] | None = None,
) -> str:
    """How a model was fitted and how far it can be trusted.

    Args:
        name: of the dataset that it was fitted on.
        report: of the fit.
        obs_names: of the observation dimensions; None takes what the report names.
        more: parts that stand first.
        provenance: hashes, versions and the command that makes this page again.
    """
    return render_page(
        f"Dynamics of {name}",
        [*more, *dynamics_sections(report, names=obs_names or report.channels.names)],
        subtitle="An ensemble judged on held-out episodes.",
        facts=dynamics_facts(report),
        messages=[trust_message(report), *warning_messages(report)],
        provenance=provenance,
    )


def dynamics_facts(report: DynamicsReport) -> list[tuple[str, str]]:
    """The few figures of a fit that matter most."""
    loop, calibration = report.open_loop, report.calibration
    facts = [
        ("trusted horizon", format_count(report.trusted_horizon, "step")),
        ("90 % intervals cover", format_share(calibration.coverage(0.9))),
        ("one-step error", format_number(report.one_step.nrmse)),
    ]
    if loop.steps:
        facts.append((f"error at step {loop.steps[-1]}", format_number(loop.error[-1])))
    return facts


def plan_page(summary: Mapping[str, Any], *, provenance: Mapping[str, str] | None = None) -> str:
    """What a planner gained over the policy that it plans on, and what it cost.

    Args:
        summary: of a `plan` stage.
        provenance: versions and the command that makes this page again.
    """
    plans = summary["plans"]
    facts = [
        ("mean return", format_number(summary["return_interval"]["estimate"])),
        ("policy alone", format_number(summary["policy_interval"]["estimate"])),
        ("milliseconds, median", format_number(plans["milliseconds"]["p50"])),
    ]
    return render_page(
        f"{summary['planner']} on {summary['algorithm']}, task {summary['task']}",
        plan_sections(summary),
        subtitle="Planning in the learned model at every step, beside the policy alone.",
        facts=facts,
        provenance=provenance,
    )


def demo_page(results: DemoResults, *, provenance: Mapping[str, str] | None = None) -> str:
    """From logged episodes to compared policies on one page, the conclusion first.

    Args:
        results: of all stages.
        provenance: hashes, versions and the command that makes this page again.
    """
    dynamics, comparison = results.dynamics, results.comparison
    conclusions = conclude(comparison, trusted_horizon=dynamics.trusted_horizon)
    warnings = [message for message in [verdict(results.data)] if message.tone != "good"]
    total = sum(results.seconds.values())
    stages: list[tuple[str, float]] = [(stage, round(value, 1)) for stage, value in results.seconds.items()]
    return render_page(
        f"From logged episodes to a policy: {comparison.dataset}",
        [
            score_section(comparison),
            *_under("Data", data_sections(results.data)),
            *_under("Model", dynamics_sections(dynamics, names=_names(results.data))),
            training_section(results.runs, value_bounds=results.value_bounds),
            shift_section(results.runs, results.shift),
            Section("Time", tables=[Table("Seconds of each stage", ("stage", "seconds"), stages)]),
        ],
        subtitle="A dynamics ensemble fitted to a log, policies trained on it, and what they reach.",
        facts=[(method.name, format_number(method.interval.estimate)) for method in comparison.methods]
        + [
            ("trusted horizon", format_count(dynamics.trusted_horizon, "step")),
            ("seconds in all", f"{total:.0f}"),
        ],
        messages=[*conclusions, *warnings, *warning_messages(dynamics)],
        provenance=provenance,
    )


def _under(subject: str, sections: Sequence[Section]) -> list[Section]:
    titles = [f"{subject}: {section.title[:1].lower()}{section.title[1:]}" for section in sections]
    return [dataclasses.replace(s, title=title) for s, title in zip(sections, titles, strict=True)]


def _names(report: Inspection) -> list[str] | None:
    return None if report.stats is None else [d.name for d in report.stats.observations]


def run_page(
    name: str,
    records: Records,
    *,
    evaluation: Evaluation | Mapping[str, Any] | None = None,
    value_bounds: tuple[float, float] | None = None,
    shift: Mapping[str, Any] | None = None,
    selection: Section | None = None,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """One training run: which policy was taken, its curves, how far it leaves the data, and how it did.

    Args:
        name: of the run.
        records: rows of its `metrics.jsonl`.
        evaluation: of its policy, as the dataclass or its JSON; None if there was none.
        value_bounds: least and largest value that the rewards permit, or None.
        shift: JSON of the run's last `ShiftReport`, or None.
        selection: the choice among its policies (`selection_section`), or None.
        provenance: hashes, versions and the command that makes this page again.
    """
    sections = [
        *([] if selection is None else [selection]),
        training_section({name: records}, value_bounds=value_bounds),
        shift_section({name: records}, {name: shift}),
    ]
    facts = [("updates", format_number(float(records[-1]["step"]) if records else 0.0))]
    if evaluation is None:
        missing = "No evaluation in a simulator belongs to this run."
        sections.append(Section("Evaluation", text=missing))
    else:
        values = evaluation.to_json() if isinstance(evaluation, Evaluation) else evaluation
        sections.insert(0, Section("Evaluation", tables=[evaluation_table(values, name=name)]))
        facts.append(("mean return", format_interval(values["return_interval"])))
    return render_page(f"Run {name}", sections, facts=facts, provenance=provenance)
