import numpy as np
import pytest
import scipy.stats

from mbrl.ope.judgement.paired import Evidence
from mbrl.ope.judgement.ranking import common_estimator, joint_draws, propose, rank


def normal(seed: int, n: int = 400) -> np.ndarray:
    draws = np.random.default_rng(seed).normal(size=n)
    return (draws - draws.mean()) / draws.std()


def test_the_chance_of_being_the_best_is_the_normal_one():
    gap = 0.08
    first, second = Evidence(normal(0) + gap), Evidence(normal(1))
    found = rank([first, second], rng=np.random.default_rng(2), draws=20_000)
    se = np.std(first.per_episode - second.per_episode) / 20
    assert found.p_best[0] == pytest.approx(scipy.stats.norm.cdf(gap / se), abs=0.01)
    assert found.p_best.sum() == pytest.approx(1.0)
    # regret of the first: E (d)_+ of the difference d ~ N(-gap, se)
    exact = se * scipy.stats.norm.pdf(gap / se) - gap * scipy.stats.norm.sf(gap / se)
    assert found.regret == pytest.approx(exact, rel=0.05)
    assert found.regret_ci95[0] == 0.0
    assert found.regret_ci95[1] == pytest.approx(-gap + 1.96 * se, rel=0.1)


def test_what_candidates_share_decides_nothing():
    shared = 5 * normal(3)
    found = rank([Evidence(shared + 0.01), Evidence(shared)], rng=np.random.default_rng(0))
    assert found.p_best.tolist() == [1.0, 0.0]
    assert found.regret == 0.0


def test_ties_are_shared():
    same = Evidence(normal(4))
    assert rank([same, same], rng=np.random.default_rng(0)).p_best.tolist() == [0.5, 0.5]


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


def test_the_best_verdict_is_proposed_then_the_best_chance():
    def verdicts(*found):
        return [{"verdict": {"verdict": alone, "corrected": {"verdict": joint}}} for alone, joint in found]

    go, guard, unknown = ("go", "go"), ("go", "go_with_guard"), ("go", "cannot_tell")
    assert propose(verdicts(unknown, guard, go), [0.9, 0.1, 0.0]) == 2
    assert propose(verdicts(unknown, guard, guard), [0.8, 0.05, 0.15]) == 2
    assert propose(verdicts(guard, guard), None) == 0
    assert propose([{"verdict": {"verdict": "no_go"}}, {"verdict": {"verdict": "cannot_tell"}}], None) == 1
