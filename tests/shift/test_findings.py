import math

from mbrl.core.errors import NonFiniteError
from mbrl.shift.findings import ShiftFindings


def test_a_value_that_is_missing_or_not_finite_gets_its_reason() -> None:
    found = ShiftFindings({"model": "none was fitted"})
    found.put("knn_share", 0.5)
    found.put("edge_share", None, why_not="nothing is bootstrapped from")
    found.put("edge_value_gap", math.inf, why_not="it was measured")
    found.lack("model", "model_error_near_policy")
    found.lack("support", "out_of_support_share")
    report = found.report(3, 10)
    assert (report.step, report.updates, report.knn_share) == (3, 10, 0.5)
    assert report.why_not == {
        "edge_share": "nothing is bootstrapped from",
        "edge_value_gap": "it is not finite",
        "model_error_near_policy": "none was fitted",
        "out_of_support_share": "there is no support",
    }


def test_rollouts_that_blow_up_are_a_finding_not_an_error() -> None:
    def run():
        raise NonFiniteError("the model blew up")

    found = ShiftFindings({})
    assert found.imagine(run, ("edge_share",)) is None
    assert "blows up" in found.why_not["edge_share"]
