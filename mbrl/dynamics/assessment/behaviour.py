"""Who acted in the log, as a linear law: what closes the loop where a model is judged as policies meet it."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import fit_moments
from mbrl.ops.ridge import ridge_solutions, with_ones

_RIDGE = 1e-6  # per row, on standardised observations
_CHUNK = 65_536


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LinearBehaviour:
    """`a = clip(W (s - mean) / std + b)`, a ridge regression of the logged actions; the largest of choices.

    Controllers of machines are mostly feedback laws that a linear one is near to; `error` says how near.

    Attributes:
        mean: `[obs_dim]`, raw units.
        std: `[obs_dim]`, raw units.
        weights: `[obs_dim + 1, act_dim]`, environment units.
        low: `[act_dim]` bounds of the actions.
        high: `[act_dim]`.
        error: root mean square error over that of the mean action, mean over dimensions; 0 is exact, 1
            knows nothing.
        are_choices: actions are one-hot.
    """

    mean: Tensor
    std: Tensor
    weights: Tensor
    low: Tensor
    high: Tensor
    error: float
    are_choices: bool = False

    @classmethod
    def fit(cls, rows: Transitions, spec: SpaceSpec, *, held_out: Transitions) -> "LinearBehaviour":
        """Least squares over `rows`; the error is that of `held_out`."""
        mean, std = fit_moments(rows.observation)
        blocks = (slice(k, k + _CHUNK) for k in range(0, len(rows), _CHUNK))
        parts = ((_scaled(rows, part, mean, std), torch.tensor(rows.action[part])) for part in blocks)
        (weights,) = ridge_solutions(parts, (_RIDGE,))
        everything = slice(None)
        action = torch.tensor(held_out.action).double()
        guess = with_ones(_scaled(held_out, everything, mean, std)) @ weights
        left = (guess - action).square().mean(0)
        all_of_it = (action - torch.tensor(rows.action).double().mean(0)).square().mean(0)
        error = torch.where(all_of_it > 0, left / all_of_it, 0.0).sqrt().mean()
        arrays = (torch.from_numpy(mean), torch.from_numpy(std), weights.float())
        low, high = torch.tensor(spec.act_low), torch.tensor(spec.act_high)
        return cls(arrays[0].float(), arrays[1].float(), arrays[2], low, high, float(error), spec.is_discrete)

    def act(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b act_dim"]:
        """The law's actions, environment units."""
        raw = (obs - self.mean) / self.std @ self.weights[:-1] + self.weights[-1]
        if self.are_choices:  # a model must not be asked for half of one choice and half of another
            return torch.nn.functional.one_hot(raw.argmax(-1), raw.shape[-1]).to(raw.dtype)
        return raw.clamp(self.low, self.high)


def _scaled(rows: Transitions, part: slice, mean: NDArray[np.floating], std: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy((rows.observation[part].astype(np.float64) - mean) / std)
