import dataclasses
import math

import pytest
import torch
from torch import nn

from mbrl.learners.base import LearnerState, Optimiser


@dataclasses.dataclass(slots=True)
class ToyState(LearnerState):
    net: nn.Module
    optimiser: Optimiser
    coefficient: nn.Parameter
    step: int = 0


def fresh(seed: int) -> ToyState:
    net = nn.Linear(2, 1, bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        net.weight.normal_(generator=torch.Generator().manual_seed(seed))
    optimiser = Optimiser(net.weight, 0.1, schedule="cosine", total_steps=15)
    return ToyState(net, optimiser, nn.Parameter(torch.tensor(float(seed))))


def train(state: ToyState, steps: int) -> None:
    for _ in range(steps):
        state.optimiser.descend(state.net(torch.ones(1, 2) * (1 + state.step)).square().sum())
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
    optimiser = after(step, Optimiser(nn.Parameter(torch.zeros(1)), 0.3, schedule="cosine", total_steps=100))
    assert optimiser.learning_rate == pytest.approx(0.3 * share, abs=1e-12)


def test_constant_schedule_leaves_the_rate_alone():
    assert after(70, Optimiser(nn.Parameter(torch.zeros(1)), 0.3)).learning_rate == 0.3


def test_the_first_steps_are_those_of_adam_at_the_scheduled_rate():
    """With a constant gradient Adam moves by exactly its rate, whatever the gradient's size."""
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = Optimiser(parameter, 0.3, schedule="cosine", total_steps=2)
    for total in (0.3, 0.3 + 0.15, 0.3 + 0.15):
        optimiser.descend(7.0 * parameter.sum())
        assert float(parameter.detach()) == pytest.approx(-total, abs=1e-6)


def after(steps: int, optimiser: Optimiser) -> Optimiser:
    """The optimiser as it stands after so many steps."""
    optimiser.load_state_dict({**optimiser.state_dict(), "step": steps})
    return optimiser


def test_two_parameters_take_the_steps_that_each_would_take_alone():
    first, second = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    third, fourth = (nn.Parameter(torch.tensor([0.5])) for _ in range(2))
    together = Optimiser([first, third], 0.1)
    alone = (Optimiser(second, 0.1), Optimiser(fourth, 0.1))
    for _ in range(3):
        together.descend(first.square().sum() + (third**4).sum())
        alone[0].descend(second.square().sum())
        alone[1].descend((fourth**4).sum())
    assert torch.equal(first, second)
    assert torch.equal(third, fourth)
