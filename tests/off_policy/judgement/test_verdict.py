from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl.off_policy.judgement.families import count_families
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.rule import DEFAULT_RULE, JudgeRule
from mbrl.off_policy.judgement.verdict import EXIT_CODES, judge
from tests.off_policy.reports import NAMES, paired, report, with_part

GOOD, WIDE, BAD = (2.0, 3.0), (0.5, 3.0), (0.1, 0.5)  # against a baseline of 1


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (report(GOOD, (2.1, 3.1)), "go"),
        (report(GOOD, (2.1, 3.1), (1.9, 2.9)), "go"),
        (report(GOOD, None, (1.9, 2.9)), "go"),
        (report(None, GOOD, (2.1, 3.1)), "go_with_guard"),  # without ratios never more
        (report(GOOD), "go_with_guard"),  # one family alone
        (report(GOOD, WIDE), "go_with_guard"),  # the other does not know
        (report(GOOD, BAD), "cannot_tell"),  # families that count contradict each other
        (report(BAD, (0.2, 0.9)), "no_go"),
        (report(BAD), "no_go"),
        (report(BAD, (0.5, 2.0)), "no_go"),
        (report((0.5, 2.0), (0.5, 2.0)), "cannot_tell"),
        (report(), "cannot_tell"),
        (report(GOOD, GOOD, baseline=None), "cannot_tell"),
        (report(GOOD, (5.0, 5.4)), "go_with_guard"),  # both above, but they disagree
        (report(GOOD, (0.9, 1.1)), "cannot_tell"),  # they disagree, and one of them is not above
        # risk: (p, low, high) with a limit of 0.1
        (report(GOOD, GOOD, risk=[(0.02, 0.0, 0.05)]), "go"),
        (report(GOOD, GOOD, risk=[(0.02, 0.0, 0.15)]), "go_with_guard"),  # it may lie above
        (report(GOOD, GOOD, risk=[(0.12, 0.05, 0.2)]), "cannot_tell"),  # it probably does
        (report(GOOD, GOOD, risk=[(0.3, 0.2, 0.4)]), "no_go"),  # it surely does, whatever the value
        (report(risk=[(0.3, 0.2, 0.4)]), "no_go"),
        (report(GOOD, GOOD, baseline=None, risk=[(0.3, 0.2, 0.4)]), "no_go"),
        (report(GOOD, GOOD, risk=[(0.02, 0.0, 0.05), (0.3, 0.2, 0.4)]), "no_go"),  # one source is enough
        (report(GOOD, GOOD, risk=[(0.02, 0.0, 0.05), (0.05, 0.0, 0.2)]), "go_with_guard"),
        (report(GOOD, GOOD, risk=[]), "cannot_tell"),  # a limit that nothing can speak of is not met
        (report(GOOD, GOOD, risk=[(0.3, 0.2, 0.4)], limit=None), "go"),  # no limit was asked for
        (report(BAD, BAD, risk=[(0.02, 0.0, 0.05)]), "no_go"),
        # paired differences replace the unpaired comparison
        (paired(report(WIDE, WIDE), pdwis=(0.1, 1.0), fqe=(0.1, 1.0)), "go"),
        (paired(report(GOOD, GOOD), pdwis=(-0.1, 1.0), fqe=(0.1, 1.0)), "go_with_guard"),
        (paired(report(GOOD, GOOD), pdwis=(-1.0, -0.1), fqe=(-1.0, -0.1)), "no_go"),
    ],
)
def test_every_branch(found: Measured, verdict: str) -> None:
    judgement = judge(found)
    assert judgement.verdict == verdict
    assert judgement.exit_code == EXIT_CODES[judgement.verdict]
    assert judge(Measured.model_validate(found.model_dump(mode="json"))) == judgement


@pytest.mark.parametrize(
    ("change", "family"),
    [
        ({"ess": 29.0}, "ratio"),
        ({"pareto_k": 0.7}, "ratio"),
        ({"drift": 0.02}, "value"),
        ({"drift": None}, "value"),
        ({"support": 0.1}, "value"),
        ({"support": None}, "value"),
        ({"z": {"fqe": -2.0, "model_value": 0.0}}, "value"),
        ({"disagreement": 0.1}, "model"),
        ({"disagreement": None}, "model"),
        ({"z": {"fqe": 0.0, "model_value": 2.0}}, "model"),
        ({"z": {"fqe": 0.0}}, "model"),
    ],
)
def test_what_fails_a_test_of_its_family_or_was_not_tested_does_not_count(
    change: dict[str, Any], family: str
) -> None:
    whole = judge(report(GOOD, GOOD, GOOD))
    judgement = judge(report(GOOD, GOOD, GOOD, **change))
    assert set(whole.families) - set(judgement.families) == {family}
    assert any(reason.startswith(f"{family}: ") for reason in judgement.reasons)
    assert judgement.verdict == ("go_with_guard" if family == "ratio" else "go")


def test_bootstrapped_tails_are_no_ratios_and_no_roll_outs() -> None:
    assert judge(report(GOOD, GOOD, GOOD, tail=0.11)).families == ()
    assert len(judge(report(GOOD, GOOD, GOOD, tail=0.1)).families) == 3


def test_a_margin_is_for_go_only() -> None:
    assert judge(report(GOOD, GOOD), JudgeRule(margin=0.9)).verdict == "go"
    assert judge(report(GOOD, GOOD), JudgeRule(margin=1.5)).verdict == "go_with_guard"


def test_a_rule_may_let_a_go_stand_without_ratios() -> None:
    rule = JudgeRule(allow_go_without_ratio=True)
    assert judge(report(None, GOOD, (2.1, 3.1)), rule).verdict == "go"
    assert judge(report(None, GOOD), rule).verdict == "go_with_guard"  # two families all the same


def test_a_policy_as_baseline_needs_differences_and_must_count_itself() -> None:
    found = paired(report(GOOD, GOOD), pdwis=(0.1, 1.0), fqe=(0.1, 1.0))
    found = with_part(found, "baseline", policy="other")
    assert judge(found).verdict == "go"
    differences = dict(found.baseline.paired or {})
    differences["fqe"] = differences["fqe"].model_copy(update={"why_not": "it still moved"})
    moved = with_part(found, "baseline", paired=differences)
    assert judge(moved).families == ("ratio",)
    assert "value: the baseline: it still moved" in judge(moved).reasons
    assert judge(with_part(found, "baseline", paired=None)).families == ()


def test_a_corrected_verdict_reads_the_wider_intervals() -> None:
    plain = report(GOOD, GOOD, risk=[(0.02, 0.0, 0.05)])
    ends = {"pdwis": (0.1, 1.0), "fqe": (0.1, 1.0)}

    def verdict(low: float, most: float) -> str:
        wide = paired(plain, corrected=dict.fromkeys(ends, (low, 1.1)), **ends)
        (source,) = wide.risk.sources
        source = source.model_copy(update={"p_violation_ci_corrected": (0.0, most)})
        wide = with_part(wide, "risk", sources=(source,))
        assert judge(wide).verdict == "go"
        return judge(wide, interval="ci_corrected").verdict

    assert judge(paired(plain, **ends), interval="ci_corrected").verdict == "cannot_tell"  # there are none
    assert verdict(0.05, 0.08) == "go"
    assert verdict(0.05, 0.11) == "go_with_guard"
    assert verdict(-0.05, 0.11) == "cannot_tell"


ends = st.none() | st.tuples(st.floats(-3, 5), st.floats(0, 3)).map(lambda pair: (pair[0], sum(pair)))
share = st.none() | st.floats(0, 0.2)
sources = st.tuples(*[st.floats(0, 0.3)] * 3).map(lambda p: (sorted(p)[1], min(p), max(p)))
reports = st.builds(
    report,
    ends,
    ends,
    ends,
    baseline=st.none() | st.floats(-2, 2),
    ess=st.sampled_from([0.0, 29.9, 30.0, 100.0]),
    pareto_k=st.none() | st.floats(-1, 1.5),
    tail=st.floats(0, 0.2),
    drift=st.none() | st.floats(0, 0.04),
    support=share,
    disagreement=share,
    z=st.dictionaries(st.sampled_from(sorted(NAMES.values())), st.floats(-4, 4)),
    risk=st.none()
    | st.lists(st.tuples(*[st.floats(0, 0.3)] * 3).map(lambda p: (sorted(p)[1], min(p), max(p)))),
    limit=st.none() | st.floats(0.01, 0.3),
)


@given(reports)
def test_no_report_gets_more_than_its_families_carry(found: Measured) -> None:
    judgement = judge(found)
    counted, problems = count_families(found, DEFAULT_RULE)
    assert judgement.verdict in EXIT_CODES
    assert judgement.families == tuple(family.family for family in counted)
    assert set(judgement.families) | set(problems) == set(NAMES)
    above = [f for f in counted if f.low is not None and f.low > 0]
    if judgement.verdict == "go":
        assert len(counted) >= 2
        assert "ratio" in judgement.families
        assert (found.estimates[0].n_eff or 0) >= 30
        assert above == counted
    if judgement.verdict == "go_with_guard":
        assert above
    limit, ends = found.risk.limit, [s.p_violation_ci95 for s in found.risk.sources]
    if limit is not None:
        if any(low > limit for low, _ in ends):
            assert judgement.verdict == "no_go"
        if judgement.verdict == "go":
            assert all(high < limit for _, high in ends)
