import dataclasses
import math

import pytest
import torch

from mbrl.core.errors import NonFiniteError
from mbrl.core.types import TransitionBatch
from mbrl.rollouts.box import Box
from mbrl.rollouts.generate import Imagination
from mbrl.rollouts.steps import rollout_metrics
from tests.rollouts.toy import (
    BrokenModel,
    LinearModel,
    behind_wall,
    drift,
    first_coordinate,
    flagged_toy,
    never,
    roll,
    starts,
)

# --- clipping and broken models ---


def test_clipping_keeps_states_and_rewards_in_the_box_and_reports_its_rate():
    low, high, varies = torch.tensor([-5.0, -5.0]), torch.tensor([0.9, 5.0]), torch.ones(3, dtype=torch.bool)
    box = Box(low, high, torch.tensor(-1.0), torch.tensor(0.5), varies)
    with pytest.warns(RuntimeWarning, match=r"50\.0% of the imagined steps .* in observation dimension 0"):
        rollouts = roll(Imagination(drift(), never, box=box), torch.zeros(1, 2), horizon=4)
    torch.testing.assert_close(rollouts.next_observation[:, 0, 0], torch.tensor([0.4, 0.8, 0.9, 0.9]))
    torch.testing.assert_close(rollouts.observation[:, 0, 0], torch.tensor([0.0, 0.4, 0.8, 0.9]))
    torch.testing.assert_close(rollouts.reward[:, 0], torch.tensor([0.0, 0.4, 0.5, 0.5]))
    changed = [[False] * 3, [False] * 3, [True, False, True], [True, False, True]]
    assert rollouts.clipped[:, 0].tolist() == changed
    assert float(rollout_metrics(rollouts)["rollout/clip_rate"]) == pytest.approx(0.5)


def test_a_constant_is_clipped_without_a_count():
    """The model's noise around a constant of the data made every step one that had left the data."""
    rows = torch.tensor([[-5.0, 0.0], [5.0, 0.0]])
    flags = torch.zeros(2, dtype=torch.bool)
    box = Box.around(TransitionBatch(rows, torch.zeros(2, 1), torch.tensor([-9.0, 9.0]), rows, flags, flags))
    rollouts = roll(Imagination(drift(std=0.01), never, box=box), torch.zeros(50, 2), horizon=4)
    assert bool((rollouts.next_observation[..., 1] == 0).all())
    assert float(rollout_metrics(rollouts)["rollout/clip_rate"]) == 0.0


def test_the_clip_rate_is_that_of_the_worst_dimension_and_counts_the_reward_and_valid_steps_only():
    box = Box(
        torch.full((2,), -9.0),
        torch.full((2,), 9.0),
        torch.tensor(-1.0),
        torch.tensor(0.3),
        torch.ones(3, dtype=torch.bool),
    )
    start = torch.tensor([[0.0, 0.0], [0.9, 0.0]])
    with pytest.warns(RuntimeWarning, match=r"66\.7% .* in the reward"):
        rollouts = roll(Imagination(drift(), behind_wall, box=box), start, horizon=2)
    assert rollouts.valid.tolist() == [[True, True], [True, False]]
    assert float(rollout_metrics(rollouts)["rollout/clip_rate"]) == pytest.approx(2 / 3)


def test_clipping_of_up_to_a_hundredth_of_the_steps_is_no_warning():
    box = Box(
        torch.full((2,), -9.0),
        torch.full((2,), 9.0),
        torch.tensor(-9.0),
        torch.tensor(9.0),
        torch.ones(3, dtype=torch.bool),
    )
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
    box = Box(
        torch.full((2,), -9.0),
        torch.full((2,), 9.0),
        torch.tensor(-9.0),
        torch.tensor(9.0),
        torch.ones(3, dtype=torch.bool),
    )
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
