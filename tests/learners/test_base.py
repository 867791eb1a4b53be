import dataclasses
import math

import pytest
import torch
from torch import nn

from mbrl.learners.base import LearnerState, make_adam, set_learning_rate


@dataclasses.dataclass(slots=True)
class ToyState(LearnerState):
    net: nn.Module
    optimiser: torch.optim.Optimizer
    coefficient: nn.Parameter
    step: int = 0


def fresh(seed: int) -> ToyState:
    net = nn.Linear(2, 1, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(seed))
    return ToyState(net, make_adam(list(net.parameters()), 0.1), nn.Parameter(torch.tensor(float(seed))))


def train(state: ToyState, steps: int) -> None:
    for _ in range(steps):
        state.optimiser.zero_grad()
        state.net(torch.ones(1, 2) * (1 + state.step)).square().sum().backward()
        state.optimiser.step()
        with torch.no_grad():
            state.coefficient.mul_(0.9)
        state.step += 1


def weights(state: ToyState) -> list[float]:
    return [
        *nn.utils.parameters_to_vector(state.net.parameters()).tolist(),
        float(state.coefficient.detach()),
        state.step,
    ]


def test_a_restored_state_goes_on_bit_for_bit_whatever_the_original_does_meanwhile():
    state, other, third = fresh(0), fresh(1), fresh(2)
    train(state, 5)
    saved = state.state_dict()
    train(state, 5)  # must not change what was saved
    other.load_state_dict(saved)
    train(other, 5)  # must not change it either
    third.load_state_dict(saved)
    train(third, 5)
    assert weights(other) == weights(state)
    assert weights(third) == weights(state)
    assert other.step == 10


def test_a_state_dict_names_every_field_and_loads_without_executing_code(tmp_path):
    state, other = fresh(0), fresh(1)
    train(state, 2)
    assert set(state.state_dict()) == {"net", "optimiser", "coefficient", "step"}
    torch.save(state.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(state, 2)
    train(other, 2)
    assert weights(other) == weights(state)


def test_a_missing_field_is_not_passed_over():
    saved = fresh(0).state_dict()
    del saved["coefficient"]
    with pytest.raises(KeyError):
        fresh(1).load_state_dict(saved)


@pytest.mark.parametrize(
    ("step", "share"), [(0, 1.0), (50, 0.5), (25, (1 + math.sqrt(0.5)) / 2), (100, 0.0), (500, 0.0)]
)
def test_cosine_schedule_by_hand(step, share):
    optimiser = make_adam([nn.Parameter(torch.zeros(1))], 0.3)
    set_learning_rate(optimiser, 0.3, "cosine", step=step, total_updates=100)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.3 * share, abs=1e-12)


def test_constant_schedule_leaves_the_rate_alone():
    optimiser = make_adam([nn.Parameter(torch.zeros(1))], 0.3)
    set_learning_rate(optimiser, 0.3, "constant", step=70, total_updates=100)
    assert optimiser.param_groups[0]["lr"] == 0.3
