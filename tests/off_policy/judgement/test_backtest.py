import dataclasses
import math

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.termination import NeverTerminates
from mbrl.off_policy.estimators.context import EstimatorContext, EstimatorSettings
from mbrl.off_policy.judgement.backtest import (
    Backtest,
    apply_backtest,
    backtest_config,
    miscalibrated_ratios,
    run_backtest,
)
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.off_policy.value.model_value import EvaluationModel
from tests.off_policy.imagined import LinearGaussian
from tests.off_policy.lqg import LQG, NoisyLinearPolicy, scalar_task

HORIZON = Estimand(0.9, horizon=5)
BEHAVIOUR = NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4)
SHORT = FQEConfig(hidden=(), updates=1, batch_size=4)


def log(episodes: int = 60, steps: int = 5) -> Dataset:
    return scalar_task().simulate(BEHAVIOUR, episodes, steps, 0)


def backtest(
    dataset: Dataset, *tasks: LQG, estimand: Estimand = HORIZON, seed: int = 0, names=("model_value",)
) -> Backtest:
    def context_for(policy: Policy, train: Dataset) -> EstimatorContext:
        model = EvaluationModel(LinearGaussian(tasks), NeverTerminates()) if tasks else None
        return EstimatorContext(policy, train, EstimatorSettings(estimand, SHORT, model=model))

    return run_backtest(
        dataset,
        lambda *_: BEHAVIOUR,
        context_for,
        estimand=estimand,
        names=names,
        rng=RngStreams(seed),
    )


def test_a_right_model_passes_and_a_wrong_one_fails():
    dataset = log()
    right = backtest(dataset, scalar_task(), scalar_task())
    returns = np.array([e.rewards.astype(np.float64) @ 0.9 ** np.arange(5) for e in dataset.episodes])
    assert right.truth.mean == pytest.approx(returns.mean(), rel=1e-12)
    assert abs(right.z["model_value"]) < 2
    slow = dataclasses.replace(scalar_task(), a=0.3 * np.ones((1, 1)))
    wrong = backtest(dataset, slow, slow)
    assert wrong.z["model_value"] > 2  # it forgets its states too soon, and costs too little
    off = wrong.point["model_value"] - right.truth.mean
    spread = math.hypot(wrong.se["model_value"], right.truth.se)
    assert wrong.z["model_value"] == pytest.approx(off / spread, rel=1e-12)


def test_the_error_of_the_truth_counts_both_folds_once():
    """Folds of equal size that are alike: nearly the error of the mean over all episodes."""
    dataset = log()
    returns = np.array([e.rewards.astype(np.float64) @ 0.9 ** np.arange(5) for e in dataset.episodes])
    found = backtest(dataset, scalar_task(), scalar_task())
    assert found.truth.se == pytest.approx(returns.std(ddof=1) / math.sqrt(60), rel=0.05)


def test_a_right_model_fails_as_rarely_as_a_test_of_two_standard_errors_may():
    z = [
        backtest(scalar_task().simulate(BEHAVIOUR, 16, 5, seed), scalar_task(), scalar_task(), seed=seed).z[
            "model_value"
        ]
        for seed in range(12)
    ]
    assert sum(abs(value) >= 2 for value in z) <= 2
    assert np.std(z) < 1.2


def test_held_out_episodes_are_not_those_of_the_fit():
    dataset, seen = log(8), list[list[int]]()
    place = {e.observations.tobytes(): i for i, e in enumerate(dataset.episodes)}

    def context_for(policy: Policy, train: Dataset) -> EstimatorContext:
        seen.append([place[e.observations.tobytes()] for e in train.episodes])
        return EstimatorContext(policy, train, EstimatorSettings(HORIZON, SHORT))

    run_backtest(
        dataset,
        lambda *_: BEHAVIOUR,
        context_for,
        estimand=HORIZON,
        names=("model_value",),
        rng=RngStreams(0),
    )
    assert sorted(seen[0] + seen[1]) == list(range(8))


def test_what_cannot_be_tested_says_why_and_condemns_nobody():
    unfitted = backtest(log(8), names=("model_value", "fqe"))
    assert "No dynamics model" in unfitted.why_no_z["model_value"]
    assert "updates cannot carry" in unfitted.why_no_z["fqe"]
    assert unfitted.z == unfitted.point == {"model_value": None, "fqe": None}
    assert backtest(log(8), names=()).why_not == "there was nothing to test"
    few = backtest(log(3), scalar_task(), scalar_task())
    assert few.why_not == "3 episodes are too few for 2 folds"
    cut = backtest(log(8), scalar_task(), scalar_task(), estimand=Estimand(0.9))
    assert cut.why_not == "time-outs cut the logged returns"
    assert cut.truth.mean is None


def estimate(name: str) -> Estimate:
    return Estimate(name, "value", 1.0, 0.1, (0.8, 1.2), "by hand", 10.0, HORIZON)


@pytest.mark.parametrize(("name", "tested"), [("fqe", "fqe"), ("dm", "fqe"), ("model_value", "model_value")])
def test_a_miss_takes_the_family_out(name, tested):
    passed = apply_backtest(estimate(name), {tested: 1.99})
    assert passed.valid
    assert passed.flags == ()
    failed = apply_backtest(estimate(name), {tested: -2.0})
    assert not failed.valid
    assert failed.why_not == "fails the behaviour back-test: z = -2.0"
    for nothing in ({tested: None}, {}):
        left = apply_backtest(estimate(name), nothing)
        assert left.valid
        assert left.flags == (Flag.BACKTEST_INCONCLUSIVE,)


def test_ratios_and_hybrids_are_not_judged_by_it():
    for name in ("pdwis", "wdr"):
        given = estimate(name)
        assert apply_backtest(given, {"fqe": 9.0, "model_value": 9.0}) is given


def test_ratios_are_judged_by_their_mean():
    z = np.zeros(100)
    z[:5] = 3.1
    assert miscalibrated_ratios(z) is None
    z[5] = -3.1
    assert "6% of the steps" in (miscalibrated_ratios(z) or "")
    assert miscalibrated_ratios(np.full(3, np.nan)) is None


def test_a_back_test_fits_no_longer_than_it_must():
    config = FQEConfig(updates=100_000)
    assert backtest_config(config, Estimand(0.99)).updates == 40_000
    assert backtest_config(config.model_copy(update={"updates": 50}), Estimand(0.99)).updates == 50
