"""The unit in which a learner sees rewards."""

import warnings
from typing import Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.data.returns import LoggedEpisodes
from mbrl.ops.spread import LEAST_VARIATION, PlausibleRange, robust_scale

RewardTransform: TypeAlias = Literal["standardise", "return_range", "none"]


def reward_unit(
    transform: RewardTransform, reward: Float[Tensor, "n"], episodes: LoggedEpisodes | None
) -> float:
    """What rewards are divided by before a learner sees them, reward units.

    Args:
        transform: `standardise` takes the deviation of the rewards, outliers left out (`robust_scale`);
            `return_range` a thousandth of the range of the episodes' returns; `none` is 1.
        reward: `[n]`, of the training rows.
        episodes: that the rows belong to; None where nobody noted them.

    Raises:
        ConfigError: the range of returns is wanted, and nobody noted which episodes the rows belong to.
        DataError: returns have no range.
    """
    if transform == "none":
        return 1.0
    if transform == "return_range":
        if episodes is None:
            raise ConfigError("reward_transform=return_range needs to know the episode of every transition.")
        # Rewards are divided by it: returns then span 1000, as in the reference code of IQL.
        return 1.0 / episodes.return_range_scale()
    _warn_of_bonus(reward)
    return robust_scale(reward)


def _warn_of_bonus(reward: Float[Tensor, "n"]) -> None:
    # As `robust_scale` sees them; 0 spread is a constant reward, of which there is nothing to learn anyway.
    inside = PlausibleRange.of_most(reward).settle(reward)
    spread, size = float(inside.std(correction=0)), float(inside.abs().mean())
    if 0 < spread < LEAST_VARIATION * size:
        warnings.warn(
            f"Rewards vary by {spread:.3g} around a size of {size:.3g}: what they have in common hides what "
            "tells actions apart. Remedy: where no episode terminates, subtract the common part from the "
            "rewards of the log; where episodes can end it is part of the task, and should be made smaller "
            "with care.",
            RuntimeWarning,
            stacklevel=3,
        )
