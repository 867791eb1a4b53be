import dataclasses

import numpy as np
import torch

from mbrl.shift.logged_values import logged_values
from tests.shift.chain import make_chain


def test_the_returns_are_those_from_each_step_on() -> None:
    """60 rewards of 1 and an end: `G = 10 (1 - 0.9^n)` with n steps left, s says how many are gone."""
    found = logged_values(make_chain(), discount=0.9, generator=torch.Generator().manual_seed(0), count=100)
    assert found is not None
    assert found.returns.shape == (100,)
    left = 60 - found.obs[:, 0].numpy()
    np.testing.assert_allclose(found.returns, 10 * (1 - 0.9**left), rtol=1e-6)
    assert found.action.tolist() == [[0.0]] * 100


def test_few_known_returns_are_none() -> None:
    """Truncated after 10 steps at a discount of 0.99: the tail weighs 0.9 everywhere."""
    data = make_chain(steps=10)
    cut = tuple(dataclasses.replace(e, terminated=False, truncated=True) for e in data.episodes)
    data = dataclasses.replace(data, episodes=cut)
    assert logged_values(data, discount=0.99, generator=torch.Generator()) is None
