from mbrl.core.estimates import Flag
from mbrl.report.deployment.flags import flag_table
from tests.report.deployments import single


def test_each_flag_names_its_estimators_and_its_meaning() -> None:
    first, second, third, *_ = single().estimates
    flagged = (
        first.model_copy(update={"name": "dr", "flags": (Flag.NO_CROSSFIT, Flag.LOW_ESS)}),
        second.model_copy(update={"name": "is", "flags": (Flag.LOW_ESS,)}),
        third,
    )
    report = single().model_copy(update={"estimates": flagged})
    rows = flag_table(report).rows
    assert [row[:2] for row in rows] == [["low_ess", "dr, is"], ["no_crossfit", "dr"]]
    assert rows[0][2] == "too few episodes carry the weight"
    assert flag_table(single()).rows == []
