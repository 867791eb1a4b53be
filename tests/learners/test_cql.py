import dataclasses
import math

import pytest
import torch

from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.learners import cql
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.learners.cql import CQL, CQLConfig, Proposals
from mbrl.learners.sac import SAC, SACConfig
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.losses import critic_loss

SPACE = SpaceSpec(2, 2, (0.0, -3.0), (4.0, 1.0))
CONTEXT = LearnerContext(SPACE, Normaliser.identity(2), 100)
SMALL = {"hidden": (16,), "discount": 0.9}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def transitions(count: int = 8, seed: int = 1, *, imagined: int = 0) -> TransitionBatch:
    """The last `imagined` rows come from a model."""
    draws = generator(seed)
    return TransitionBatch(
        observation=torch.randn(count, 2, generator=draws),
        action=torch.tensor([0.0, -3.0]) + 4 * torch.rand(count, 2, generator=draws),
        reward=torch.randn(count, generator=draws),
        next_observation=torch.randn(count, 2, generator=draws),
        terminated=torch.arange(count) % 3 == 0,
        from_model=torch.arange(count) >= count - imagined,
    )


def make(seed: int = 0, **config):
    learner = CQL(CQLConfig(**{**SMALL, **config}), CONTEXT)
    return learner, learner.init(generator(seed))


def linear_critics(critic, slopes: list[float]) -> None:
    """Critic i answers `slopes[i] * a_0` (scaled) at every state."""
    with torch.no_grad():
        critic.net.flat.zero_()
        first, last = critic.net.layers(critic.net.flat)
        first.weight[:, 2, 0], first.weight[:, 2, 1] = 1.0, -1.0
        for i, slope in enumerate(slopes):
            last.weight[i, :2, 0] = torch.tensor([slope, -slope])


def constant_policy(actor, mean: tuple[float, float], log_std: float) -> None:
    with torch.no_grad():
        actor.net.flat.zero_()
        actor.net.layers(actor.net.flat)[-1].bias.copy_(torch.tensor([*mean, log_std, log_std]))


def gap_gradient(learner, state, batch, seed: int = 3) -> torch.Tensor:
    values = state.critic(batch.observation, state.critic.scale(batch.action))
    term, _ = learner._critic_regulariser(state, batch, values, generator(seed))
    (gradient,) = torch.autograd.grad(term, state.critic.net.flat)
    return gradient


@pytest.mark.parametrize("slope", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_term_of_a_linear_critic_is_the_log_of_its_integral(slope, temperature):
    """Over the box [-1, 1]^2 a value `c a_0` gives `T log(2 sinh(c / T) T / c) + T log 2`."""
    learner, state = make(conservative_actions=1000, conservative_temperature=temperature)
    linear_critics(state.critic, [slope, -slope])
    constant_policy(state.actor, (0.2, 0.0), 0.0)
    soft = learner.soft_values(state, learner.propose(state, transitions(30), generator(5))).detach()
    scaled = slope / temperature
    expected = temperature * math.log(2 * math.sinh(scaled) / scaled * 2)
    assert soft.tolist() == pytest.approx([expected, expected], abs=0.05)


def test_proposals_are_uniform_then_of_the_policy_at_s_and_at_next_s_each_with_its_own_density():
    learner, state = make(conservative_actions=4)
    batch = transitions(3)
    proposals = learner.propose(state, batch, generator(5))
    assert proposals.actions.shape == (12, 3, 2)
    assert torch.equal(proposals.obs, batch.observation)
    draws = generator(5)
    uniform = 2 * torch.rand(4, 3, 2, generator=draws) - 1
    noise = torch.randn(2, 4, 3, 2, generator=draws)
    torch.testing.assert_close(proposals.actions[:4], uniform)
    torch.testing.assert_close(proposals.log_density[:4], torch.full((4, 3), -2 * math.log(2)))
    for block, obs in ((0, batch.observation), (1, batch.next_observation)):
        for j in range(4):
            action, log_density = state.actor.sample_with_log_prob(obs, noise[block, j])
            torch.testing.assert_close(proposals.actions[4 + 4 * block + j], action.detach())
            torch.testing.assert_close(proposals.log_density[4 + 4 * block + j], log_density.detach())
    assert not proposals.actions.requires_grad
    assert not proposals.log_density.requires_grad


def test_uniform_proposals_fill_the_box_of_each_dimension():
    learner, state = make(conservative_actions=500)
    scaled = learner.propose(state, transitions(4), generator(5)).actions[:500]
    action = state.actor.unscale(scaled).flatten(0, 1)
    torch.testing.assert_close(action.amin(0), torch.tensor([0.0, -3.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(action.amax(0), torch.tensor([4.0, 1.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(action.mean(0), torch.tensor([2.0, -1.0]), atol=0.1, rtol=0)


def test_there_is_one_term_for_each_state_and_it_runs_over_thirty_actions(monkeypatch):
    learner, state = make(conservative_temperature=0.7)
    batch = transitions(5)
    proposals = learner.propose(state, batch, generator(5))
    assert proposals.actions.shape[0] == 30
    expected = torch.zeros(2)
    for row in range(5):
        terms = [
            state.critic(batch.observation[row : row + 1], proposals.actions[j, row : row + 1]).detach()[:, 0]
            / 0.7
            - proposals.log_density[j, row]
            for j in range(30)
        ]
        expected += 0.7 * (torch.stack(terms).exp().mean(0)).log() / 5
    torch.testing.assert_close(learner.soft_values(state, proposals).detach(), expected)
    monkeypatch.setattr(cql, "_CHUNK_ROWS", 60)  # chunks of two states, the last of one
    torch.testing.assert_close(learner.soft_values(state, proposals).detach(), expected)


@pytest.mark.parametrize("estimator", ["importance", "unweighted"])
def test_chunks_change_neither_the_term_nor_its_gradient(estimator, monkeypatch):
    learner, state = make(estimator=estimator, conservative_actions=3)
    batch = transitions(7, imagined=2)
    whole = gap_gradient(learner, state, batch)
    monkeypatch.setattr(cql, "_CHUNK_ROWS", 27)
    torch.testing.assert_close(gap_gradient(learner, state, batch), whole)


def test_raising_a_critic_at_any_sampled_action_raises_the_term():
    """The gradient with respect to each sampled value is its softmax weight: positive, one in sum."""
    learner, state = make(conservative_actions=3)
    proposals = learner.propose(state, transitions(2), generator(5))
    before = learner.soft_values(state, proposals).detach()
    for j in range(9):
        bumped = proposals.log_density.clone()
        bumped[j] -= 0.5  # the same as raising Q there by 0.5, at T = 1
        after = learner.soft_values(state, Proposals(proposals.obs, proposals.actions, bumped)).detach()
        assert (after > before).all()
    (gradient,) = torch.autograd.grad(learner.soft_values(state, proposals).sum(), state.critic.net.flat)
    bias = state.critic.net.layers(gradient)[-1].bias.flatten()
    torch.testing.assert_close(bias, torch.ones(2))


def test_the_critic_descends_bellman_error_plus_weighted_gap():
    batch = transitions()
    learner, state = make(conservative_weight=3.0)
    noise = torch.randn(2, 8, 2, generator=generator(3))
    target = learner.critic_target(state, batch, noise[0], torch.tensor(1.0))
    draws = generator(3)
    torch.randn(2, 8, 2, generator=draws)  # what the target and the actor use
    values = state.critic(batch.observation, state.critic.scale(batch.action))
    soft = learner.soft_values(state, learner.propose(state, batch, draws))
    loss = critic_loss(values, target) + 3.0 * (soft - values.mean(1)).sum()
    (gradient,) = torch.autograd.grad(loss, state.critic.net.flat)
    before = state.critic.net.flat.detach().clone()
    metrics = learner.update(state, batch, generator(3))
    moved = state.critic.net.flat.detach() - before
    clear = gradient.abs() > 1e-5
    assert torch.equal(moved[clear].sign(), -gradient[clear].sign())
    expected = float((soft - values.mean(1)).mean().detach())
    assert float(metrics["critic/conservative_gap"]) == pytest.approx(expected, rel=1e-5)


def test_without_weight_it_is_soft_actor_critic():
    learner, state = make(conservative_weight=0.0, actor_learning_rate=3e-4)
    sac = SAC(SACConfig(**SMALL, has_entropy_backup=False), CONTEXT)
    twin = sac.init(generator(0))
    for step in range(3):
        learner.update(state, transitions(seed=step), generator(step))
        sac.update(twin, transitions(seed=step), generator(step))
    torch.testing.assert_close(state.critic.net.flat, twin.critic.net.flat)
    torch.testing.assert_close(state.actor.net.flat, twin.actor.net.flat)


@pytest.mark.parametrize("imagined", [0, 3])
def test_only_real_rows_are_held_up(imagined):
    """Critic `c a_0`: the derivative of the data term in c is minus the mean of a_0 over real rows."""
    learner, state = make(conservative_weight=1.0)
    linear_critics(state.critic, [0.0, 0.0])
    batch = transitions(8, imagined=imagined)
    values = state.critic(batch.observation, state.critic.scale(batch.action))
    soft = learner.soft_values(state, learner.propose(state, batch, generator(3)))
    total, _ = learner._critic_regulariser(state, batch, values, generator(3))
    (both,) = torch.autograd.grad(total, state.critic.net.flat, retain_graph=True)
    (pressed,) = torch.autograd.grad(soft.sum(), state.critic.net.flat)
    held = state.critic.net.layers(both - pressed)[-1].weight[0, :2, 0]
    scaled = state.critic.scale(batch.action)[: 8 - imagined, 0]
    expected = torch.stack([-scaled.clamp_min(0).mean(), -(-scaled).clamp_min(0).mean()])
    torch.testing.assert_close(held, expected)


def test_imagined_states_alone_are_pressed_down_where_there_are_any():
    learner, state = make(conservative_states="imagined")
    mixed = transitions(8, imagined=3)
    assert torch.equal(learner.propose(state, mixed, generator()).obs, mixed.observation[5:])
    plain, twin = make(conservative_states="all")
    assert torch.equal(plain.propose(twin, mixed, generator()).obs, mixed.observation)
    real = transitions(8)  # none imagined: plain CQL, instead of holding up without pressing down
    assert torch.equal(gap_gradient(learner, state, real), gap_gradient(plain, twin, real))


@pytest.mark.parametrize("states", ["all", "imagined"])
@pytest.mark.parametrize("imagined", [0, 8])
def test_batches_of_one_kind_make_no_nan(states, imagined):
    learner, state = make(conservative_states=states)
    metrics = learner.update(state, transitions(8, imagined=imagined), generator())
    assert all(bool(value.isfinite()) for value in metrics.values())
    assert bool(state.critic.net.flat.isfinite().all())


def test_the_share_of_imagined_rows_does_not_scale_the_terms():
    """The same rows twice, once more marked as imagined: real rows keep their mean, all states theirs."""
    _, state = make()
    linear_critics(state.critic, [1.0, 1.0])
    one = transitions(8)
    fields = {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}
    twice = TransitionBatch(**{k: torch.cat([v, v]) for k, v in fields.items() if v is not None})
    twice = dataclasses.replace(twice, from_model=torch.arange(16) >= 8)
    gaps = []
    for batch in (one, twice):
        values = state.critic(batch.observation, state.critic.scale(batch.action))
        learner_many = CQL(CQLConfig(**SMALL, conservative_actions=1000), CONTEXT)
        gaps.append(float(learner_many._critic_regulariser(state, batch, values, generator())[0].detach()))
    assert gaps[0] == pytest.approx(gaps[1], abs=0.5)
    assert abs(gaps[0]) > 1.0


@pytest.mark.parametrize(("gap", "rises"), [(-100.0, True), (100.0, False)])
def test_the_lagrange_factor_rises_while_the_gap_is_too_large(gap, rises):
    learner, state = make(lagrange_gap=gap, lagrange_factor=2.0, lagrange_learning_rate=0.1)
    metrics = learner.update(state, transitions(), generator())
    assert float(metrics["critic/lagrange_factor"]) == pytest.approx(2.0)  # that of this update
    assert (float(state.log_lagrange_factor.detach().exp()) > 2.0) is rises


def test_a_lagrange_factor_at_its_cap_falls_as_soon_as_the_gap_is_small():
    learner, state = make(lagrange_gap=1.0, lagrange_factor=1e6, lagrange_learning_rate=0.1)
    cap = math.log(1e6)
    for _ in range(3):
        learner._update_lagrange_factor(state, torch.tensor(2.0), 1.0)  # it would rise, and is held
        assert float(state.log_lagrange_factor.detach()) == pytest.approx(cap)
    for _ in range(5):
        learner._update_lagrange_factor(state, torch.tensor(-20.0), 1.0)
    assert float(state.log_lagrange_factor.detach()) < cap - 0.2


def test_the_lagrange_factor_multiplies_the_weight_and_its_loss_is_that_of_the_definition():
    batch = transitions()
    learner, state = make(lagrange_gap=0.5, lagrange_factor=2.0, conservative_weight=3.0)
    plain, twin = make(conservative_weight=6.0)
    gradient = gap_gradient(learner, state, batch)
    torch.testing.assert_close(gradient, gap_gradient(plain, twin, batch))
    state.log_lagrange_factor.grad = None
    with torch.no_grad():
        state.log_lagrange_factor.fill_(math.log(2.0))
    learner._update_lagrange_factor(state, torch.tensor(4.0), 0.5)
    assert float(state.log_lagrange_factor.grad) == pytest.approx(-2.0 * 3.0 * (4.0 - 0.5), rel=1e-5)


def test_without_a_gap_the_factor_is_left_alone():
    learner, state = make()
    assert "critic/lagrange_factor" not in learner.update(state, transitions(), generator())
    assert float(state.log_lagrange_factor.detach()) == 0.0


@pytest.mark.parametrize("form", ["max_of_min", "min_of_max"])
def test_targets_that_take_the_best_action_by_hand(form):
    """Critics a_0 and -a_0 at three actions: max of min is -min |a_0|, min of max min(max, -min)."""
    learner, state = make(target=form, target_actions=3)
    linear_critics(state.target_critic, [1.0, -1.0])
    linear_critics(state.critic, [50.0, 50.0])
    constant_policy(state.actor, (0.0, 0.0), 0.0)
    x = torch.tensor([0.5, -0.2, 0.9])
    noise = torch.stack([x, torch.zeros(3)], -1)[:, None].expand(3, 2, 2)
    batch = dataclasses.replace(
        transitions(2), reward=torch.tensor([1.0, 2.0]), terminated=torch.tensor([False, True])
    )
    target = learner.critic_target(state, batch, noise, torch.tensor(0.3))
    best = -math.tanh(0.2) if form == "max_of_min" else min(math.tanh(0.9), math.tanh(0.2))
    assert target.tolist() == pytest.approx([1 + 0.9 * best, 2.0], rel=1e-5)
    assert not target.requires_grad
    learner.update(state, batch, generator())


def test_the_backup_is_deterministic_unless_told_otherwise():
    batch = dataclasses.replace(transitions(1), terminated=torch.tensor([False]))
    targets = {}
    for has_entropy in (False, True):
        learner, state = make(has_entropy_backup=has_entropy)
        constant_policy(state.actor, (0.0, 0.0), 0.0)
        targets[has_entropy] = float(
            learner.critic_target(state, batch, torch.zeros(1, 2), torch.tensor(0.5))
        )
    log_density = -math.log(2 * math.pi)  # of two standard normals at 0, where tanh has slope 1
    assert targets[True] - targets[False] == pytest.approx(-0.9 * 0.5 * log_density, rel=1e-5)
    assert CQLConfig().has_entropy_backup is False


def test_next_value_is_the_least_target_critic_at_the_sampled_action_without_entropy():
    learner, state = make(has_entropy_backup=True)
    linear_critics(state.target_critic, [1.0, 3.0])
    constant_policy(state.actor, (0.2, 0.0), -1.0)
    value = learner.next_value(state, torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [-2.0, 0.0]]))
    up, down = math.tanh(0.2 + math.exp(-1)), math.tanh(0.2 - 2 * math.exp(-1))
    assert value.tolist() == pytest.approx([up, 3 * down], rel=1e-5)
    assert not value.requires_grad


def test_unweighted_adds_the_logged_action_and_no_density():
    learner, state = make(estimator="unweighted", conservative_actions=2)
    batch = transitions(3)
    proposals = learner.propose(state, batch, generator(5))
    assert proposals.log_density is None
    assert proposals.actions.shape[0] == 7
    torch.testing.assert_close(proposals.actions[-1], state.critic.scale(batch.action))
    values = state.critic.at_actions(batch.observation, proposals.actions).detach()
    torch.testing.assert_close(
        learner.soft_values(state, proposals).detach(), values.exp().sum(1).log().mean(1)
    )


@pytest.mark.slow
def test_it_stays_inside_the_logged_actions_of_a_bandit_whose_reward_rises_to_their_edge():
    """Reward a_0 on logged a_0 in [0.4, 1.8] of a box up to 4: to extrapolate is to go to 4.

    The conservative policy stays near the logged range, and its value near the best logged reward.
    """
    config = CQLConfig(
        hidden=(32, 32),
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        conservative_actions=4,
        conservative_weight=1.0,
        entropy_coef=0.05,
        entropy_coef_learning_rate=0.0,
    )
    learner = CQL(config, CONTEXT)
    state, draws = learner.init(generator()), generator(1)
    for _ in range(400):
        first = 0.4 + 1.4 * torch.rand(64, generator=draws)
        obs = torch.randn(64, 2, generator=draws)
        batch = TransitionBatch(
            observation=obs,
            action=torch.stack([first, torch.full((64,), -1.0)], 1),
            reward=first,  # rises towards the edge of the data: extrapolation would go on to 4
            next_observation=obs,
            terminated=torch.ones(64, dtype=torch.bool),
            from_model=torch.zeros(64, dtype=torch.bool),
        )
        learner.update(state, batch, draws)
    obs = torch.randn(100, 2, generator=draws)
    action = learner.policy(state).act(obs)
    assert 1.0 < float(action[:, 0].mean()) < 2.2
    assert float(action[:, 1].mean()) == pytest.approx(-1.0, abs=0.5)
    assert float(learner.value(state).value(obs).mean()) < 2.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"target": "max_of_min", "has_entropy_backup": True}, "has no entropy"),
        ({"target": "max"}, "target"),
        ({"conservative_temperature": 0.0}, "conservative_temperature"),
        ({"conservative_states": "real"}, "conservative_states"),
        ({"conservative_wieght": 1.0}, "conservative_wieght"),
        ({"target_actions": 1}, "target_actions"),
        ({"estimator": True}, "estimator"),
        ({"entropy_coef": 1.0, "max_entropy_coef": 0.5}, "above max_entropy_coef"),
    ],
)
def test_contradictions_unknown_keys_and_bad_values_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        CQLConfig(**bad)


def test_it_is_registered():
    assert LEARNERS.get("cql") is CQL
