"""Which estimates carry which flags, and what these mean."""

from mbrl.core.estimates import Flag
from mbrl.off_policy.judgement.report.documents import OPEReport
from mbrl.report.kit.table import Cell, Table


def flag_table(report: OPEReport) -> Table:
    """Which flags the estimates of a report carry, and what they mean."""
    carriers: dict[Flag, list[str]] = {}
    for estimate in report.estimates:
        for flag in estimate.flags:
            carriers.setdefault(flag, []).append(estimate.name)
    rows: list[list[Cell]] = [
        [flag.value, ", ".join(names), flag.meaning] for flag, names in sorted(carriers.items())
    ]
    return Table(f"Flags of {report.candidate}", ("flag", "estimators", "meaning"), rows)
