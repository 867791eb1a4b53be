import numpy as np
import pytest
import scipy.stats

from mbrl.off_policy.judgement.conclusions import conclude
from mbrl.off_policy.judgement.paired import Evidence
from mbrl.off_policy.judgement.ranking import common_estimator, joint_draws, propose, rank
from mbrl.off_policy.judgement.report.concluded import CorrectedVerdict, Ranking, Verdict, VerdictName
from mbrl.off_policy.judgement.report.documents import OPEReport
from mbrl.off_policy.judgement.rule import DEFAULT_RULE
from tests.off_policy.reports import report


def normal(seed: int, n: int = 400) -> np.ndarray:
    draws = np.random.default_rng(seed).normal(size=n)
    return (draws - draws.mean()) / draws.std()


def ranked(*evidence: Evidence, seed: int = 0, draws: int = 2000) -> Ranking:
    found = rank(
        [{"pdwis": one} for one in evidence],
        [{} for _ in evidence],
        rng=np.random.default_rng(seed),
        draws=draws,
    )
    assert isinstance(found, Ranking)
    return found


def test_the_chance_of_being_the_best_is_the_normal_one():
    gap = 0.08
    first, second = Evidence(normal(0) + gap), Evidence(normal(1))
    found = ranked(first, second, seed=2, draws=20_000)
    assert (found.estimator, found.counts_for_all) == ("pdwis", True)
    assert found.points == (first.point, second.point)
    se = np.std(first.per_episode - second.per_episode) / 20
    assert found.p_best[0] == pytest.approx(scipy.stats.norm.cdf(gap / se), abs=0.01)
    assert sum(found.p_best) == pytest.approx(1.0)
    # regret of the first: E (d)_+ of the difference d ~ N(-gap, se)
    exact = se * scipy.stats.norm.pdf(gap / se) - gap * scipy.stats.norm.sf(gap / se)
    assert found.regret == pytest.approx(exact, rel=0.05)
    assert found.regret_ci95[0] == 0.0
    assert found.regret_ci95[1] == pytest.approx(-gap + 1.96 * se, rel=0.1)


def test_what_candidates_share_decides_nothing():
    shared = 5 * normal(3)
    found = ranked(Evidence(shared + 0.01), Evidence(shared))
    assert found.p_best == (1.0, 0.0)
    assert found.regret == 0.0


def test_ties_are_shared():
    same = Evidence(normal(4))
    assert ranked(same, same).p_best == (0.5, 0.5)


def test_without_a_ranking_there_is_a_reason():
    one, rng = Evidence(normal(5)), np.random.default_rng(0)
    assert rank([{"pdwis": one}], [{}], rng=rng) == "one candidate has no rank"
    nothing = rank([{"pdwis": one}, {"fqe": one}], [{}, {}], rng=rng)
    assert nothing == "no primary estimator judged all candidates"


def test_members_spread_the_draws_by_their_deviation():
    members = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    still = np.zeros(50)
    draws = joint_draws(
        [Evidence(still, members), Evidence(still, members + 3.0)], rng=np.random.default_rng(0), draws=20_000
    )
    assert draws[0].var() == pytest.approx(members.var(ddof=1), rel=0.03)
    np.testing.assert_allclose(draws[0], draws[1], atol=1e-12)  # the same member serves both


def test_one_estimator_serves_all_and_those_that_count_come_first():
    one, other = Evidence(np.zeros(4)), Evidence(np.zeros(5))
    both = [{"pdwis": one, "fqe": one}, {"pdwis": one, "fqe": one}]
    assert common_estimator(both, [{}, {}]) == ("pdwis", True)
    assert common_estimator(both, [{"ratio": "no"}, {}]) == ("fqe", True)
    assert common_estimator(both, [{"ratio": "no"}, {"value": "no"}]) == ("pdwis", False)
    assert common_estimator([{"fqe": one}, {"pdwis": one}], [{}, {}]) is None
    assert common_estimator([{"fqe": one}, {"fqe": other}], [{}, {}]) is None


def judged(alone: VerdictName, joint: VerdictName | None = None) -> OPEReport:
    corrected = None if joint is None else CorrectedVerdict(verdict=joint, reasons=(), candidates=3)
    verdict = Verdict(verdict=alone, reasons=(), thresholds=DEFAULT_RULE, corrected=corrected)
    return conclude(report()).model_copy(update={"verdict": verdict})


def test_the_best_verdict_is_proposed_then_the_best_chance():
    go, guard, unknown = judged("go", "go"), judged("go", "go_with_guard"), judged("go", "cannot_tell")
    assert propose([unknown, guard, go], [0.9, 0.1, 0.0]) == 2
    assert propose([unknown, guard, guard], [0.8, 0.05, 0.15]) == 2
    assert propose([guard, guard], None) == 0
    assert propose([judged("no_go"), judged("cannot_tell")], None) == 1
