"""Double reinforcement learning, and the fitted value as a witness against marginal ratios."""

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.off_policy.estimators.marginal_evidence import MarginalEvidence, corrected_values
from mbrl.off_policy.estimators.marginal_ratio import MarginalRatio, MWLConfig
from mbrl.off_policy.value.fqe import FQEConfig, fit_fqe
from tests.off_policy.estimators.test_marginal_ratio import ESTIMAND, SHORT, by_ratios
from tests.off_policy.logs import generator, half_table_log

LONG = FQEConfig(hidden=(64,), updates=1500, learning_rate=3e-3, polyak_tau=0.05, batch_size=128)


def some_ratio(dataset: Dataset, rows: np.ndarray, mass: float = 0.8) -> MarginalRatio:
    """Weights that nobody fitted."""
    n = len(dataset)
    weight = np.random.default_rng(0).normal(1.0, 0.5, len(rows))
    return MarginalRatio(rows, weight, 0.0, np.zeros(n), np.ones(n), mass=mass, imbalance=0.0, landmarks=1)


@pytest.mark.parametrize("horizon", [None, 3])
def test_the_correction_is_the_sum_that_is_written_down(horizon: int | None) -> None:
    """Against a loop over members, episodes and steps; some rows carry no weight."""
    _, dataset, policy, _ = half_table_log(n=8)
    estimand = Estimand(0.8, horizon=horizon)
    fit = fit_fqe(dataset, policy, estimand=estimand, config=SHORT, generator=generator())
    step = dataset.transitions().step
    rows = np.flatnonzero((np.arange(len(step)) % 3 != 1) & (step < (horizon or 99)))
    ratio = some_ratio(dataset, rows)
    weights = dict(zip(rows.tolist(), (ratio.weight / 0.8).tolist(), strict=True))
    logged = fit.members_on_log(dataset, generator=generator())
    found = corrected_values(ratio, fit, dataset, logged)
    place, expected = 0, np.array(fit.initial)
    for number, episode in enumerate(dataset.episodes):
        obs, action = torch.tensor(episode.observations), torch.tensor(episode.actions)
        for t in range(len(episode)):
            clock, later = (None, None) if horizon is None else (
                torch.tensor([max(horizon - t, 0)]), torch.tensor([max(horizon - t - 1, 0)])
            )  # fmt: skip
            q = fit.values.action_value(obs[t : t + 1], action[t : t + 1], clock).numpy()[:, 0]
            chances = fit.choices(obs[t + 1 : t + 2], generator())
            v = fit.values.value(obs[t + 1 : t + 2], chances, later).numpy()[:, 0]
            is_end = episode.terminated and t == len(episode) - 1
            difference = float(episode.rewards[t]) + 0.8 * (0.0 if is_end else v) - q
            expected[:, number] += weights.get(place, 0.0) * difference
            place += 1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_witness_is_the_difference_to_the_corrected_value() -> None:
    _, dataset, policy, _ = half_table_log(n=60)
    config = MWLConfig(landmarks=4)
    mwl, drl = (by_ratios(name, dataset, policy, ESTIMAND, config) for name in ("mwl", "drl"))
    bias = mwl.details["witnessed_bias"]
    assert bias == pytest.approx(drl.point - mwl.point, rel=1e-9)
    half = by_ratios("mwl", dataset, policy, Estimand(0.8, normalised=True), config)
    assert half.details["witnessed_bias"] == pytest.approx(0.2 * bias, rel=1e-9)


@pytest.mark.parametrize(
    ("bias", "flag"), [(0.49, None), (-0.51, "unbalanced_value"), (np.nan, "unbalanced_value")]
)
def test_half_a_standard_error_is_what_may_be_missed(bias: float, flag: str | None) -> None:
    n = 40
    influence = np.tile([-1.0, 1.0], n // 2)
    se = influence.std(ddof=1) / np.sqrt(n)
    ratio = MarginalRatio(np.arange(n), np.ones(n), 3.0, influence, np.ones(n), 1.0, 0.0, 1)
    critics = fit_fqe(*half_table_log(n=4)[1:3], estimand=ESTIMAND, config=LONG, generator=generator())
    evidence = MarginalEvidence(ratio, critics, np.full((5, n), 3.0 + bias * se), ESTIMAND)
    found = evidence.problem()
    assert (None if found is None else found[1]) == flag
