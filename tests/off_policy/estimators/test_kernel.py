import dataclasses

import numpy as np
import pytest
import torch
from scipy import integrate

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.core.types import SpaceSpec
from mbrl.off_policy.estimators.kernel import (
    BANDWIDTH_SENSITIVE,
    KernelConfig,
    estimate_kernel,
    kernel_mass,
    log_kernel,
    smoothed_log_prob,
)
from mbrl.off_policy.log.behaviour import BEHAVIOUR_FITTED, BehaviourCache
from mbrl.off_policy.log.behaviour_fit import BehaviourConfig
from mbrl.off_policy.value.fqe import FQEConfig
from tests.off_policy.logs import ask, context_of, generator, linear, lqg_log, table_log, unlogged
from tests.off_policy.lqg import LinearPolicy

KERNELS = ("gaussian", "epanechnikov", "triangular", "uniform")
ESTIMAND = Estimand(1.0, horizon=3)
POLICY = LinearPolicy(torch.tensor([[0.5]]), 8.0)


def estimate(dataset, policy=POLICY, estimand=ESTIMAND, **config):
    context = context_of(policy, dataset, estimand, FQEConfig())
    return estimate_kernel(context, generator=generator(), config=KernelConfig(**config))


def value_of(gain: float) -> float:
    """Three steps of the scalar task from N(1, 0.1) without noise in the action."""
    mean, square, value, closed = 1.0, 1.1, 0.0, 0.9 - 0.5 * gain
    for _ in range(3):
        value -= square * (1 + 0.1 * gain**2)
        mean, square = closed * mean, closed**2 * square + 0.01
    return value


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("act_dim", [1, 2, 3])
def test_every_kernel_is_a_density_over_the_box_also_at_its_edge(kernel, act_dim):
    """A peer divides the Gaussian of D dimensions by that of one."""
    grid = (np.arange(80) + 0.5) / 40 - 1
    action = np.stack(np.meshgrid(*[grid] * act_dim), -1).reshape(-1, act_dim)
    centre = np.broadcast_to(np.array([1.0, -0.75, 0.5])[:act_dim], action.shape)
    density = np.exp(smoothed_log_prob(action, centre, widths=np.full(act_dim, 0.25), kernel=kernel))
    assert density.sum() / 40**act_dim == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("kernel", KERNELS)
def test_masses_are_integrals(kernel):
    for low, high in ((-0.6, 0.3), (0.2, 5.0), (-9.0, -0.1)):
        x = np.linspace(low, high, 200_001)
        whole = integrate.trapezoid(np.exp(log_kernel(x, kernel)), x)
        assert kernel_mass(x[:1], x[-1:], kernel)[0] == pytest.approx(whole, abs=1e-4)


def test_it_is_the_product_of_kernels_that_defines_it():
    dataset = lqg_log(20, 3)
    rows, gain = dataset.transitions(), 0.5
    scaled = rows.action[:, 0].astype(np.float64) / 8
    h = 0.7 * scaled.std()
    distance = (scaled + gain * rows.observation[:, 0].astype(np.float64) / 8) / h
    kernel = np.exp(-0.5 * distance**2) / np.sqrt(2 * np.pi) / h
    logged = np.concatenate([e.behaviour_log_prob for e in dataset.episodes]).astype(np.float64)
    weight = np.cumprod((kernel / np.exp(logged)).reshape(20, 3), 1)
    reward = rows.reward.astype(np.float64).reshape(20, 3)
    by_hand = ((weight / weight.sum(0)) * reward).sum()
    assert estimate(dataset, bandwidth=0.7).point == pytest.approx(by_hand, rel=1e-5)


def test_it_finds_the_value_of_a_deterministic_policy():
    dataset, truth = lqg_log(2000, 3), value_of(0.5)
    found = estimate(dataset)
    assert found.valid
    assert abs(found.point - truth) < 3 * found.se
    assert abs(value_of(0.1) - truth) > 6 * found.se  # a clearly different policy is told apart
    assert found.details["bandwidths"][1]["bandwidth"] == pytest.approx(2000 ** (-1 / 5))
    widths = found.details["bandwidths"]
    assert [w["bandwidth"] / widths[1]["bandwidth"] for w in widths] == [0.5, 1.0, 2.0]
    assert widths[1]["point"] == found.point
    sizes = [w["n_eff"] for w in widths]
    assert sizes == sorted(sizes)
    half = estimate(dataset, bandwidth=widths[0]["bandwidth"])
    assert half.point == widths[0]["point"]


def test_few_effective_episodes_keep_it_out_of_verdicts():
    thin = estimate(lqg_log(40, 3))
    assert thin.n_eff < 30
    assert not thin.valid
    assert "low_ess" in thin.flags
    nothing = estimate(lqg_log(40, 3), kernel="uniform", bandwidth=1e-6)
    assert not nothing.valid
    assert "all_weights_zero" in (nothing.why_not or "")


def test_answers_that_depend_on_the_width_are_flagged():
    """Noise of 0.4 in a cheap action; a width of five deviations takes the behaviour for the policy."""
    dataset = lqg_log(1000, 3)
    far = LinearPolicy(torch.tensor([[0.9]]), 8.0)
    assert BANDWIDTH_SENSITIVE in estimate(dataset, far, bandwidth=2.0).flags


def test_units_rewards_and_order_change_nothing_that_they_should_not():
    dataset = lqg_log(60, 3)
    first = estimate(dataset)
    shuffled = dataset.select(np.random.default_rng(0).permutation(60))
    assert estimate(shuffled).point == pytest.approx(first.point, rel=1e-12)
    larger = [dataclasses.replace(e, rewards=np.float32(4) * e.rewards) for e in dataset.episodes]
    assert estimate(dataclasses.replace(dataset, episodes=tuple(larger))).point == pytest.approx(
        4 * first.point, rel=1e-12
    )
    doubled = [dataclasses.replace(e, actions=np.float32(2) * e.actions) for e in dataset.episodes]
    other_units = dataclasses.replace(
        dataset, episodes=tuple(doubled), spec=SpaceSpec(1, 1, (-16.0,), (16.0,))
    )
    policy = LinearPolicy(torch.tensor([[1.0]]), 16.0)
    assert estimate(other_units, policy).point == pytest.approx(first.point, rel=1e-9)


def test_time_outs_are_bootstrapped_with_values_of_the_policy_itself():
    dataset = lqg_log(60, 3)
    quick = FQEConfig(hidden=(4,), updates=10)
    found = ask(context_of(POLICY, dataset, Estimand(0.9), quick), "kernel")
    assert found.family == "hybrid"
    assert found.details["tail_share"] > 0


def test_a_log_without_densities_gets_a_fitted_one():
    dataset = unlogged(lqg_log(60, 3))
    cache = BehaviourCache(BehaviourConfig(family="gaussian", updates=150, hidden=(16,)))
    found = ask(context_of(POLICY, dataset, ESTIMAND, behaviour=cache), "kernel")
    assert BEHAVIOUR_FITTED in found.flags
    assert found.point == pytest.approx(estimate(lqg_log(60, 3)).point, abs=0.3)


def test_who_needs_no_kernel_is_told_what_to_use():
    with pytest.raises(EstimandError, match="pdwis"):
        estimate(lqg_log(5, 3), linear(0.5, 0.35))
    _, dataset, policy, _ = table_log(n=5)
    deterministic = LinearPolicy(torch.zeros(3, 4), 1.0)
    with pytest.raises(EstimandError, match="One-hot"):
        estimate(dataset, deterministic)
    with pytest.raises(EstimandError, match="pdwis"):
        estimate(dataset, policy)
