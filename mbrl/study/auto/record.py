"""What `mbrl auto` keeps in its folder: how the time was shared out, and what was found."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from mbrl.report.auto.facts import AutoReport
from mbrl.run.files import write_json

REPORT_FILE: Final = "auto.json"
PLAN_FILE: Final = "plan.json"
POLICY_FILE: Final = "policy.safetensors"


class TimePlan(BaseModel):
    """How the time was shared out; kept, so that what goes on after a kill is the same work.

    Attributes:
        identity: of portfolio, log and time.
        fit_updates: most of the model's fit; None for what the config says.
        judge_updates: most of the fit of every judge; None likewise.
        updates: of each candidate's training; None before the fits are done.
        kept: policies along each training.
        left_out: candidates that the time does not permit, with the reason.
        estimate_updates: of each value fit of the pick; 0 for no estimates, None before that is known.
        no_estimate: why there are none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: str
    fit_updates: Annotated[int, Field(ge=1)] | None = None
    judge_updates: Annotated[int, Field(ge=1)] | None = None
    updates: dict[str, Annotated[int, Field(ge=1)]] | None = None
    kept: Annotated[int, Field(ge=1)] = 20
    left_out: dict[str, str] = Field(default_factory=dict[str, str])
    estimate_updates: Annotated[int, Field(ge=0)] | None = None
    no_estimate: str | None = None


def save_report(report: AutoReport, folder: Path) -> Path:
    """Writes a report as JSON."""
    path = folder / REPORT_FILE
    write_json(path, report.model_dump(mode="json"))
    return path
