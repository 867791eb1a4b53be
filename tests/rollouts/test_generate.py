import dataclasses
import math

import pytest
import torch
from scipy import stats

from mbrl.core.errors import NonFiniteError
from mbrl.core.types import DynamicsPosterior, TransitionBatch
from mbrl.rollouts.generate import (
    Box,
    Imagination,
    RolloutConfig,
    Rollouts,
    generate_rollouts,
    rollout_metrics,
)

OBS_DIM, ACT_DIM = 2, 1
A = torch.tensor([[0.9, 0.2], [-0.1, 0.8]])
B = torch.tensor([[0.0], [1.0]])
GAIN = torch.tensor([[-0.3, -0.4]])


class LinearPolicy:
    """`a = K s + std * noise`."""

    act_dim = ACT_DIM

    def __init__(self, std: float = 0.0) -> None:
        self.std = std

    def act(self, obs, noise=None):
        return obs @ GAIN.T + (0.0 if noise is None else self.std * noise)


class LinearModel:
    """Member i predicts `s' = A s + B a + i * shift`, `r = s_0 + 100 i`, all with one standard deviation."""

    def __init__(self, members: int = 3, *, std: float = 0.0, shift: float = 0.0) -> None:
        self.ensemble_size, self.std, self.shift = members, std, shift

    def predict(self, obs, action):
        offset = torch.arange(self.ensemble_size, dtype=obs.dtype)[:, None]
        mean = (obs @ A.T + action @ B.T).expand(self.ensemble_size, *obs.shape) + self.shift * offset[
            ..., None
        ]
        reward = obs[:, 0] + 100 * offset
        return DynamicsPosterior(
            mean=mean,
            variance=torch.full_like(mean, self.std**2),
            reward_mean=reward,
            reward_variance=torch.full_like(reward, self.std**2),
            delta_scale=torch.ones(obs.shape[1]),
            reward_scale=torch.tensor(1.0),
        )

    def predict_member(self, obs, action, member):
        posterior, row = self.predict(obs, action), torch.arange(len(obs))
        return (
            posterior.mean[member, row],
            posterior.variance[member, row],
            posterior.reward_mean[member, row],
            posterior.reward_variance[member, row],
        )


class BrokenModel(LinearModel):
    """Returns a NaN for rows whose first coordinate is above a limit."""

    limit = 100.0
    broken_field = "mean"

    def predict(self, obs, action):
        posterior = super().predict(obs, action)
        value = getattr(posterior, self.broken_field).clone()
        value[:, obs[:, 0] > self.limit] = math.nan
        return dataclasses.replace(posterior, **{self.broken_field: value})


def never(obs, action, next_obs):
    return torch.zeros(len(obs))


def behind_wall(obs, action, next_obs):
    return (next_obs[:, 0] > 1.0).float()


def first_coordinate(posterior, context=None):
    """Uncertainty of a toy: how far member 0 predicts the first coordinate to be."""
    return posterior.mean[0, :, 0].abs()


def starts(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, OBS_DIM, generator=torch.Generator().manual_seed(seed))


def roll(
    imagination: Imagination, start: torch.Tensor, *, std: float = 0.0, seed: int = 0, **config
) -> Rollouts:
    return generate_rollouts(
        imagination,
        LinearPolicy(std),
        start,
        config=RolloutConfig(**config),
        generator=torch.Generator().manual_seed(seed),
    )


def drift(members: int = 1, **kwargs) -> LinearModel:
    """A toy that walks right by `shift` a step: `s' = s + 0.4` in the first coordinate."""

    class Drift(LinearModel):
        def predict(self, obs, action):
            posterior = super().predict(obs, action)
            mean = obs + torch.tensor([0.4, 0.0])
            noise = posterior.mean - posterior.mean[:1]
            return dataclasses.replace(posterior, mean=mean + noise)

    return Drift(members, **kwargs)


# --- what is imagined ---


def test_a_certain_linear_model_gives_matrix_powers():
    start, horizon = starts(7), 6
    rollouts = roll(Imagination(LinearModel(1), never), start, horizon=horizon)
    closed_loop = A + B @ GAIN
    for t in range(horizon):
        state = start @ torch.linalg.matrix_power(closed_loop, t).T
        torch.testing.assert_close(rollouts.observation[t], state)
        torch.testing.assert_close(rollouts.action[t], state @ GAIN.T)
        torch.testing.assert_close(rollouts.reward[t], state[:, 0])
        torch.testing.assert_close(rollouts.next_observation[t], state @ closed_loop.T)
    assert rollouts.valid.all()
    assert not rollouts.terminated.any()


def test_samples_have_the_predicted_mean_and_deviation_in_state_and_reward():
    start = torch.ones(20_000, 2)
    rollouts = roll(Imagination(LinearModel(1, std=0.5), never), start, horizon=1)
    mean = start[:1] @ (A + B @ GAIN).T
    noise = (rollouts.next_observation[0] - mean) / 0.5
    for column in (*noise.unbind(1), (rollouts.reward[0] - 1.0) / 0.5):
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    together = torch.corrcoef(torch.cat([noise.T, rollouts.reward[0][None]]))
    assert float((together - torch.eye(3)).abs().max()) < 0.03


def test_the_policy_acts_with_fresh_noise_at_every_step():
    rollouts = roll(Imagination(LinearModel(1), never), torch.zeros(5000, 2), std=1.0, horizon=2)
    noise = rollouts.action[..., 0] - (rollouts.observation @ GAIN.T)[..., 0]
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float(torch.corrcoef(noise)[0, 1])) < 0.05


def test_the_next_action_is_the_policys_at_the_successor_and_the_next_step_takes_it():
    start = starts(200)
    imagination = Imagination(
        LinearModel(2, std=0.3, shift=0.1), behind_wall, first_coordinate, threshold=1.5
    )
    rollouts = roll(imagination, start, std=0.5, horizon=4)
    goes_on = rollouts.valid[1:]
    assert 0.1 < float(goes_on.float().mean()) < 0.9  # some rows stop early, some do not
    assert torch.equal(rollouts.next_action[:-1][goes_on], rollouts.action[1:][goes_on])
    calm = roll(imagination, start, horizon=4)  # without noise the action is a function of the state
    expected = calm.next_observation @ GAIN.T
    torch.testing.assert_close(calm.next_action[calm.valid], expected[calm.valid])
    stored = calm.transitions()
    torch.testing.assert_close(stored.next_action, expected[calm.valid])
    assert stored.has_next_action.all()


def test_rows_do_not_depend_on_one_another_or_on_the_chunks():
    imagination = Imagination(
        LinearModel(3, std=0.3, shift=0.1), behind_wall, first_coordinate, threshold=1.5
    )
    start = starts(30)
    whole = roll(imagination, start, std=0.5, horizon=4, chunk=1000)
    for chunk in (1, 7, 30):
        parts = roll(imagination, start, std=0.5, horizon=4, chunk=chunk)
        for field in dataclasses.fields(Rollouts):
            torch.testing.assert_close(getattr(parts, field.name), getattr(whole, field.name))
    moved = start.clone()
    moved[5] += 10
    other = roll(imagination, moved, std=0.5, horizon=4)
    rest = torch.arange(30) != 5
    for field in dataclasses.fields(Rollouts):
        torch.testing.assert_close(getattr(other, field.name)[:, rest], getattr(whole, field.name)[:, rest])


def test_a_seed_repeats_itself_and_another_differs():
    imagination = Imagination(LinearModel(2, std=0.3), never)
    first, again, other = (roll(imagination, starts(5), horizon=3, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.next_observation, again.next_observation)
    assert not torch.isclose(first.next_observation, other.next_observation).any()


def test_the_start_states_are_not_changed():
    start = starts(5)
    before = start.clone()
    roll(Imagination(LinearModel(), behind_wall), start, horizon=3)
    assert torch.equal(start, before)


# --- members ---


def members_used(rollouts: Rollouts) -> torch.Tensor:
    return ((rollouts.reward - rollouts.observation[..., 0]) / 100).round().long()


def test_per_step_draws_a_fresh_uniform_member_for_each_row_and_step():
    rollouts = roll(Imagination(LinearModel(4), never), starts(3000), horizon=3, member_choice="per_step")
    used = members_used(rollouts)
    for step in used:
        assert stats.chisquare(torch.bincount(step, minlength=4).numpy()).pvalue > 1e-3
    pairs = torch.bincount(used[0] * 4 + used[1], minlength=16)
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3  # steps are independent


def test_per_row_keeps_one_uniform_member_for_the_whole_rollout():
    rollouts = roll(Imagination(LinearModel(4), never), starts(3000), horizon=5, member_choice="per_row")
    used = members_used(rollouts)
    assert (used == used[0]).all()
    assert stats.chisquare(torch.bincount(used[0], minlength=4).numpy()).pvalue > 1e-3


def test_without_a_measure_the_same_draws_give_the_same_rollouts():
    model = LinearModel(3, std=0.3, shift=0.2)
    config = {"horizon": 4, "std": 0.5}
    fast = roll(Imagination(model, behind_wall), starts(40), **config)
    slow = roll(Imagination(model, behind_wall, first_coordinate), starts(40), **config)
    for field in dataclasses.fields(Rollouts):
        if field.name != "uncertainty":
            torch.testing.assert_close(getattr(fast, field.name), getattr(slow, field.name))
    assert (fast.uncertainty == 0).all()
    assert (slow.uncertainty > 0).all()


# --- how rollouts end ---


def test_no_stored_step_starts_beyond_the_wall_and_termination_is_stored_once():
    start = torch.stack([torch.linspace(-2.03, 0.93, 30), torch.zeros(30)], -1)
    rollouts = roll(Imagination(drift(), behind_wall), start, horizon=6)
    stored = rollouts.transitions()
    assert (stored.observation[:, 0] <= 1.0).all()
    assert torch.equal(stored.terminated, stored.next_observation[:, 0] > 1.0)
    length = rollouts.valid.sum(0)
    expected = ((1.0 - start[:, 0]) / 0.4).floor().long() + 1  # steps until the first coordinate exceeds 1
    assert torch.equal(length, expected.clamp_max(6))
    ended = (rollouts.terminated & rollouts.valid).sum(0)
    assert torch.equal(ended, (expected <= 6).long())


def test_the_last_step_is_truncated_and_never_called_terminated():
    rollouts = roll(Imagination(LinearModel(), never), starts(8), horizon=4)
    assert not rollouts.terminated.any()
    assert rollouts.truncated[-1].all()
    assert not rollouts.truncated[:-1].any()
    ends = roll(Imagination(LinearModel(), lambda *_: torch.ones(8)), starts(8), horizon=1)
    assert ends.terminated.all()
    assert not ends.truncated.any()


def test_sampled_termination_has_the_predicted_rate_and_threshold_mode_is_sharp():
    def sometimes(obs, action, next_obs):
        return torch.full((len(obs),), 0.3)

    drawn = roll(Imagination(LinearModel(), sometimes), starts(4000), horizon=2)
    for t, alive in ((0, 4000), (1, int((~drawn.terminated[0]).sum()))):
        count = int((drawn.terminated[t] & drawn.valid[t]).sum())
        assert stats.binomtest(count, alive, 0.3).pvalue > 1e-3
    assert torch.equal(drawn.valid[1], ~drawn.terminated[0])
    for probability, ends in ((0.49, False), (0.5, True), (1.0, True), (0.0, False)):
        level = roll(
            Imagination(LinearModel(), lambda *_, p=probability: torch.full((6,), p)),
            starts(6),
            horizon=1,
            termination="threshold",
        )
        assert (level.terminated == ends).all()


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_known_rules_are_obeyed_by_sampling(probability):
    rollouts = roll(
        Imagination(LinearModel(), lambda o, *_: torch.full((len(o),), probability)), starts(5000), horizon=1
    )
    assert (rollouts.terminated == bool(probability)).all()


def flagged_toy(flagged: str, **config) -> Rollouts:
    """One row at 0 that walks by 0.4; the uncertainty |s'_0| exceeds 1 at its third step."""
    imagination = Imagination(drift(), never, first_coordinate, threshold=1.0)
    return roll(imagination, torch.zeros(1, 2), horizon=5, flagged=flagged, **config)


def test_keep_stores_the_flagged_step_as_truncated_and_stops():
    rollouts = flagged_toy("keep")
    assert rollouts.valid[:, 0].tolist() == [True, True, True, False, False]
    assert rollouts.truncated[:3, 0].tolist() == [False, False, True]
    assert not rollouts.terminated[:3].any()
    assert rollouts.flagged[:, 0].tolist() == [False, False, True, False, False]
    assert float(rollouts.reward[2, 0]) == pytest.approx(0.8)


def test_drop_stops_before_the_flagged_step():
    rollouts = flagged_toy("drop")
    assert rollouts.valid[:, 0].tolist() == [True, True, False, False, False]
    assert not rollouts.terminated[:2].any()
    assert len(rollouts.transitions()) == 2
    assert rollouts.flagged[:, 0].tolist() == [False, False, True, False, False]


def test_halt_stores_the_flagged_step_as_terminated_with_the_halt_reward():
    rollouts = flagged_toy("halt", halt_reward=-7.0)
    assert rollouts.valid[:, 0].tolist() == [True, True, True, False, False]
    assert rollouts.terminated[:3, 0].tolist() == [False, False, True]
    assert not rollouts.truncated[:3].any()
    assert [round(r, 5) for r in rollouts.reward[:3, 0].tolist()] == [0.0, 0.4, -7.0]


def test_an_uncertainty_at_the_threshold_is_not_flagged():
    model = drift()
    level = float(first_coordinate(model.predict(torch.zeros(1, 2), torch.zeros(1, 1))))
    for threshold, expected in ((level, False), (level - 1e-6, True)):
        imagination = Imagination(model, never, first_coordinate, threshold=threshold)
        assert bool(roll(imagination, torch.zeros(1, 2), horizon=1).flagged[0, 0]) is expected


def test_the_measure_sees_the_step_that_was_sampled():
    seen = []

    def spy(posterior, context):
        seen.append(context)
        return torch.zeros(len(context.obs))

    rollouts = roll(Imagination(LinearModel(2, std=0.3), never, spy), starts(4), std=0.5, horizon=2)
    for t, context in enumerate(seen):
        assert torch.equal(context.obs, rollouts.observation[t])
        assert torch.equal(context.action, rollouts.action[t])
        assert torch.equal(context.outcome, rollouts.next_observation[t])


def test_a_quantile_of_the_data_as_threshold_flags_its_complement():
    start = starts(4000)
    model = LinearModel(1)
    levels = first_coordinate(model.predict(start, start @ GAIN.T))
    threshold = float(torch.quantile(levels, 0.9))
    rollouts = roll(Imagination(model, never, first_coordinate, threshold), start, horizon=1)
    assert float(rollouts.flagged.double().mean()) == pytest.approx(0.1, abs=1e-3)
    assert torch.equal(rollouts.flagged[0], levels > threshold)


# --- clipping and broken models ---


def test_clipping_keeps_states_and_rewards_in_the_box_and_reports_its_rate():
    box = Box(torch.tensor([-5.0, -5.0]), torch.tensor([0.9, 5.0]), torch.tensor(-1.0), torch.tensor(0.5))
    with pytest.warns(RuntimeWarning, match=r"50\.0% of the imagined steps .* in observation dimension 0"):
        rollouts = roll(Imagination(drift(), never, box=box), torch.zeros(1, 2), horizon=4)
    torch.testing.assert_close(rollouts.next_observation[:, 0, 0], torch.tensor([0.4, 0.8, 0.9, 0.9]))
    torch.testing.assert_close(rollouts.observation[:, 0, 0], torch.tensor([0.0, 0.4, 0.8, 0.9]))
    torch.testing.assert_close(rollouts.reward[:, 0], torch.tensor([0.0, 0.4, 0.5, 0.5]))
    changed = [[False] * 3, [False] * 3, [True, False, True], [True, False, True]]
    assert rollouts.clipped[:, 0].tolist() == changed
    assert float(rollout_metrics(rollouts)["rollout/clip_rate"]) == pytest.approx(0.5)


def test_the_clip_rate_is_that_of_the_worst_dimension_and_counts_the_reward_and_valid_steps_only():
    box = Box(torch.full((2,), -9.0), torch.full((2,), 9.0), torch.tensor(-1.0), torch.tensor(0.3))
    start = torch.tensor([[0.0, 0.0], [0.9, 0.0]])
    with pytest.warns(RuntimeWarning, match=r"66\.7% .* in the reward"):
        rollouts = roll(Imagination(drift(), behind_wall, box=box), start, horizon=2)
    assert rollouts.valid.tolist() == [[True, True], [True, False]]
    assert float(rollout_metrics(rollouts)["rollout/clip_rate"]) == pytest.approx(2 / 3)


def test_clipping_of_up_to_a_hundredth_of_the_steps_is_no_warning():
    box = Box(torch.full((2,), -9.0), torch.full((2,), 9.0), torch.tensor(-9.0), torch.tensor(9.0))
    start = torch.zeros(200, 2)
    start[:2, 0] = 8.9
    rollouts = roll(Imagination(drift(), never, box=box), start, horizon=1)
    assert float(rollout_metrics(rollouts)["rollout/clip_rate"]) == pytest.approx(0.01)
    start[2, 0] = 8.9
    with pytest.warns(RuntimeWarning, match="1.5% of the imagined steps"):
        roll(Imagination(drift(), never, box=box), start, horizon=1)


@pytest.mark.parametrize("field", ["mean", "reward_mean"])
def test_an_infinite_sample_is_discarded_although_clipping_would_make_it_finite(field):
    class Infinite(BrokenModel):
        def predict(self, obs, action):
            posterior = super().predict(obs, action)
            value = getattr(posterior, self.broken_field).nan_to_num(math.inf)
            return dataclasses.replace(posterior, **{self.broken_field: value})

    model = Infinite(1)
    model.broken_field = field
    start = starts(2000)
    start[17, 0] = 1000.0
    box = Box(torch.full((2,), -9.0), torch.full((2,), 9.0), torch.tensor(-9.0), torch.tensor(9.0))
    rollouts = roll(Imagination(model, never, box=box), start, horizon=1)
    assert rollouts.non_finite.nonzero().tolist() == [[0, 17]]
    assert not rollouts.valid[0, 17]


@pytest.mark.parametrize("field", ["mean", "reward_mean", "variance"])
@pytest.mark.parametrize("measure", [None, first_coordinate])
def test_a_few_non_finite_rows_are_discarded_and_counted(field, measure):
    model = BrokenModel(2)
    model.broken_field = field
    start = starts(2000)
    start[17, 0] = 1000.0
    rollouts = roll(Imagination(model, never, measure), start, horizon=3)
    assert not rollouts.valid[:, 17].any()
    assert rollouts.non_finite.nonzero().tolist() == [[0, 17]]
    assert rollouts.valid.sum() == 3 * 1999
    stored = rollouts.transitions()
    for name in ("observation", "action", "reward", "next_observation"):
        assert getattr(stored, name).isfinite().all()
    assert int(rollout_metrics(rollouts)["rollout/non_finite"]) == 1
    for value in rollout_metrics(rollouts).values():
        assert value.isfinite()


def test_a_row_that_breaks_later_keeps_its_earlier_steps():
    model = BrokenModel(1)
    model.limit = 3.0
    start = torch.zeros(2000, 2)
    start[3] = torch.tensor([2.5, 10.0])  # s' = 4.25
    rollouts = roll(Imagination(model, never), start, horizon=4)
    assert rollouts.valid[:, 3].tolist() == [True, False, False, False]
    assert rollouts.non_finite[:, 3].tolist() == [False, True, False, False]


def test_an_infinite_uncertainty_is_discarded_too():
    def infinite(posterior, context):
        return torch.where(posterior.mean[0, :, 0].abs() > 100, math.inf, 0.0)

    start = starts(2000)
    start[0, 0] = 1000.0
    rollouts = roll(Imagination(LinearModel(), never, infinite, threshold=1.0), start, horizon=1)
    assert rollouts.non_finite.nonzero().tolist() == [[0, 0]]
    assert not rollouts.flagged.any()


def test_more_than_one_row_in_a_thousand_stops_the_run():
    start = starts(2000)
    start[:2, 0] = 1000.0
    roll(Imagination(BrokenModel(1), never), start, horizon=1)  # exactly one in a thousand
    start[:3, 0] = 1000.0
    with pytest.raises(NonFiniteError, match="3 of 2000 imagined rows"):
        roll(Imagination(BrokenModel(1), never), start, horizon=1)


# --- what is handed on ---


def test_transitions_are_the_valid_steps_with_the_rewards_asked_for():
    start = torch.stack([torch.tensor([0.0, 0.9]), torch.zeros(2)], -1)
    rollouts = roll(Imagination(drift(), behind_wall), start, horizon=3)
    stored = rollouts.transitions()
    torch.testing.assert_close(stored.observation[:, 0], torch.tensor([0.0, 0.9, 0.4, 0.8]))  # step by step
    torch.testing.assert_close(stored.reward, stored.observation[:, 0])
    assert stored.terminated.tolist() == [False, True, False, True]
    assert stored.from_model.all()
    penalised = rollouts.transitions(rollouts.reward - 5)
    torch.testing.assert_close(penalised.reward, stored.reward - 5)
    torch.testing.assert_close(rollouts.transitions().reward, stored.reward)  # the raw rewards are kept


@pytest.mark.parametrize(("flagged", "rate"), [("keep", 1 / 3), ("drop", 1 / 3), ("halt", 1 / 3)])
def test_metrics_by_hand(flagged, rate):
    metrics = rollout_metrics(flagged_toy(flagged, halt_reward=-7.0))
    assert float(metrics["rollout/flagged_rate"]) == pytest.approx(rate)
    stored = {"keep": [0.0, 0.4, 0.8], "drop": [0.0, 0.4], "halt": [0.0, 0.4, -7.0]}[flagged]
    assert float(metrics["rollout/length"]) == len(stored)
    assert float(metrics["rollout/reward"]) == pytest.approx(sum(stored) / len(stored))
    levels = [0.4, 0.8, 1.2][: len(stored)]
    assert float(metrics["rollout/uncertainty"]) == pytest.approx(sum(levels) / len(levels))
    ends = 1 / 3 if flagged == "halt" else 0.0
    assert float(metrics["rollout/terminated_rate"]) == pytest.approx(ends)
    assert float(metrics["rollout/non_finite"]) == 0
    edges = {
        "keep": 1 / 3,
        "drop": 1 / 2,
        "halt": 0.0,
    }  # whose successor bootstraps and starts no stored step
    assert float(metrics["rollout/edge_rate"]) == pytest.approx(edges[flagged])


@pytest.mark.parametrize("horizon", [1, 4])
def test_the_edge_is_the_last_step_of_rollouts_that_do_not_end(horizon):
    metrics = rollout_metrics(roll(Imagination(drift(), never), torch.zeros(3, 2), horizon=horizon))
    assert float(metrics["rollout/edge_rate"]) == pytest.approx(1 / horizon)
    start = torch.tensor([[0.0, 0.0], [0.9, 0.0]])  # the second ends at once, the first after two steps more
    metrics = rollout_metrics(roll(Imagination(drift(), behind_wall), start, horizon=4))
    assert float(metrics["rollout/edge_rate"]) == 0


def test_rollouts_alone_do_not_know_what_a_halt_costs():
    with pytest.raises(ValueError, match="halt_reward a number"):
        flagged_toy("halt")


def test_imagination_asks_for_no_gradient():
    weight = torch.ones(1, requires_grad=True)

    class LearnedPolicy(LinearPolicy):
        def act(self, obs, noise=None):
            return super().act(obs, noise) * weight

    rollouts = generate_rollouts(
        Imagination(LinearModel(), never),
        LearnedPolicy(),
        starts(3),
        config=RolloutConfig(horizon=2),
        generator=torch.Generator().manual_seed(0),
    )
    assert not rollouts.next_observation.requires_grad


@pytest.mark.parametrize(
    "bad",
    [{"horizon": 0}, {"starts": 0}, {"truncation_quantile": 1.5}, {"flagged": "cut"}, {"horizn": 3}]
    + [{"halt_reward": bad} for bad in (math.inf, math.nan, -1e10)],
)
def test_config_refuses_bad_values_and_unknown_keys(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RolloutConfig(**bad)


def test_a_box_around_data_leaves_room_at_both_sides_of_observations_only():
    flags = torch.zeros(2, dtype=torch.bool)
    rows = TransitionBatch(
        observation=torch.tensor([[0.0, -1.0], [1.0, 1.0]]),
        action=torch.zeros(2, 1),
        reward=torch.tensor([-3.0, 5.0]),
        next_observation=torch.tensor([[2.0, 0.0], [1.0, 0.0]]),
        terminated=flags,
        from_model=flags,
    )
    box = Box.around(rows, margin=0.25)
    torch.testing.assert_close(box.obs_low, torch.tensor([-0.5, -1.5]))
    torch.testing.assert_close(box.obs_high, torch.tensor([2.5, 1.5]))
    assert (float(box.reward_low), float(box.reward_high)) == (-3.0, 5.0)
