"""Uncertainties of a step, by hand."""

import math

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.uncertainty import TargetDeviation, posterior_uncertainty
from mbrl.planning.problem.values import CriticLeaf
from mbrl.uncertainty.measures import ens_std
from tests.planning.linear import (
    SPACE,
    GaussianPolicy,
    LinearModel,
    LinearPolicy,
    QuadraticCritics,
    ends_beyond,
)

BOX = ActionBox(SPACE)
OBS, ACTION = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [-1.0]])  # actions of 1 and -2


def test_the_target_deviation_is_that_of_what_the_step_leads_to():
    prior = PolicyPrior(LinearPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics((1.0, 3.0)), prior, BOX)
    uncertainty = TargetDeviation(ends_beyond(2.0), prior, leaf, 0.5)
    model = LinearModel((0.0, 0.5, 10.0), (0.0, 1.0, 0.0))
    measured = uncertainty(OBS[:1], torch.tensor([[1.0]]), model.predict(OBS[:1], torch.tensor([[1.0]])))
    value = [2.0 - 1.16 * s**2 for s in (1.4, 1.9)]  # mean critic; the mode is -0.4 s
    targets = [-1.0 + 0.5 * value[0], 0.0 + 0.5 * value[1], -1.0]  # the third member ends
    mean = sum(targets) / 3
    expected = math.sqrt(sum((target - mean) ** 2 for target in targets) / 3)
    assert float(measured) == pytest.approx(expected, rel=1e-5)


def test_draws_of_the_target_are_shared_so_that_members_that_agree_are_certain():
    prior = PolicyPrior(GaussianPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics(), prior, BOX)
    uncertainty = TargetDeviation(NeverTerminates(), prior, leaf, 0.9, action_samples=7)
    posterior = LinearModel((0.3, 0.3), (0.0, 0.0)).predict(OBS, ACTION)
    assert uncertainty(OBS, ACTION, posterior).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    apart = LinearModel((0.0, 0.3), (0.0, 0.0))
    together = uncertainty(OBS, ACTION, apart.predict(OBS, ACTION))
    alone = uncertainty(OBS[1:], ACTION[1:], apart.predict(OBS[1:], ACTION[1:]))
    assert torch.allclose(together[1:], alone)
    assert float(together.min()) > 0.0


def test_a_measure_is_in_units_of_its_quantile_times_the_deviation_of_rewards():
    posterior = LinearModel((0.0, 1.0, 4.0), (0.0, 0.0, 0.0)).predict(OBS, ACTION)
    spread = float(ens_std(posterior)[0])
    for quantile, expected in ((0.5 * spread, 3.0 * 2.0), (spread / 40.0, 3.0 * 10.0)):  # capped at 10 units
        measure = posterior_uncertainty("ens_std", {"ens_std": {0.95: quantile}}, reward_scale=3.0)
        assert measure(OBS, ACTION, posterior).tolist() == pytest.approx([expected, expected])
    with pytest.raises(ConfigError, match="target_q_std"):
        posterior_uncertainty("max_dev", {"ens_std": {0.95: 1.0}}, reward_scale=3.0)
