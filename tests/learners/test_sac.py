import dataclasses
import math

import pytest
import torch

from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.learners.base import LEARNERS
from mbrl.learners.sac import SAC, SACConfig
from mbrl.ops.losses import critic_diversity, critic_loss
from tests.learners.twin import CONTEXT, generator, transitions

SMALL = {"hidden": (16,), "discount": 0.9}


def make(seed: int = 0, **config):
    learner = SAC(SACConfig(**{**SMALL, **config}), CONTEXT)
    return learner, learner.init(generator(seed))


def constant_output(critic, values: list[float]) -> None:
    """Makes critic i answer `values[i]` everywhere."""
    with torch.no_grad():
        critic.net.flat.zero_()
        critic.net.layers(critic.net.flat)[-1].bias.copy_(torch.tensor(values)[:, None, None])


def constant_policy(actor, mean: float, log_std: float) -> None:
    with torch.no_grad():
        actor.net.flat.zero_()
        actor.net.layers(actor.net.flat)[-1].bias.copy_(torch.tensor([mean, log_std]))


def log_density(x: float, mean: float, log_std: float) -> float:
    normal = -0.5 * ((x - mean) / math.exp(log_std)) ** 2 - log_std - 0.5 * math.log(2 * math.pi)
    return normal - math.log(1 - math.tanh(x) ** 2)


@pytest.mark.parametrize("has_entropy", [True, False])
def test_critic_target_by_hand(has_entropy):
    learner, state = make(critics=3, has_entropy_backup=has_entropy)
    constant_output(state.target_critic, [5.0, 3.0, 4.0])  # the least target critic counts
    constant_output(state.critic, [100.0, 100.0, 100.0])  # the online critics do not
    constant_policy(state.actor, 0.2, -1.0)
    noise = torch.tensor([[0.5], [-1.0]])
    batch = dataclasses.replace(
        transitions(2), reward=torch.tensor([1.0, 2.0]), terminated=torch.tensor([False, True])
    )
    target = learner.critic_target(state, batch, noise, torch.tensor(0.3))
    x = 0.2 + math.exp(-1.0) * 0.5
    entropy_term = 0.3 * log_density(x, 0.2, -1.0) if has_entropy else 0.0
    assert target.tolist() == pytest.approx([1 + 0.9 * (3 - entropy_term), 2.0], rel=1e-5)
    assert not target.requires_grad


def test_entropy_in_the_backup_raises_the_target_of_a_wide_policy_and_lowers_that_of_a_narrow_one():
    for log_std, direction in ((0.0, 1), (-4.0, -1)):
        targets = {}
        for has_entropy in (True, False):
            learner, state = make(has_entropy_backup=has_entropy)
            constant_policy(state.actor, 0.0, log_std)
            batch = dataclasses.replace(transitions(1), terminated=torch.tensor([False]))
            targets[has_entropy] = float(
                learner.critic_target(state, batch, torch.zeros(1, 1), torch.tensor(0.5))
            )
        assert (targets[True] - targets[False]) * direction > 0


def flat_tensors(state) -> dict[str, torch.Tensor]:
    return {
        "actor": state.actor.net.flat.detach().clone(),
        "critic": state.critic.net.flat.detach().clone(),
        "target": state.target_critic.net.flat.detach().clone(),
        "temperature": state.log_entropy_coef.detach().clone(),
    }


def test_one_update_changes_the_state_and_nothing_else():
    learner, state = make()
    batch = transitions()
    copies = {
        f.name: getattr(batch, f.name).clone()
        for f in dataclasses.fields(batch)
        if getattr(batch, f.name) is not None
    }
    config, before = learner.config, flat_tensors(state)
    metrics = learner.update(state, batch, generator(3))
    after = flat_tensors(state)
    for name, value in before.items():
        assert not torch.equal(after[name], value), name
    for name, value in copies.items():
        assert torch.equal(getattr(batch, name), value)
    assert learner.config == config
    assert state.target_critic.net.flat.grad is None
    assert all(value.dim() == 0 and not value.requires_grad for value in metrics.values())
    assert not any(CONTEXT.normaliser is m for m in (state.actor.normaliser, state.critic.normaliser))


def test_targets_move_by_tau_towards_the_updated_critics():
    learner, state = make(polyak_tau=0.25)
    before = flat_tensors(state)
    learner.update(state, transitions(), generator(3))
    after = flat_tensors(state)
    torch.testing.assert_close(after["target"], 0.75 * before["target"] + 0.25 * after["critic"])


def test_critics_and_targets_start_equal_and_members_differ():
    _, state = make(critics=5)
    assert torch.equal(state.critic.net.flat.detach(), state.target_critic.net.flat)
    values = state.critic(torch.zeros(1, 2), torch.zeros(1, 1))[:, 0]
    assert len(set(values.tolist())) == 5


def test_a_critic_trains_in_a_stack_exactly_as_it_would_alone():
    """Fixed targets: terminal rows, so that members can meet only in the loss and in the optimiser."""
    rows = [
        dataclasses.replace(transitions(32, seed), terminated=torch.ones(32, dtype=torch.bool))
        for seed in range(5)
    ]
    learner, together = make(critics=3)
    alone_learner = SAC(SACConfig(**SMALL, critics=1), CONTEXT)
    for member in range(3):
        alone = alone_learner.init(generator(9))
        with torch.no_grad():
            alone.critic.net.flat.copy_(together.critic.net.flat[member : member + 1])
        fresh = learner.init(generator(0))
        for batch in rows:
            learner.update(fresh, batch, generator(4))
            alone_learner.update(alone, batch, generator(4))
        torch.testing.assert_close(fresh.critic.net.flat[member], alone.critic.net.flat[0])


def test_the_critic_loss_is_reported_as_defined_with_and_without_diversity():
    batch = transitions()
    for eta in (0.0, 2.0):
        learner, state = make(critics=3, diversity_coef=eta)
        noise = torch.randn(2, 8, 1, generator=generator(3))
        coef = state.log_entropy_coef.detach().exp()
        target = learner.critic_target(state, batch, noise[0], coef)
        scaled = (batch.action - 2) / 2
        expected = critic_loss(state.critic(batch.observation, scaled), target)
        spread = critic_diversity(state.critic.action_gradients(batch.observation, scaled))
        before = state.critic.net.flat.detach().clone()
        (gradient,) = torch.autograd.grad(expected + eta * spread, state.critic.net.flat)
        metrics = learner.update(state, batch, generator(3))
        assert float(metrics["critic/loss"]) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert ("critic/diversity" in metrics) is (eta > 0)
        # the first Adam step has the sign of the gradient
        moved = state.critic.net.flat.detach() - before
        clear = gradient.abs() > 1e-5
        assert torch.equal(moved[clear].sign(), -gradient[clear].sign())


@pytest.mark.parametrize(("start", "slopes", "rises"), [(-0.3, (1.0, 3.0), True), (0.3, (-1.0, 5.0), False)])
def test_the_actor_climbs_the_least_critic(start, slopes, rises):
    """Critic i is `slopes[i] * a`; in the second case the least falls although the mean of both rises."""
    learner, state = make(entropy_coef=1e-6, entropy_coef_learning_rate=0.0, actor_learning_rate=0.02)
    constant_policy(state.actor, start, -5.0)
    with torch.no_grad():
        state.critic.net.flat.zero_()
        first, last = state.critic.net.layers(state.critic.net.flat)
        first.weight[:, 2, 0], first.weight[:, 2, 1] = 1.0, -1.0  # relu(a), relu(-a)
        for i, slope in enumerate(slopes):
            last.weight[i, :2, 0] = torch.tensor([slope, -slope])
    obs = transitions().observation
    for _ in range(3):
        learner._update_actor(state, obs, torch.zeros(8, 1), torch.tensor(1e-6))
    assert (float(state.actor.moments(obs)[0].mean().detach()) > start) is rises


@pytest.mark.parametrize(("log_std", "rises"), [(-5.0, True), (0.0, False)])
def test_the_temperature_rises_for_a_narrow_policy_and_falls_for_a_wide_one(log_std, rises):
    learner, state = make(entropy_coef=0.5)
    constant_policy(state.actor, 0.0, log_std)
    learner.update(state, transitions(64), generator(3))
    assert (float(state.log_entropy_coef.detach().exp()) > 0.5) is rises


def test_the_target_entropy_defaults_to_minus_the_action_dimensions():
    assert SAC(SACConfig(), CONTEXT).target_entropy == -1.0
    wide = dataclasses.replace(CONTEXT, space=SpaceSpec(2, 3, (-1.0,) * 3, (1.0,) * 3))
    assert SAC(SACConfig(), wide).target_entropy == -3.0
    assert SAC(SACConfig(target_entropy=-0.5), wide).target_entropy == -0.5


def test_the_cap_of_the_temperature_holds_and_a_rate_of_zero_fixes_it():
    learner, state = make(entropy_coef=0.99, max_entropy_coef=1.0, entropy_coef_learning_rate=0.5)
    fixed_learner, fixed = make(entropy_coef=0.2, entropy_coef_learning_rate=0.0)
    for step in range(4):
        constant_policy(state.actor, 0.0, -5.0)  # far too narrow: asks for more and more
        learner.update(state, transitions(), generator(step))
        assert float(state.log_entropy_coef.detach().exp()) <= 1.0 + 1e-6
        metrics = fixed_learner.update(fixed, transitions(), generator(step))
        assert float(metrics["policy/entropy_coef"]) == pytest.approx(0.2)
    assert float(state.log_entropy_coef.detach().exp()) == pytest.approx(1.0)
    assert float(fixed.log_entropy_coef.detach().exp()) == pytest.approx(0.2)


def test_a_cosine_schedule_freezes_the_actor_alone_at_the_end():
    context = dataclasses.replace(CONTEXT, total_updates=2)
    learner = SAC(SACConfig(**SMALL, actor_schedule="cosine"), context)
    state = learner.init(generator())
    for step in range(2):
        learner.update(state, transitions(), generator(step))
    before = flat_tensors(state)
    learner.update(state, transitions(), generator(2))
    after = flat_tensors(state)
    assert torch.equal(after["actor"], before["actor"])
    assert not torch.equal(after["critic"], before["critic"])


def test_the_same_seed_gives_the_same_bits_and_a_restored_state_too():
    learner, first = make(critics=3, diversity_coef=0.5, critic_layer_norm=True)
    second, third = learner.init(generator(0)), learner.init(generator(8))
    for step in range(3):
        learner.update(first, transitions(seed=step), generator(step))
        learner.update(second, transitions(seed=step), generator(step))
    third.load_state_dict(first.state_dict())
    for step in range(3, 6):
        for state in (first, second, third):
            learner.update(state, transitions(seed=step), generator(step))
    for other in (second, third):
        for name, value in flat_tensors(first).items():
            assert torch.equal(flat_tensors(other)[name], value), name


def test_values_are_the_least_online_critic_at_the_deterministic_action_in_environment_units():
    learner, state = make(critics=3)
    value, obs = learner.value(state), transitions().observation
    action = learner.policy(state).act(obs)
    expected = state.critic(obs, (action - 2) / 2).amin(0)
    torch.testing.assert_close(value.value(obs), expected.detach())
    torch.testing.assert_close(value.action_value(obs, action), expected.detach())
    assert not value.value(obs).requires_grad


def loop_value(*, terminated: bool, discount: float = 0.8, updates: int = 120) -> float:
    """Learned value of a state with reward 1 that leads to itself, or ends at once."""
    config = SACConfig(
        discount=discount,
        hidden=(8,),
        critic_learning_rate=0.05,
        polyak_tau=0.5,
        has_entropy_backup=False,
        entropy_coef_learning_rate=0.0,
        entropy_coef=0.01,
    )
    learner = SAC(config, CONTEXT)
    state = learner.init(generator())
    draws = generator(1)
    for _ in range(updates):
        batch = TransitionBatch(
            observation=torch.zeros(16, 2),
            action=4 * torch.rand(16, 1, generator=draws),
            reward=torch.ones(16),
            next_observation=torch.zeros(16, 2),
            terminated=torch.full((16,), terminated),
            from_model=torch.zeros(16, dtype=torch.bool),
        )
        learner.update(state, batch, draws)
    return float(learner.value(state).value(torch.zeros(1, 2)))


def test_reward_one_for_ever_is_worth_the_geometric_sum_and_one_step_is_worth_one():
    assert loop_value(terminated=False) == pytest.approx(1 / (1 - 0.8), rel=0.05)
    assert loop_value(terminated=True, updates=60) == pytest.approx(1.0, abs=0.05)


@pytest.mark.slow
def test_the_best_action_of_a_contextual_bandit_is_found():
    """Reward `-(a - 2 - s_0)^2` on the box [0, 4]: the optimum is known for every state."""
    config = SACConfig(
        hidden=(32,),
        actor_learning_rate=1e-2,
        critic_learning_rate=1e-2,
        entropy_coef=0.1,
        entropy_coef_learning_rate=1e-2,
        target_entropy=-3.0,
    )
    learner = SAC(config, CONTEXT)
    state, draws = learner.init(generator()), generator(1)
    for _ in range(500):
        obs = 2 * torch.rand(64, 2, generator=draws) - 1
        action = 4 * torch.rand(64, 1, generator=draws)
        batch = TransitionBatch(
            observation=obs,
            action=action,
            reward=-((action[:, 0] - 2 - obs[:, 0]) ** 2),
            next_observation=obs,
            terminated=torch.ones(64, dtype=torch.bool),
            from_model=torch.zeros(64, dtype=torch.bool),
        )
        learner.update(state, batch, draws)
    obs = 1.6 * torch.rand(200, 2, generator=draws) - 0.8
    error = learner.policy(state).act(obs)[:, 0] - 2 - obs[:, 0]
    assert float(error.square().mean().sqrt()) < 0.2  # acting at random: 1.4
    assert float(learner.value(state).value(obs).mean()) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"diversity_coef": 1.0, "critics": 1}, "needs critics >= 2"),
        ({"entropy_coef": 1.0, "max_entropy_coef": 0.5}, "above max_entropy_coef"),
        ({"log_std_bounds": (2.0, -5.0)}, "low < high"),
        ({"critics": 0}, "critics"),
        ({"discont": 0.9}, "discont"),
        ({"has_entropy_backup": "perhaps"}, "has_entropy_backup"),
    ],
)
def test_contradictions_unknown_keys_and_bad_values_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        SACConfig(**bad)


def test_it_is_registered():
    assert LEARNERS.get("sac") is SAC
