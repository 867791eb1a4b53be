"""The cost of uncertainty on models whose errors are known."""

import dataclasses
import json

import pytest
import torch

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.calibration import CalibrationConfig, PlannerCalibration, calibrate_planner
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.problem.uncertainty import TargetDeviation
from mbrl.planning.problem.values import CriticLeaf
from tests.planning.linear import SPACE, LinearModel, LinearPolicy, QuadraticCritics, simulate

BOX = ActionBox(SPACE)
DISCOUNT = 0.9


class _ActionSize:
    """u = |a|, so that an error of `c |a|` asks for lambda = c."""

    def __call__(self, obs, action, posterior):
        del obs, posterior
        return action[:, 0].abs()


def problem(model: LinearModel, uncertainty=None) -> PlanningProblem:
    prior = PolicyPrior(LinearPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics(), prior, BOX)
    uncertainty = (
        TargetDeviation(NeverTerminates(), prior, leaf, DISCOUNT) if uncertainty is None else uncertainty
    )
    step = LearnedStep(model, NeverTerminates(), BOX, uncertainty=uncertainty)
    return PlanningProblem(step, prior, leaf, 1, DISCOUNT, value_scale=1.0)


def calibrate(model: LinearModel, *, uncertainty=None, log=None, **config) -> PlannerCalibration:
    log = simulate() if log is None else log
    generator = torch.Generator().manual_seed(0)
    return calibrate_planner(
        problem(model, uncertainty), log.transitions(), box=BOX, config=CalibrationConfig(**config),
        generator=generator,
    )  # fmt: skip


def test_a_perfect_model_costs_nothing():
    calibration = calibrate(LinearModel((0.0, 0.0), (0.0, 0.0)))
    assert calibration.penalty_coef == pytest.approx(0.0, abs=1e-3)
    assert calibration.lcb_coef == 0.0
    assert calibration.is_lcb_satisfied
    assert calibration.coverage == 1.0
    assert calibration.delta_abs_mean == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("method", ["quantile", "binned"])
def test_a_known_bias_gives_the_known_coefficient(method: str):
    # Rewards are promised 0.7 |a| too high and u is |a|: the coefficient is 0.7 at every quantile.
    calibration = calibrate(
        LinearModel((0.0, 0.0), (0.7, 0.7)), uncertainty=_ActionSize(), method=method, quantile=1.0
    )
    assert calibration.penalty_coef == pytest.approx(0.7, rel=1e-3)
    assert calibration.delta_mean == pytest.approx(-0.7 * calibration.uncertainty_mean, rel=1e-3)
    half = calibrate(
        LinearModel((0.0, 0.0), (1.4, 0.0)), uncertainty=_ActionSize(), method=method, quantile=0.5
    )
    assert half.penalty_coef == pytest.approx(0.7, rel=1e-3)


def test_the_tasks_own_noise_averages_out_in_bins_and_not_in_quantiles():
    log = simulate(episodes=100, steps=50, noise=0.3)
    model = LinearModel((0.0, 0.0), (0.0, 0.0))
    shares = {
        method: calibrate(model, uncertainty=_ActionSize(), log=log, method=method).penalty_coef
        for method in ("quantile", "binned")
    }
    assert shares["binned"] < 0.25 * shares["quantile"]


def test_kappa_grows_with_the_optimism_of_the_ensemble():
    # Members promise b1 and b2 too much: bias (b1 + b2) / 2, deviation |b1 - b2| / 2; kappa is their ratio.
    chosen = [
        calibrate(LinearModel((0.0, 0.0), bonuses)).lcb_coef
        for bonuses in ((-0.5, 0.5), (-0.3, 0.7), (-0.1, 0.9), (0.3, 1.0))
    ]
    assert chosen == [0.0, 0.5, 1.0, 2.0]
    hopeless = calibrate(LinearModel((0.0, 0.0), (1.0, 1.2)))
    assert (hopeless.lcb_coef, hopeless.is_lcb_satisfied) == (2.0, False)


def test_the_gaps_are_the_behaviours_bound_less_what_was_logged():
    calibration = calibrate(LinearModel((0.0, 0.0), (0.0, 1.0)), horizon=1, max_rows=600)
    log = simulate().transitions()
    size = float(abs(log.action[:, 0]).mean())  # members differ by |a| in one reward
    assert calibration.lcb_gaps is not None
    assert calibration.lcb_gaps == pytest.approx(
        [0.5 * size * (1 - kappa) for kappa in (0, 0.5, 1, 2)], rel=1e-4
    )


def test_halting_is_set_by_a_quantile_and_never_pays():
    calibration = calibrate(LinearModel((0.0, 0.0), (0.0, 0.0)), uncertainty=_ActionSize())
    log = simulate().transitions()
    assert calibration.halt_threshold == pytest.approx(
        float(torch.tensor(abs(log.action[:, 0])).quantile(0.9)), 1e-3
    )
    pessimism = calibration.pessimism(scale=2.0, halts=True)
    assert pessimism.penalty_coef == 2 * calibration.penalty_coef
    # An edge that just does not halt may cost its penalty besides its reward, at every step.
    worst = float(log.reward.min()) - pessimism.penalty_coef * calibration.halt_threshold
    assert pessimism.halt_loss == pytest.approx(-worst / (1 - DISCOUNT), rel=1e-6)
    assert calibration.pessimism(scale=2.0).halt_loss == 0.0
    assert pessimism.halt_threshold == calibration.halt_threshold
    assert not calibration.pessimism(scale=0.0).reads_uncertainty


def test_one_wrong_reward_does_not_set_what_halting_costs():
    log = simulate()
    wrong = log.episodes[3].rewards.copy()
    wrong[5] = -1e6
    episodes = list(log.episodes)
    episodes[3] = dataclasses.replace(episodes[3], rewards=wrong)
    spoiled = dataclasses.replace(log, episodes=tuple(episodes))
    model = LinearModel((0.0, 0.0), (0.0, 0.0))
    right, found = (calibrate(model, log=part, uncertainty=_ActionSize()) for part in (log, spoiled))
    assert found.reward_least == pytest.approx(right.reward_least, rel=0.2)


def test_a_calibration_survives_its_json():
    calibration = calibrate(LinearModel((0.0, 0.1), (0.0, 0.2)))
    assert PlannerCalibration.model_validate(json.loads(calibration.model_dump_json())) == calibration


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="20 held-out rows"):
        calibrate(LinearModel(), log=simulate(episodes=1, steps=10))
