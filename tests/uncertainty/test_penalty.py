import pytest
import torch

from mbrl.uncertainty.measures import MEASURES
from mbrl.uncertainty.penalty import UnitFree, penalise, unit_free

from .test_measures import draw_posterior


def test_unit_free_is_one_at_the_quantile_and_capped():
    result = unit_free(torch.tensor([0.0, 0.2, 0.4, 40.0]), 0.2)
    assert result.tolist() == pytest.approx([0.0, 1.0, 2.0, 10.0])


def test_unit_free_of_perfect_agreement_on_the_data():
    assert unit_free(torch.tensor([0.0, 0.3]), 0.0).tolist() == [0.0, 10.0]


def test_unit_free_measure_is_a_measure_without_units():
    found = draw_posterior(0)
    measure = MEASURES.get("ens_std")
    quantile = float(torch.quantile(measure(found), 0.95))
    wide = UnitFree(measure, quantile)
    doubled = UnitFree(lambda posterior, context=None: 2 * measure(posterior, context), 2 * quantile)
    torch.testing.assert_close(wide(found), measure(found) / quantile)
    torch.testing.assert_close(doubled(found), wide(found))


def test_penalty_by_hand():
    reward, u = torch.tensor([1.0, -1.0]), torch.tensor([0.5, 2.0])
    assert penalise(reward, u, penalty_coef=2.0, reward_scale=3.0).tolist() == [-2.0, -13.0]
    assert penalise(reward, u, penalty_coef=2.0).tolist() == [0.0, -5.0]  # the paper's form: no reward unit
    assert penalise(reward, u, penalty_coef=0.0, reward_scale=3.0).tolist() == [1.0, -1.0]


def test_scaling_all_rewards_scales_penalised_ones():
    reward, u = (
        torch.randn(20, generator=torch.Generator().manual_seed(0)),
        torch.rand(20, generator=torch.Generator().manual_seed(1)),
    )
    small = penalise(reward, u, penalty_coef=1.5, reward_scale=0.3)
    torch.testing.assert_close(penalise(100 * reward, u, penalty_coef=1.5, reward_scale=30.0), 100 * small)
