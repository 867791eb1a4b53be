"""Logged steps with known returns, which the values of a learner are held against."""

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.data.dataset import Dataset
from mbrl.shift.statistics import returns_to_go

STEPS: Final = 1_000
"""Logged steps whose returns are compared."""

_FEW_RETURNS: Final = 50  # returns below which neither their deviation nor a rank correlation means much


class LoggedValues(NamedTuple):
    """Logged steps and what they returned.

    Attributes:
        obs: `[n, obs_dim]`, raw units.
        action: `[n, act_dim]`, environment units.
        returns: `[n]` float64, discounted return from each step on, return units.
    """

    obs: Tensor
    action: Tensor
    returns: NDArray[np.float64]


def logged_values(
    dataset: Dataset,
    *,
    discount: float,
    generator: torch.Generator,
    count: int = STEPS,
) -> LoggedValues | None:
    """At most `count` random steps whose return is known (see `returns_to_go`); None if these are few.

    Args:
        dataset: the log.
        discount: of the returns.
        generator: of the choice of steps.
        count: steps.
    """
    # Truncated episodes hide the rest of their return; late steps of them are not usable.
    returns, is_usable = returns_to_go(dataset.episodes, discount)
    usable = np.flatnonzero(is_usable)
    if len(usable) < _FEW_RETURNS:
        return None
    # Drawn once for a whole training: looks differ by the values alone, not by the steps.
    rows = usable[torch.randperm(len(usable), generator=generator)[:count].numpy()]
    steps = dataset.steps()
    return LoggedValues(
        torch.tensor(steps.observation[rows]), torch.tensor(steps.action[rows]), returns[rows]
    )
