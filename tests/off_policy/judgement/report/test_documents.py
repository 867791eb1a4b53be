import json
import math
from pathlib import Path

import pytest

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.off_policy.judgement.conclusions import conclude
from mbrl.off_policy.judgement.report.documents import REPORT_VERSION, DeploymentReport, OPEReport
from mbrl.off_policy.judgement.report.measured import LARGEST_SHARE, Diagnostics, ReportedEstimate
from mbrl.off_policy.judgement.verdict import judge
from tests.off_policy.reports import paired, report

WHOLE = conclude(
    paired(report((2.0, 3.0), (2.1, 3.2), risk=[(0.02, 0.0, 0.05)]), pdwis=(0.1, 1.0), fqe=(0.1, 1.0)),
    candidates=2,
).named("bc-s0")


def write(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_a_report_survives_its_file_and_so_does_its_verdict(tmp_path: Path) -> None:
    values = WHOLE.to_json()
    assert next(iter(values)) == "version"
    found = OPEReport.load(write(tmp_path / "ope.json", values))
    assert found == WHOLE
    assert found.to_json() == values
    assert judge(found) == judge(WHOLE)
    several = DeploymentReport(
        proposed="bc-s0", candidates=("bc-s0",), baseline="behaviour", why_no_ranking="one", reports=(WHOLE,)
    )
    assert DeploymentReport.load(write(tmp_path / "deployment.json", several.to_json())) == several
    assert several.proposed_report is several.reports[0]


@pytest.mark.parametrize("version", [None, 0, REPORT_VERSION + 1, "1"])
def test_another_version_is_refused_with_file_and_remedy(tmp_path: Path, version: object) -> None:
    path = write(tmp_path / "ope.json", {**WHOLE.to_json(), "version": version})
    for kind in (OPEReport, DeploymentReport):
        with pytest.raises(DataError, match=r"reads version 2.*Remedy: Run mbrl ope again") as caught:
            kind.load(path)
        assert (caught.value.file, caught.value.field) == (path, "version")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"verdict": None}, "verdict"),
        ({"estimand": {"discount": 3.0}}, "estimand"),
        ({"estimand": "all"}, "estimand"),
        ({"data": {"episodes": "many"}}, "data.name"),
        ({"surprise": 1}, "surprise"),
        ({"estimates": [{"name": "fqe"}]}, "estimates.0.family"),
        ({"estimates": 3}, "estimates"),
    ],
)
def test_a_damaged_report_names_file_and_field(tmp_path: Path, change: dict, field: str) -> None:
    path = write(tmp_path / "ope.json", {**WHOLE.to_json(), **change})
    with pytest.raises(DataError) as caught:
        OPEReport.load(path)
    assert caught.value.file == path
    assert str(caught.value.field).startswith(field)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_what_is_no_report_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ope.json"
    path.write_text(text)
    with pytest.raises(DataError, match="Remedy"):
        OPEReport.load(path)
    with pytest.raises(DataError, match="cannot be read"):
        OPEReport.load(tmp_path / "none.json")


def test_reports_of_other_candidates_are_refused() -> None:
    values = {"proposed": "a", "candidates": ["a"], "baseline": "behaviour", "reports": [WHOLE.to_json()]}
    with pytest.raises(DataError, match="not those of the candidates"):
        DeploymentReport.from_json({"version": REPORT_VERSION, **values})
    values |= {"candidates": ["bc-s0"]}
    with pytest.raises(DataError, match="'a' is no candidate"):
        DeploymentReport.from_json({"version": REPORT_VERSION, **values})


def test_the_keys_are_documented() -> None:
    docs = Path(__file__).resolve().parents[4] / "docs" / "ope.md"
    text = docs.read_text(encoding="utf-8")
    table = text[text.index("| key of a report |") : text.index("## The model")]
    keys = {*OPEReport.model_fields, *DeploymentReport.model_fields} - {"why_no_ranking", "why_no_test_plan"}
    assert [key for key in keys if f"`{key}`" not in table] == []
    assert f"of the JSON, {REPORT_VERSION};" in table


def test_what_is_not_finite_becomes_null() -> None:
    found = Diagnostics(pareto_k=-math.inf, ess_t=(1.0, math.nan))
    assert found.pareto_k is None
    assert found.ess_t == (1.0, None)


def test_an_estimate_keeps_what_a_report_shows() -> None:
    given = Estimate(
        "pdwis", "hybrid", 0.0, math.nan, (math.nan, math.inf), "by hand", 10.0, Estimand(0.9, 5),
        flags=(Flag.LOW_ESS,), details={"tail_share": math.inf},
    )  # fmt: skip
    found = ReportedEstimate.of(given)
    assert (found.point, found.se, found.ci95) == (0.0, None, (None, None))
    assert found.flags == (Flag.LOW_ESS,)
    assert found.tail_share == LARGEST_SHARE  # None would mean that it has no tail
    assert found.model_dump(mode="json")["flags"] == ["low_ess"]
