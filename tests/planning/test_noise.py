"""Random numbers of rows: the published generator, independence of the batch, the right distributions."""

import math

import pytest
import scipy.stats
import torch

from mbrl.planning.noise import RowNoise, splitmix64

GOLDEN = -7046029254386353131


def test_thesplitmix64er_is_splitmix64():
    states = torch.tensor([1234567]) + GOLDEN * torch.arange(1, 4)
    unsigned = [int(value) % 2**64 for value in splitmix64(states)]
    assert unsigned == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_a_row_draws_the_same_alone_and_in_a_batch():
    noise = RowNoise(torch.tensor([3, 1, 4, 1, 5]))
    together = noise.normal("plan", (2, 3))
    for row in range(5):
        assert torch.equal(noise.rows(slice(row, row + 1)).normal("plan", (2, 3))[0], together[row])
    assert torch.equal(together[1], together[3])
    assert not torch.equal(together[0], together[1])


def test_purposes_and_longer_draws_do_not_disturb_each_other():
    noise = RowNoise(torch.tensor([7]))
    assert not torch.equal(noise.uniform("a", (8,)), noise.uniform("b", (8,)))
    assert torch.equal(noise.uniform("a", (8,)), noise.uniform("a", (9,))[:, :8])


def test_the_first_rows_of_a_larger_batch_have_the_same_seeds():
    few = RowNoise.draw(3, torch.Generator().manual_seed(0))
    many = RowNoise.draw(9, torch.Generator().manual_seed(0))
    assert torch.equal(few.seeds, many.seeds[:3])


@pytest.mark.parametrize(
    ("kind", "law"), [("uniform", "uniform"), ("normal", "norm"), ("gumbel", "gumbel_r")]
)
def test_draws_follow_their_law(kind: str, law: str):
    noise = RowNoise(torch.arange(200))
    draws = getattr(noise, kind)("law", (100,)).flatten().double().numpy()
    assert scipy.stats.kstest(draws, law).pvalue > 1e-3
    neighbours = torch.tensor(draws).view(200, 100)
    correlation = float(
        torch.corrcoef(torch.stack([neighbours[:-1].flatten(), neighbours[1:].flatten()]))[0, 1]
    )
    assert abs(correlation) < 4 / math.sqrt(199 * 100)
