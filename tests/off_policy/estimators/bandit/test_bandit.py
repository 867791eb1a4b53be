"""Single decisions: a table that was computed by hand, and a bandit whose value is known exactly."""

import math

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError, EstimandError
from mbrl.core.estimates import Estimand
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.off_policy.estimators.bandit.dros import shrunk_doubly_robust
from mbrl.off_policy.estimators.bandit.switch_dr import switch_doubly_robust
from mbrl.off_policy.estimators.base import ESTIMATORS
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.weights import WeightTransform
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.run.judge.ope import OPESettings, evaluate_off_policy
from tests.off_policy.logs import TablePolicy, ask, context_of, logged, one_step, table_log

# Four decisions: ratios 2, 1/2, 4, 1, rewards, fitted Q of the action and V of the context.
RATIO = np.array([2.0, 0.5, 4.0, 1.0])
REWARD = np.array([1.0, 0.0, 1.0, 1.0])
Q, V = np.array([0.5, 0.25, 0.5, 0.75]), np.array([0.5, 0.5, 0.25, 0.75])


def single(ratio=RATIO, reward=REWARD, q=Q, v=V) -> OPEArrays:
    n = len(ratio)
    return OPEArrays(
        np.log(ratio)[:, None],
        reward[:, None],
        q[:, None],
        np.stack([v, np.zeros(n)], 1),
        np.ones(n, dtype=np.int64),
        np.ones(n, dtype=bool),
        np.zeros(n, dtype=bool),
        Estimand(1.0, horizon=1),
    )


def test_the_table_by_hand():
    arrays = single()
    # IPS (2 + 0 + 4 + 1) / 4; SNIPS 7 / 7.5.
    assert importance_sampling(arrays, kind="pdis").point == pytest.approx(1.75)
    assert importance_sampling(arrays, kind="pdwis").point == pytest.approx(7 / 7.5)
    # DR: V + w (r - Q) = 1.5, 0.375, 2.25, 1.
    assert doubly_robust(arrays).point == pytest.approx(5.125 / 4)
    # Switch at 3 leaves V = 0.25 of the third: 1.5, 0.375, 0.25, 1.
    switched = switch_doubly_robust(arrays, weights=WeightTransform(switch=3.0))
    assert switched.point == pytest.approx(3.125 / 4)
    # Shrinkage by lambda = 4: w' = 4 w / (w^2 + 4) = 1, 8/17, 4/5, 4/5.
    shrunk = shrunk_doubly_robust(arrays, weights=WeightTransform(shrinkage=4.0))
    expected = (0.5 + 0.5) + (0.5 - 8 / 17 * 0.25) + (0.25 + 0.8 * 0.5) + (0.75 + 0.8 * 0.25)
    assert shrunk.point == pytest.approx(expected / 4)


def test_the_candidate_with_the_least_bound_is_taken_and_its_bias_is_in_the_interval():
    ratio = np.append(np.tile(RATIO, 50), 2000.0)  # one absurd weight
    arrays = single(ratio, *(np.append(np.tile(column, 50), 0.5 * column[0]) for column in (REWARD, Q, V)))
    whole = doubly_robust(arrays)
    for estimate in (switch_doubly_robust, shrunk_doubly_robust):
        found = estimate(arrays)
        again = doubly_robust(arrays, transform=found.details["weights"])
        bias = np.abs(again.per_episode - whole.per_episode).mean() / ratio.mean()
        assert found.point == again.point
        assert found.details["bias_bound"] == pytest.approx(bias)
        assert found.se == pytest.approx(math.hypot(again.se, bias))
        assert found.se < 0.2 * whole.se
        width, own = found.ci95[1] - found.ci95[0], again.ci95[1] - again.ci95[0]
        assert width / own == pytest.approx(found.se / again.se)
    switched = switch_doubly_robust(arrays)
    for tau in (0.75, 1.5, 3.0, 5.0):
        other = doubly_robust(arrays, transform=WeightTransform(switch=tau))
        bias = np.abs(other.per_episode - whole.per_episode).mean() / ratio.mean()
        assert switched.se <= math.hypot(other.se, bias) + 1e-12


def test_of_one_step_the_per_decision_estimators_are_those_of_bandits():
    arrays = one_step(n=200)
    for sequence, whole in (("pdis", "is"), ("pdwis", "wis")):
        first, second = (importance_sampling(arrays, kind=kind) for kind in (sequence, whole))
        assert first.point == pytest.approx(second.point, rel=1e-14)
        assert first.ci95 == pytest.approx(second.ci95, rel=1e-12)
    weight, reward = np.exp(arrays.log_ratio[:, 0]), arrays.reward[:, 0]
    assert importance_sampling(arrays, kind="pdis").point == pytest.approx((weight * reward).mean())
    snips = (weight * reward).sum() / weight.sum()
    assert importance_sampling(arrays, kind="pdwis").point == pytest.approx(snips)


CONTEXTS, ARMS = 3, 4
MEAN = np.array([[0.1, 0.5, 0.3, 0.7], [0.6, 0.2, 0.4, 0.1], [0.3, 0.3, 0.8, 0.2]])
EVALUATED = np.array([[0.1, 0.1, 0.1, 0.7], [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]])
BEHAVIOUR = np.array([[0.6, 0.25, 0.1, 0.05], [0.05, 0.6, 0.25, 0.1], [0.25, 0.6, 0.05, 0.1]])
VALUE = float((EVALUATED * MEAN).sum(1).mean())


def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    context = rng.integers(CONTEXTS, size=n)
    arm = (rng.random((n, 1)) > BEHAVIOUR[context].cumsum(1)).sum(1).clip(max=ARMS - 1)
    return context, arm, (rng.random(n) < MEAN[context, arm]).astype(float)


def test_over_many_draws_bias_and_variance_are_those_of_theory():
    rng, n, draws = np.random.default_rng(0), 200, 100
    wrong = np.full((CONTEXTS, ARMS), 0.4)  # a value that knows nothing
    points: dict[str, list[float]] = {name: [] for name in ("ips", "snips", "dr", "switch_dr", "dros")}
    for _ in range(draws):
        context, arm, reward = draw(rng, n)
        ratio = EVALUATED[context, arm] / BEHAVIOUR[context, arm]
        arrays = single(ratio, reward, wrong[context, arm], (EVALUATED * wrong).sum(1)[context])
        points["ips"].append(importance_sampling(arrays, kind="pdis").point)
        points["snips"].append(importance_sampling(arrays, kind="pdwis").point)
        points["dr"].append(doubly_robust(arrays).point)
        points["switch_dr"].append(switch_doubly_robust(arrays).point)
        points["dros"].append(shrunk_doubly_robust(arrays).point)
    found = {name: np.array(values) for name, values in points.items()}
    error = {name: values.std() / math.sqrt(draws) for name, values in found.items()}
    # 1. Unbiased: IPS, and DR whatever its values.
    for name in ("ips", "dr"):
        assert abs(found[name].mean() - VALUE) < 3 * error[name]
    # 2. The exact variance of IPS: (E[w^2 r^2] - J^2) / n, rewards being 0 or 1.
    second = (EVALUATED**2 / BEHAVIOUR * MEAN).sum(1).mean()
    assert found["ips"].var() == pytest.approx((second - VALUE**2) / n, rel=0.4)
    # 3. A control variate and normalised weights save variance; weights are given up only where it pays.
    mse = {name: np.square(values - VALUE).mean() for name, values in found.items()}
    assert mse["dr"] < mse["ips"]
    assert mse["snips"] < mse["ips"]
    assert mse["switch_dr"] < 1.05 * mse["dr"]
    assert mse["dros"] < mse["dr"]


def bandit_log(n: int, seed: int = 0) -> Dataset:
    context, arm, reward = draw(np.random.default_rng(seed), n)
    see, act = np.eye(CONTEXTS, dtype=np.float32), np.eye(ARMS, dtype=np.float32)
    episodes = tuple(
        Episode(
            observations=np.stack([see[c], see[c]]),
            actions=act[a][None],
            rewards=np.array([r], dtype=np.float32),
            terminated=True,
            truncated=False,
            is_final_observation_known=False,
            behaviour_log_prob=np.log(BEHAVIOUR[c, a], dtype=np.float32)[None],
        )
        for c, a, r in zip(context, arm, reward, strict=True)
    )
    return Dataset(episodes, SpaceSpec.discrete(CONTEXTS, ARMS), DatasetInfo("bandit", max_episode_steps=1))


def test_they_answer_by_name_in_a_report_of_decisions_and_stand_aside_in_one_of_sequences():
    policy = TablePolicy(torch.tensor(EVALUATED, dtype=torch.float32))
    settings = OPESettings(stochastic=True, fqe=FQEConfig(hidden=(8,), updates=60, batch_size=64))
    report = evaluate_off_policy(policy, bandit_log(400), settings)
    points = {found.name: found for found in report.estimates}
    for name in ("ips", "snips", "dr", "switch_dr", "dros"):
        assert points[name].point == pytest.approx(VALUE, abs=4 * points[name].se)
    assert points["ips"].point == points["pdis"].point == pytest.approx(points["is"].point)
    assert points["snips"].point == points["pdwis"].point == pytest.approx(points["wis"].point)
    _, sequences, other, _ = table_log(n=20, steps=3)
    named = {found.name for found in evaluate_off_policy(other, sequences, settings).estimates}
    assert not named & {"ips", "snips"}
    assert {"switch_dr", "dros"} <= named
    with pytest.raises(EstimandError, match="Remedy: pdwis"):
        ask(context_of(other, sequences, Estimand(0.9, horizon=6)), "snips")
    assert ESTIMATORS.get("ips").is_one_step


def test_over_sequences_they_change_cumulative_weights():
    arrays = logged(n=60)
    for estimate, changed in (
        (switch_doubly_robust, WeightTransform(switch=1.5)),
        (shrunk_doubly_robust, WeightTransform(shrinkage=2.0)),
    ):
        expected = doubly_robust(arrays, transform=changed)
        assert estimate(arrays, weights=changed).point == pytest.approx(expected.point)


def test_changes_of_weights_are_read_from_text():
    assert WeightTransform.parse("") == WeightTransform()
    found = WeightTransform.parse("cap=20, clip_log_ratio=-6:2")
    assert found == WeightTransform(cap=20.0, clip_log_ratio=(-6.0, 2.0))
    with pytest.raises(ConfigError, match="switch"):
        WeightTransform.parse("swap=3")
    with pytest.raises(ConfigError, match="cap"):
        WeightTransform.parse("cap=-1")
