"""Densities of actions that the outputs of a network describe, and whether logged actions look like draws.

A network sees the state and puts out a head: a mixture of Gaussians before squashing, or logits of finitely
many actions.
"""

import abc
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.dynamics.assessment.calibration import distance_from_uniform
from mbrl.nets.actors import mixture_head_size, split_mixture
from mbrl.off_policy.log.layout import Array
from mbrl.ops.gaussian import mixture_transform
from mbrl.ops.losses import mixture_log_prob

ECE_BINS: Final = 15
_LOG_STD_BOUNDS = (-5.0, 2.0)  # deviations of the logged actions


class Head(abc.ABC):
    """How outputs become a density.

    Attributes:
        size: outputs of the network.
    """

    size: int

    @abc.abstractmethod
    def log_prob(self, out: Float[Tensor, "b head"], target: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """Log-density of what was done, differentiable in the outputs."""

    @abc.abstractmethod
    def transform(self, out: Float[Tensor, "b head"], target: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """What `calibration_error` needs to know of each row."""

    @abc.abstractmethod
    def calibration_error(self, transformed: Array) -> float:
        """How far the actions are from draws of the density, in [0, 1]; 0 if they cannot be told apart."""


class MixtureHead(Head):
    """A mixture of diagonal Gaussians; with one component a Gaussian.

    Args:
        act_dim: d.
        components: k.
    """

    def __init__(self, act_dim: int, components: int) -> None:
        self._act_dim = act_dim
        self.size = mixture_head_size(components, act_dim)

    def log_prob(self, out: Float[Tensor, "b head"], target: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """`logsumexp_k (log w_k + log N_k)`."""
        return mixture_log_prob(target, *split_mixture(out, self._act_dim, _LOG_STD_BOUNDS))

    def transform(self, out: Float[Tensor, "b head"], target: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Probability integral transforms, one for each dimension."""
        return mixture_transform(target, *split_mixture(out, self._act_dim, _LOG_STD_BOUNDS))

    def calibration_error(self, transformed: Array) -> float:
        """Largest Kolmogorov-Smirnov distance of a dimension's transforms from the uniform distribution."""
        return float(distance_from_uniform(torch.from_numpy(transformed)).max())


class CategoricalHead(Head):
    """A logit for each of finitely many actions, which are one-hot vectors.

    Args:
        actions: how many.
    """

    def __init__(self, actions: int) -> None:
        self.size = actions

    def log_prob(self, out: Float[Tensor, "b head"], target: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """Log-probability of the chosen action."""
        return (torch.log_softmax(out, -1) * target).sum(-1)

    def transform(self, out: Float[Tensor, "b head"], target: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Probability of the likeliest action, and whether it was taken."""
        confidence, likeliest = torch.softmax(out, -1).max(-1)
        return torch.stack([confidence, target.gather(1, likeliest[:, None])[:, 0]], 1)

    def calibration_error(self, transformed: Array) -> float:
        """Expected calibration error of the likeliest action."""
        return expected_calibration_error(transformed[:, 0], transformed[:, 1] > 0.5)


def expected_calibration_error(confidence: Array, is_hit: NDArray[np.bool_]) -> float:
    """`sum_bins (n_bin / n) |hits - mean confidence|` over 15 equal bins of [0, 1] (Guo et al. 2017, eq. 3).

    Args:
        confidence: `[n]` predicted probabilities.
        is_hit: `[n]`, whether what was predicted came true.
    """
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gap = np.bincount(bins, weights=is_hit - confidence, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / confidence.size)
