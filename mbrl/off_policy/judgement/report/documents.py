"""The reports of one candidate and of several: written once, read back by version."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

from pydantic import ValidationError, model_validator

from mbrl.core.errors import DataError
from mbrl.off_policy.judgement.report.concluded import Agreement, NextData, Ranking, TrialPlan, Verdict
from mbrl.off_policy.judgement.report.measured import (
    Backtest,
    Baseline,
    Diagnostics,
    LoggedData,
    ReportedEstimate,
    Risk,
)
from mbrl.off_policy.judgement.report.records import Record, ReportedEstimand
from mbrl.off_policy.log.task_horizon import HorizonSource

REPORT_VERSION: Final = 2
"""Of the JSON of a report. It rises with every change of a key or of a meaning; other files are refused."""

D = TypeVar("D", bound="Document")
M = TypeVar("M", bound="Measured")

_REMEDY: Final = "Run mbrl ope again: it makes what this version cannot read anew."


class Document(Record):
    """A report with a version, as it lies in a file.

    Attributes:
        version: of the JSON.
    """

    version: Literal[2] = REPORT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Plain values for strict JSON, the version in front."""
        values = self.model_dump(mode="json")
        return {"version": values.pop("version"), **values}

    @classmethod
    def from_json(cls: type[D], values: Mapping[str, Any], *, file: Path | None = None) -> D:
        """Inverse of `to_json`.

        Args:
            values: as read from a file.
            file: that they were read from, for messages.

        Raises:
            DataError: they are of another version, or no report.
        """
        version = values.get("version")
        if version != REPORT_VERSION:
            found = "has no version" if version is None else f"is of version {version!r}"
            raise DataError(
                f"the report {found}, and this program reads version {REPORT_VERSION}",
                file=file, field="version", remedy=_REMEDY,
            )  # fmt: skip
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise DataError(first["msg"], file=file, field=field, remedy=_REMEDY) from None

    @classmethod
    def load(cls: type[D], path: Path) -> D:
        """Reads a file.

        Raises:
            DataError: it cannot be read, is of another version, or is no report.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"it cannot be read ({error})", file=path, remedy=_REMEDY) from error
        if not isinstance(values, dict):
            raise DataError("it holds no report", file=path, remedy=_REMEDY)
        return cls.from_json(cast("dict[str, Any]", values), file=path)


class Measured(Record):
    """What was measured of one candidate, before anything is concluded.

    Attributes:
        candidate: its name.
        estimand: what is estimated.
        horizon_source: who says how long an episode is.
        estimates: every estimator's answer.
        data: what the log holds.
        diagnostics: how far the families may be trusted.
        baseline: what the candidate is compared with.
        risk: how bad an episode may become.
        backtest: what the pipeline said of the behaviour's known value; None if it was not asked.
        why_not: reasons of what is missing, by `section.field` or by `section`.
    """

    candidate: str = "candidate"
    estimand: ReportedEstimand
    horizon_source: HorizonSource = "asked"
    estimates: tuple[ReportedEstimate, ...]
    data: LoggedData
    diagnostics: Diagnostics
    baseline: Baseline
    risk: Risk
    backtest: Backtest | None = None
    why_not: Mapping[str, str] = {}

    def estimate(self, name: str) -> ReportedEstimate | None:
        """The answer of an estimator; None if it was not asked."""
        return next((estimate for estimate in self.estimates if estimate.name == name), None)

    def named(self: M, candidate: str) -> M:
        """The same under another name."""
        return self.model_copy(update={"candidate": candidate})


class OPEReport(Measured, Document):
    """All that off-policy evaluation says of one candidate: what was measured, and what follows from it.

    Every field of its sections that is None has its reason in `why_not`, under `section.field`.

    Attributes:
        agreement: whether the families that count tell the same story.
        verdict: whether it may be deployed.
        next_data: what to collect next.
    """

    agreement: Agreement
    verdict: Verdict
    next_data: NextData


class DeploymentReport(Document):
    """Candidates side by side on one log, with a proposal.

    Attributes:
        proposed: the candidate to try first.
        candidates: their names.
        baseline: what they are compared with.
        ranking: by joint draws; None with the reason in `why_no_ranking`.
        why_no_ranking: see there.
        test_plan: whom to test next on the machine; None with the reason in `why_no_test_plan`.
        why_no_test_plan: see there.
        reports: one a candidate.
    """

    proposed: str
    candidates: tuple[str, ...]
    baseline: str
    ranking: Ranking | None = None
    why_no_ranking: str | None = None
    test_plan: TrialPlan | None = None
    why_no_test_plan: str | None = None
    reports: tuple[OPEReport, ...]

    @model_validator(mode="after")
    def _check_names(self) -> "DeploymentReport":
        if tuple(report.candidate for report in self.reports) != self.candidates:
            raise ValueError("the reports are not those of the candidates")
        if self.proposed not in self.candidates:
            raise ValueError(f"the proposed {self.proposed!r} is no candidate")
        return self

    @property
    def proposed_report(self) -> OPEReport:
        """The report of the candidate to try first."""
        return next(report for report in self.reports if report.candidate == self.proposed)
