import math

import numpy as np
import torch

from mbrl.ops.ridge import ridge_solutions

RIDGES = (1e-6, 1e-2, 1.0, math.inf)


def rows(count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 2.0 + torch.randn(count, 3, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([[0.5, 1.0], [-0.3, 0.0], [0.2, 2.0]], dtype=torch.float64) + 0.1
    return x, y + 0.3 * torch.randn(count, 2, generator=generator, dtype=torch.float64)


def test_solutions_are_those_of_least_squares_on_augmented_rows():
    x, y = rows()
    features = np.c_[x.numpy(), np.ones(len(x))]
    for ridge, found in zip(RIDGES[:-1], ridge_solutions([(x, y)], RIDGES), strict=False):
        # || X W - y ||^2 + ridge n || W ||^2 without the intercept, as rows that say "the weight is 0".
        zero = np.sqrt(ridge * len(x)) * np.eye(4)[:3]
        expected = np.linalg.lstsq(np.r_[features, zero], np.r_[y.numpy(), np.zeros((3, 2))], rcond=None)
        np.testing.assert_allclose(found.numpy(), expected[0], rtol=1e-8, atol=1e-8)


def test_an_infinite_ridge_is_the_mean():
    x, y = rows()
    found = ridge_solutions([(x, y)], RIDGES)[-1]
    torch.testing.assert_close(found[-1], y.mean(0))
    assert not found[:-1].any()


def test_blocks_are_one_log():
    x, y = rows()
    whole, parts = (
        ridge_solutions(blocks, (1e-2,))[0] for blocks in ([(x, y)], [(x[:7], y[:7]), (x[7:], y[7:])])
    )
    torch.testing.assert_close(whole, parts)
