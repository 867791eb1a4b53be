import math

import pytest

from mbrl.core.estimates import Family
from mbrl.off_policy.judgement.agreement import agreement, disagreement, find_outlier, likely_reason, pool
from mbrl.off_policy.judgement.families import CountedFamily
from mbrl.off_policy.judgement.report.concluded import Agreement
from tests.off_policy.reports import report


def counted(family: Family, point: float, se: float) -> CountedFamily:
    return CountedFamily(family, family, point, se, None, None)


RATIO, VALUE, MODEL = counted("ratio", 1.0, 0.3), counted("value", 1.5, 0.4), counted("model", 4.0, 0.3)


def test_the_largest_pair_counts() -> None:
    assert disagreement([RATIO, VALUE]) == pytest.approx(0.5 / 0.5)  # 0.3-0.4-0.5
    assert disagreement([RATIO, VALUE, MODEL]) == pytest.approx(3.0 / math.hypot(0.3, 0.3))
    assert disagreement([RATIO]) is None
    assert disagreement([counted("ratio", 1.0, 0.0), counted("value", 1.0, 0.0)]) == 0.0
    assert disagreement([counted("ratio", 1.0, 0.0), counted("value", 2.0, 0.0)]) == 1e9


def test_pooled_families_that_agree_are_no_surer_than_dependence_allows() -> None:
    # equal points: tau = 0, weights 1/2 each, and the bound on the deviation is that of each alone
    low, high = pool([counted("ratio", 2.0, 0.5), counted("value", 2.0, 0.5)])
    assert (low, high) == pytest.approx((2.0 - 1.959964 * 0.5, 2.0 + 1.959964 * 0.5))


def test_pooled_families_that_differ_are_as_wide_as_their_difference() -> None:
    # se 1, points 0 and 4: Q - (k - 1) = 8 - 1 = 7, scale 2 - 2/2 = 1, tau^2 = 7, each deviation sqrt(8)
    low, high = pool([counted("ratio", 0.0, 1.0), counted("value", 4.0, 1.0)])
    assert (low, high) == pytest.approx((2.0 - 1.959964 * math.sqrt(8), 2.0 + 1.959964 * math.sqrt(8)))


def test_families_without_an_error_are_pooled_all_the_same():
    same = counted("ratio", 2.0, 0.0), counted("value", 2.0, 0.0)
    assert pool(same) == (2.0, 2.0)
    assert pool(same[:1]) == (2.0, 2.0)
    # a certain one outweighs an uncertain one that it agrees with
    assert pool([counted("ratio", 2.0, 0.0), counted("value", 2.1, 0.5)]) == pytest.approx((2.0, 2.0))
    # two certain ones that differ by 4: tau^2 = 4^2 / 2, and each deviation is its root
    low, high = pool([counted("ratio", 0.0, 0.0), counted("value", 4.0, 0.0)])
    assert (low, high) == pytest.approx((2.0 - 1.959964 * math.sqrt(8), 2.0 + 1.959964 * math.sqrt(8)))


def test_the_one_without_which_the_others_agree_stands_apart() -> None:
    assert find_outlier([RATIO, VALUE, MODEL]) == "model"
    assert find_outlier([RATIO, MODEL]) is None  # of two, neither is the odd one
    apart = [counted(f, x, 0.1) for f, x in (("ratio", 0.0), ("value", 2.0), ("model", 4.0))]
    assert find_outlier(apart) is None


def test_reasons_come_from_the_diagnostics_of_the_suspects() -> None:
    found = report(support=0.08, disagreement=0.09, pareto_k=0.6)
    assert "Pareto k 0.60" in likely_reason(["ratio"], found.diagnostics)
    assert "8% of the policy's actions" in likely_reason(["value"], found.diagnostics)
    assert likely_reason(["ratio", "model"], found.diagnostics).count(";") == 1
    assert likely_reason(["value"], report().diagnostics) == "no diagnostic points to any of them"


def test_the_section_is_empty_where_nothing_counts_and_silent_without_conflict() -> None:
    nothing = agreement([], report())
    assert nothing == Agreement()
    quiet = agreement([RATIO, VALUE], report(), paired_z=1.5)
    assert quiet.spread == 0.5
    assert quiet.likely_reason is None
    assert quiet.paired_z == 1.5
    assert agreement([RATIO], report(), paired_z=1.5).paired_z is None  # of two that do not both count
    loud = agreement([RATIO, VALUE, MODEL], report(disagreement=0.08))
    assert loud.outlier == "model"
    assert (loud.likely_reason or "").startswith("model: 8%")
