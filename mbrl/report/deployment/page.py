"""The page of a deployment report: verdicts first, then what they rest on.

Importing this module imports matplotlib; do so where a page is made.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

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
    verdict_messages,
)
from mbrl.report.deployment.tables import WORDS, baseline_name
from mbrl.report.kit.html import Section, render_page
from mbrl.report.kit.message import Message
from mbrl.report.kit.wording import format_count, format_number


def deployment_page(whole: Mapping[str, Any], *, provenance: Mapping[str, str] | None = None) -> str:
    """Candidates judged by a log alone, as one HTML text.

    Args:
        whole: JSON of the comparison (`mbrl.run.judge.deployment`), with at least one report.
        provenance: hashes, versions and the command that makes this page again.
    """
    reports = sorted(whole["reports"], key=lambda report: report["candidate"] != whole["proposed"])
    proposed, is_alone = reports[0], len(reports) == 1
    sections = [] if is_alone else [candidate_section(whole)]
    for index, report in enumerate(reports):
        own = _sections(report, key=f"c{index}", has_verdict=index > 0)
        sections += own if is_alone else [_named(section, report["candidate"]) for section in own]
    sections.append(data_section(proposed))
    names = ", ".join(whole["candidates"])
    return render_page(
        f"May it be deployed? {names}",
        [dataclasses.replace(section, text=_unbroken(section.text)) for section in sections],
        subtitle=f"Judged by the log {proposed['data']['name']} alone, against {baseline_name(proposed)}.",
        facts=_facts(whole, proposed),
        messages=_conclusion(proposed, is_alone=is_alone),
        provenance=provenance,
    )


def _sections(report: Mapping[str, Any], *, key: str, has_verdict: bool) -> list[Section]:
    return [
        estimate_section(report, key=key, has_verdict=has_verdict),
        next_section(report),
        support_section(report, key=key),
        ratio_section(report, key=key),
        model_section(report, key=key),
        risk_section(report, key=key),
        backtest_section(report, key=key),
    ]


def _conclusion(proposed: Mapping[str, Any], *, is_alone: bool) -> list[Message]:
    prefix = "" if is_alone else "Of these candidates the one to try first: "
    verdict, *reasons = verdict_messages(proposed)
    return [dataclasses.replace(verdict, text=f"{prefix}{verdict.text}"), *reasons]


def _facts(whole: Mapping[str, Any], proposed: Mapping[str, Any]) -> list[tuple[str, str]]:
    verdict = proposed["verdict"]
    final = verdict.get("corrected") or verdict
    families = proposed["agreement"]["families_used"]
    return [
        ("verdict", WORDS[final["verdict"]]),
        ("of", whole["proposed"]),
        ("families that count", ", ".join(families) or "none"),
        (f"value of {proposed['baseline']['policy']}", format_number(proposed["baseline"]["value"])),
        ("log", format_count(proposed["data"]["episodes"], "episode")),
    ]


def _unbroken(text: str) -> str:
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def _named(section: Section, name: str) -> Section:
    return dataclasses.replace(section, title=f"{name}: {section.title[:1].lower()}{section.title[1:]}")
