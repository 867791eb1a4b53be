import dataclasses
import math

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.off_policy.value.model_estimate import model_diagnostics
from mbrl.off_policy.value.model_value import ModelValueConfig
from tests.off_policy.imagined import LinearGaussian, evaluation, members
from tests.off_policy.logs import ask, context_of
from tests.off_policy.lqg import LinearPolicy, NoisyLinearPolicy, scalar_task

FQE = FQEConfig(hidden=(8,), updates=600, batch_size=16)


def logged() -> Dataset:
    return scalar_task().simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 20, 6, 0)


def test_without_a_model_the_estimator_says_what_to_do():
    policy = LinearPolicy(torch.ones(1, 1), 8.0)
    estimate = ask(context_of(policy, logged(), Estimand(0.9), FQE), "model_value")
    assert not estimate.valid
    assert estimate.family == "model"
    assert "pass a fit" in (estimate.why_not or "")
    assert model_diagnostics(estimate) == {}


def test_the_estimator_takes_starts_and_range_from_the_log_and_its_tail_from_the_fitted_value():
    dataset, policy = logged(), NoisyLinearPolicy(torch.tensor([[0.5]]), 8.0, 0.2)
    model = dataclasses.replace(evaluation(*members(1.1, 0.9)), dataset_hash="another")

    def with_model(model: EvaluationModel) -> EstimatorContext:
        return context_of(policy, dataset, Estimand(0.9, horizon=6), FQE, model=model)

    first = ask(with_model(model), "model_value", seed=3)
    assert first.name == "model_value"
    assert first.per_episode is not None
    assert len(first.per_episode) == len(dataset)
    assert "model_of_other_data" in first.flags
    assert first.details["tail_share"] == 0.0
    assert ask(with_model(model), "model_value", seed=3).point == first.point
    strict = dataclasses.replace(model, threshold=0.0, limit=0.0, dataset_hash=dataset.content_hash)
    context = with_model(strict)
    estimate = ask(context, "model_value", seed=3)
    fqe = ask(context, "fqe")
    assert estimate.details["tail_share"] == 1.0  # every roll-out stops at once
    assert estimate.point == pytest.approx(fqe.point, rel=0.1)
    assert {"unreliable_tail", "leaves_the_data"} <= set(estimate.flags)
    generous = dataclasses.replace(model, dynamics=LinearGaussian(members(0.1, 0.2)))
    more = ask(with_model(generous), "model_value", seed=3)
    assert more.point > fqe.point + 2 * math.hypot(more.se, fqe.se)
    assert not fqe.valid  # so it cannot raise an alarm
    assert "exploitation_alarm" not in more.flags
    found = model_diagnostics(estimate)
    assert found["stopped"] == [40, 0, 0, 0, 0, 0]
    assert found["clip_rate"][0] is None
    assert found["model_disagreement_share"] == 1.0


def test_a_log_of_the_model_itself_agrees_with_its_logged_returns():
    """Continuous states, a known termination, an evaluation of the policy that acted."""
    task, policy = scalar_task(), NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4)
    dataset = task.simulate(policy, 1500, 8, 0)
    space = SpaceSpec(1, 1, (-8.0,), (8.0,))
    assert dataset.spec == space
    assert dataset.info == DatasetInfo(name="lqg")
    settings = {"model": evaluation(task, task), "rollouts": ModelValueConfig(max_starts=1500)}
    estimate = ask(context_of(policy, dataset, Estimand(0.9, horizon=8), FQE, **settings), "model_value")
    returns = np.array([e.rewards.astype(np.float64) @ 0.9 ** np.arange(8) for e in dataset.episodes])
    error = math.hypot(estimate.se, returns.std(ddof=1) / math.sqrt(len(returns)))
    assert abs(estimate.point - returns.mean()) < 4 * error
