"""The page of a deployment report: verdicts first, then what they rest on.

Importing this module imports matplotlib; do so where a page is made.
"""

import dataclasses
from collections.abc import Mapping

from mbrl.off_policy.judgement.report.concluded import VERDICT_WORDS
from mbrl.off_policy.judgement.report.documents import DeploymentReport, OPEReport
from mbrl.report.deployment.sections import (
    backtest_section,
    candidate_section,
    data_section,
    estimate_section,
    model_section,
    next_section,
    ratio_section,
    risk_section,
    support_section,
)
from mbrl.report.deployment.sentences import baseline_name, question_sentence, verdict_messages
from mbrl.report.kit.html import Section, render_page
from mbrl.report.kit.message import Message
from mbrl.report.kit.wording import format_count, format_number


def deployment_page(whole: DeploymentReport, *, provenance: Mapping[str, str] | None = None) -> str:
    """Candidates judged by a log alone, as one HTML text.

    Args:
        whole: at least one report.
        provenance: hashes, versions and the command that makes this page again.
    """
    proposed = whole.proposed_report
    return render_page(
        f"May it be deployed? {', '.join(whole.candidates)}",
        deployment_sections(whole),
        subtitle=(
            f"Judged by the log {proposed.data.name} alone, against {baseline_name(proposed)}. "
            f"{question_sentence(proposed)}"
        ),
        facts=deployment_facts(proposed),
        messages=deployment_messages(whole),
        provenance=provenance,
    )


def deployment_sections(whole: DeploymentReport) -> list[Section]:
    """All sections, those of the proposed candidate in front."""
    reports = sorted(whole.reports, key=lambda report: report.candidate != whole.proposed)
    is_alone = len(reports) == 1
    sections = [] if is_alone else [candidate_section(whole)]
    for index, report in enumerate(reports):
        own = report_sections(report, key=f"c{index}", has_verdict=index > 0)
        sections += own if is_alone else [_named(section, report.candidate) for section in own]
    sections.append(data_section(whole.proposed_report))
    return [dataclasses.replace(section, text=_unbroken(section.text)) for section in sections]


def report_sections(report: OPEReport, *, key: str = "c0", has_verdict: bool = False) -> list[Section]:
    """What is known of one candidate, without the log.

    Args:
        report: of the candidate.
        key: prefix of the names of pictures, unique on a page.
        has_verdict: begin with the verdict, where it does not stand at the head of the page.
    """
    return [
        estimate_section(report, key=key, has_verdict=has_verdict),
        next_section(report),
        support_section(report, key=key),
        ratio_section(report, key=key),
        model_section(report, key=key),
        risk_section(report, key=key),
        backtest_section(report, key=key),
    ]


def deployment_messages(whole: DeploymentReport) -> list[Message]:
    """The verdict on the proposed candidate, and its reasons."""
    prefix = "" if len(whole.reports) == 1 else "Of these candidates the one to try first: "
    verdict, *reasons = verdict_messages(whole.proposed_report)
    return [dataclasses.replace(verdict, text=f"{prefix}{verdict.text}"), *reasons]


def deployment_facts(proposed: OPEReport) -> list[tuple[str, str]]:
    """The few figures that matter most."""
    return [
        ("verdict", VERDICT_WORDS[proposed.verdict.final.verdict]),
        ("of", proposed.candidate),
        ("families that count", ", ".join(proposed.agreement.families_used) or "none"),
        (f"value of {proposed.baseline.policy}", format_number(proposed.baseline.value)),
        ("log", format_count(proposed.data.episodes, "episode")),
    ]


def _unbroken(text: str) -> str:
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _named(section: Section, name: str) -> Section:
    return dataclasses.replace(section, title=f"{name}: {section.title[:1].lower()}{section.title[1:]}")
