import pytest
import torch

from mbrl.nets.normaliser import Normaliser


def test_it_standardises_and_undoes_it():
    normaliser = Normaliser(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5]))
    x = torch.tensor([[3.0, -2.0], [1.0, -1.0]])
    assert normaliser(x).tolist() == [[1.0, 0.0], [0.0, 2.0]]
    torch.testing.assert_close(normaliser.inverse(normaliser(x)), x)


def test_identity_changes_nothing():
    x = torch.tensor([[3.0, -2.0, 7.0]])
    assert torch.equal(Normaliser.identity(3)(x), x)


def test_statistics_travel_with_the_state_and_are_not_learned():
    source = Normaliser(torch.tensor([1.0]), torch.tensor([2.0]))
    copy = Normaliser.identity(1)
    copy.load_state_dict(source.state_dict())
    assert float(copy(torch.tensor([5.0]))) == 2.0
    assert list(source.parameters()) == []


def test_statistics_are_copies():
    mean = torch.zeros(1)
    normaliser = Normaliser(mean, torch.ones(1))
    mean += 5.0
    assert float(normaliser(torch.tensor([1.0]))) == 1.0


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_a_deviation_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match="positive deviations"):
        Normaliser(torch.zeros(2), torch.tensor([1.0, std]))
