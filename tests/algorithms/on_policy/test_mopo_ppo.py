"""The on-policy stream: what an iteration holds, how long it lasts, who may learn from it."""

import pytest
import torch

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.core.types import OnPolicyBatch
from mbrl.run.loop import renew
from tests.algorithms.toy import make_context, with_trusted_horizon

SMALL = {"rollout": {"starts": 40, "horizon": 3}, "learner": {"hidden": [8], "batch_size": 16}}


def build(dynamics, **changes):
    config = RECIPES.get("mopo_ppo").Config.model_validate({**SMALL, **changes})
    return RECIPES.get("mopo_ppo").build(config, make_context(dynamics))


def imagine(training):
    state = training.learner.init(RngStreams(0).at("init"))
    metrics = renew(training, state, 0, RngStreams(0).at("rollout", 0))
    return state, metrics


def test_an_iteration_passes_over_its_steps_as_often_as_there_are_epochs(toy):
    training = build(toy, epochs=4)
    assert training.refresh_interval == 4 * (40 * 3 // 16)
    assert build(with_trusted_horizon(toy, 2), epochs=4).refresh_interval == 4 * (40 * 2 // 16)


def test_every_step_comes_once_before_any_comes_again(toy):
    training = build(
        toy, penalty={"coef": 0.0}, rollout={"starts": 16, "horizon": 2, "truncation_quantile": None}
    )
    imagine(training)
    drawn = [training.source.sample(16, RngStreams(0).at("batch", step)) for step in range(2)]
    rows = torch.cat([batch.action for batch in drawn])  # each of its own noise
    assert len(torch.unique(rows, dim=0)) == 32


def test_the_first_ratio_of_an_iteration_is_1(toy):
    training = build(toy)
    state, _ = imagine(training)
    batch = training.source.sample(16, RngStreams(0).at("batch", 0))
    assert isinstance(batch, OnPolicyBatch)
    # The hand-made model's reward is `s_0`, whose unit the learner divides by.
    metrics = training.learner.update(state, batch, RngStreams(0).at("update", 0))
    assert float(metrics["policy/kl"]) == pytest.approx(0.0, abs=1e-6)
    assert float(metrics["policy/clip_rate"]) == 0.0


def test_rewards_are_penalised_before_advantages_are_taken(toy):
    free, dear = (build(toy, penalty={"coef": coef}) for coef in (0.0, 2.0))
    (_, unpaid), (_, paid) = imagine(free), imagine(dear)
    assert float(unpaid["rollout/penalty"]) == 0.0
    assert float(paid["rollout/penalty"]) > 0.1
    first, second = (training.source.sample(1000, RngStreams(0).at("batch", 0)) for training in (free, dear))
    assert second.advantage.mean() < first.advantage.mean() - 0.1


@pytest.mark.parametrize("recipe", ["model_free", "mopo"])
def test_recipes_of_logs_refuse_a_learner_on_policy_and_this_one_all_others(recipe):
    with pytest.raises(ValueError, match=r"reads steps of its own policy alone.*mopo_ppo"):
        RECIPES.get(recipe).Config.model_validate({"learner": {"name": "ppo"}})
    with pytest.raises(ValueError, match=r"reads steps of whoever acted.*model_free"):
        RECIPES.get("mopo_ppo").Config.model_validate({"learner": {"name": "sac"}})


def test_rollouts_whose_first_steps_are_all_dropped_leave_nothing_to_learn_from(toy):
    rollout = {"starts": 10, "horizon": 2, "flagged": "drop", "truncation_divisor": 1000.0}
    training = build(toy, rollout=rollout)
    with pytest.raises(ConfigError, match="Nothing was imagined at update 0"):
        imagine(training)
