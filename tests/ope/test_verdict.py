import json

import numpy as np
import pytest

from mbrl.ope.verdict import EXIT_CODES, JudgeRule, judge


def report(ratio=None, value=None, model=None, *, baseline=1.0, ess=100.0, pareto_k=0.3, tail=0.0):
    """Intervals of the three primary estimators, each `(low, high)` or None for an invalid one."""
    estimates = []
    for name, ends in (("pdwis", ratio), ("fqe", value), ("model_value", model)):
        low, high = ends or (None, None)
        estimates.append(
            {
                "name": name,
                "point": None if ends is None else (low + high) / 2,
                "se": None if ends is None else (high - low) / 4,
                "ci95": [low, high],
                "n_eff": ess,
                "valid": ends is not None,
                "why_not": "by hand",
                "tail_share": tail,
            }
        )
    return {"estimates": estimates, "diagnostics": {"pareto_k": pareto_k}, "baseline": {"value": baseline}}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (report((2.0, 3.0), (2.1, 3.1)), "go"),
        (report(None, (2.0, 3.0), (2.1, 3.1)), "go_with_guard"),  # without ratios never more
        (report((2.0, 3.0)), "go_with_guard"),  # one family alone
        (report((2.0, 3.0), (0.5, 3.0)), "go_with_guard"),  # the other does not know
        (report((2.0, 3.0), (0.1, 0.5)), "cannot_tell"),  # valid families contradict each other
        (report((0.1, 0.5), (0.2, 0.9)), "no_go"),
        (report((0.1, 0.5), (0.5, 2.0)), "no_go"),
        (report((0.5, 2.0), (0.5, 2.0)), "cannot_tell"),
        (report(), "cannot_tell"),
        (report((2.0, 3.0), (2.0, 3.0), baseline=None), "cannot_tell"),
        (report((2.0, 3.0), (5.0, 5.4)), "go_with_guard"),  # both above, but they disagree
    ],
)
def test_every_branch(found, verdict):
    judgement = judge(found)
    assert judgement.verdict == verdict
    assert judgement.exit_code == EXIT_CODES[verdict]
    assert judge(json.loads(json.dumps(found))) == judgement


@pytest.mark.parametrize("doubt", [{"ess": 29.0}, {"pareto_k": 0.7}, {"tail": 0.2}])
def test_ratios_that_cannot_be_trusted_are_not_counted(doubt):
    judgement = judge(report((2.0, 3.0), (2.0, 3.0), **doubt))
    assert judgement.verdict == "go_with_guard"
    assert judgement.families == ("value",)
    assert judgement.reasons[0].startswith("ratio: ")


def test_a_margin_is_for_go_only():
    assert judge(report((2.0, 3.0), (2.0, 3.0)), JudgeRule(margin=1.5)).verdict == "go_with_guard"


def test_no_report_gets_a_go_without_two_families_and_ratios():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(2000):
        ends = [None if rng.random() < 0.4 else tuple(np.sort(rng.normal(1.5, 1.0, 2))) for _ in range(3)]
        judgement = judge(report(*ends, ess=float(rng.choice([10.0, 100.0]))))
        seen.add(judgement.verdict)
        if judgement.verdict == "go":
            assert len(judgement.families) >= 2
            assert "ratio" in judgement.families
    assert seen == set(EXIT_CODES)
