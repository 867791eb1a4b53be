"""iCEM: populations that shrink, elites that are remembered."""

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import SOURCES, Hints
from mbrl.planning.shooting.icem import ICEM, ICEMConfig
from tests.planning.shooting.tasks import bowl, plan
from tests.planning.worlds import make_problem, steady


def test_the_population_shrinks_down_to_twice_the_elites():
    planner = ICEM(make_problem(bowl), ICEMConfig(iterations=8))
    assert planner.sizes() == (48, 38, 30, 24, 19, 16, 16, 16)


def test_remembered_elites_compete_again():
    """A needle that no draw finds: only memory can."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        reward = ((action[:, 0] - 0.987).abs() < 1e-6).double()
        return obs, reward, *steady(reward)

    planner = ICEM(make_problem(formula), ICEMConfig(horizon=2, execute="best"))
    obs, needle = torch.zeros(2, 1).double(), torch.full((2, 1, 1, 1), 0.987).double()
    hints = Hints(warm=torch.zeros(2, 1, 1).double(), elites=needle, has_warm=torch.tensor([True, False]))
    result = plan(planner, obs, hints=hints)
    assert result.value.tolist() == pytest.approx([1.0, 0.0])
    assert result.elites is not None
    assert result.elites.shape == (2, 2, 2, 1)
    assert float(result.elites[0, 0, 0]) == pytest.approx(0.987)
    assert SOURCES[int(result.provenance[0, 1])] == "warm"


def test_kept_elites_compete_in_the_next_iteration():
    """Draws of the second iteration are of no use: the elites of the first must stand."""
    calls = []

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        calls.append(len(action))
        late = len(calls) > 2  # the initial plans, the first iteration
        reward = -(action[:, 0] - 0.3).square() - 100.0 * late
        return obs, reward, *steady(reward)

    config = ICEMConfig(horizon=1, iterations=2, execute="best", noise_exponent=0.0)
    result = plan(ICEM(make_problem(formula), config), torch.zeros(1, 1).double())
    assert float(result.value) > -1.0
    kept = int(0.3 * 8)
    assert int((result.weights[0, 1 : 1 + kept] > 0).sum()) == kept
    assert abs(float(result.action) - 0.3) < 0.05
