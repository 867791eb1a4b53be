import dataclasses

import pytest
import torch
from scipy import stats

from mbrl.rollouts.box import Box
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Imagination, generate_rollouts
from mbrl.rollouts.steps import Rollouts
from tests.rollouts.toy import (
    GAIN,
    A,
    B,
    LinearModel,
    LinearPolicy,
    behind_wall,
    drift,
    first_coordinate,
    flagged_toy,
    never,
    roll,
    starts,
)

# --- what is imagined ---


def far(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
    return 100.0 * next_obs[:, 1] + 10.0 * obs[:, 0] + action[:, 0]


def test_a_known_reward_is_that_of_the_step_as_it_is_stored():
    box = Box(
        torch.full((2,), -0.3),
        torch.full((2,), 0.3),
        torch.tensor(0.0),
        torch.tensor(0.1),
        torch.ones(3, dtype=torch.bool),
    )
    imagination = Imagination(LinearModel(2, std=0.5), never, box=box, reward=far)
    with pytest.warns(RuntimeWarning, match="observation dimension"):
        rollouts = roll(imagination, starts(50), horizon=3)
    wanted = far(
        rollouts.observation.flatten(0, 1),
        rollouts.action.flatten(0, 1),
        rollouts.next_observation.flatten(0, 1),
    )
    assert torch.equal(rollouts.reward.flatten(), wanted)
    assert float(rollouts.reward.abs().max()) > 1.0  # no range of logged rewards limits what is known
    assert float(rollouts.next_observation.abs().max()) == pytest.approx(0.3)
    assert not rollouts.clipped[..., -1].any()


def test_a_reward_that_is_no_number_ends_its_row():
    def broken(obs: torch.Tensor, action: torch.Tensor, next_obs: torch.Tensor) -> torch.Tensor:
        del action
        return torch.where(obs[:, 0] == 0.5, torch.nan, next_obs[:, 0])

    start = starts(3000)
    start[7, 0] = 0.5
    rollouts = roll(Imagination(LinearModel(2, std=0.5), never, reward=broken), start, horizon=2)
    assert not rollouts.valid[:, 7].any()
    assert rollouts.valid.sum() == 2 * 2999
    assert rollouts.non_finite[:, 7].tolist() == [True, False]


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
