"""What members minimise, and for how long: likelihood of a step, cross-entropy of a termination."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.loss import bounded_gaussian_loss
from mbrl.dynamics.termination import TerminationHead
from mbrl.dynamics.training import Schedule, TrainingArrays

PUBLISHED_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
"""L2 coefficients of the five layers (Janner et al. 2019, MBPO code); interpolated for other depths."""


def decay_ramp(layers: int) -> tuple[float, ...]:
    """`PUBLISHED_DECAY` stretched over `layers` layers."""
    places = np.linspace(0.0, len(PUBLISHED_DECAY) - 1.0, layers)
    return tuple(
        float(value) for value in np.interp(places, np.arange(len(PUBLISHED_DECAY)), PUBLISHED_DECAY)
    )


def training_schedule(config: DynamicsConfig, rows: int, max_updates: int, rate: float) -> Schedule:
    """How long a stage of a fit trains.

    Args:
        config: of the fit.
        rows: training rows.
        max_updates: most gradient steps of the stage.
        rate: Adam step size at its start.
    """
    # Patience is counted in epochs: an epoch must be long enough to improve by 1 %, and not take forever.
    one_pass = rows // min(config.batch_size, rows)
    return Schedule(
        max_updates=max_updates,
        epoch_updates=min(max(one_pass, config.min_epoch_updates), config.max_epoch_updates),
        batch_size=config.batch_size,
        learning_rate=rate,
        decay=config.schedule,
        patience=config.patience,
        improvement=config.improvement,
        bootstrap=config.bootstrap,
    )


class StepObjective:
    """Gaussian loss of `(s' - s, r)` plus the pull on the bounds and the weight penalty.

    Its targets are residuals of the linear base (`LinearBase.residual`), which is the same for all members.

    Args:
        ensemble: to be trained in place.
        bound_coef: weight of `sum_d (high_d - low_d)`.
        weight_decay: w_k in `1/2 sum_k w_k ||W_k||^2`, one for each layer.
        beta: of `bounded_gaussian_loss`.
    """

    def __init__(
        self,
        ensemble: DynamicsEnsemble,
        *,
        bound_coef: float,
        weight_decay: tuple[float, ...],
        beta: float = 0.0,
    ) -> None:
        self._ensemble = ensemble
        self._bound_coef, self._beta = bound_coef, beta
        self._decay = torch.zeros_like(ensemble.net.flat[:1])
        for layer, coefficient in zip(ensemble.net.layers(self._decay), weight_decay, strict=True):
            layer.weight.fill_(coefficient)

    def parameters(self) -> list[Tensor]:
        """All weights, and the log-variance bounds."""
        return [self._ensemble.net.flat, self._ensemble.bounds]

    def loss(self, inputs: Float[Tensor, "e b in"], targets: Float[Tensor, "e b k"]) -> Float[Tensor, "e"]:
        """`bounded_gaussian_loss` of each member, of what the linear base leaves."""
        return bounded_gaussian_loss(self._ensemble.net(inputs), self._ensemble.bounds, targets, self._beta)

    @torch.no_grad()
    def add_decay(self) -> None:
        """Adds `w_k W_k` and the constant gradient of the bound penalty."""
        net, bounds = self._ensemble.net, self._ensemble.bounds
        # `1/2 sum_k w_k ||W_k||^2` has the gradient w_k W_k; `_decay` holds w_k at weights and 0 at biases.
        # `c sum_d (high_d - low_d)` has -c and +c: bounds that the likelihood does not need apart close in.
        if net.flat.grad is None or bounds.grad is None:
            raise RuntimeError("add_decay follows a backward pass")
        net.flat.grad.addcmul_(net.flat, self._decay)
        bounds.grad[:, 0] -= self._bound_coef
        bounds.grad[:, 1] += self._bound_coef

    @torch.no_grad()
    def holdout_error(self, arrays: TrainingArrays) -> Float[Tensor, "e"]:
        """Mean squared error of the mean, normalised units.

        Not the likelihood: that is ruled by the deviations, and does not rank models by how well they
        predict (Lambert et al. 2020).
        """
        device = arrays.holdout_inputs.device
        total = torch.zeros(self._ensemble.ensemble_size, dtype=torch.float64, device=device)
        scale = self._ensemble.base.scale
        for inputs, targets in arrays.holdout_blocks():
            mean, _ = self._ensemble.net(inputs).chunk(2, -1)
            total += ((mean - targets) * scale).square().sum((1, 2), dtype=torch.float64)
        return total / arrays.holdout_targets.numel()


class TerminationObjective:
    """Cross-entropy of the termination flag, terminated rows weighted.

    Args:
        head: to be trained in place; its weight of a terminated row is that of the loss.
    """

    def __init__(self, head: TerminationHead) -> None:
        self._head = head
        self._weight = head.log_weight.exp()

    def parameters(self) -> list[Tensor]:
        """All weights."""
        return [self._head.net.flat]

    def loss(self, inputs: Float[Tensor, "e b in"], targets: Float[Tensor, "e b k"]) -> Float[Tensor, "e"]:
        """Weighted binary cross-entropy of each member."""
        return self._cross_entropy(inputs, targets).mean((1, 2))

    def add_decay(self) -> None:
        """Nothing: the head stops early instead."""

    @torch.no_grad()
    def holdout_error(self, arrays: TrainingArrays) -> Float[Tensor, "e"]:
        """The same loss on held-out rows."""
        members = self._head.net.members
        total = torch.zeros(members, dtype=torch.float64, device=arrays.holdout_inputs.device)
        for inputs, targets in arrays.holdout_blocks():
            shared = targets.expand(members, *targets.shape)
            total += self._cross_entropy(inputs, shared).sum((1, 2), dtype=torch.float64)
        return total / arrays.holdout_targets.numel()

    def _cross_entropy(self, inputs: Tensor, targets: Tensor) -> Tensor:
        # -[w y log p + (1 - y) log(1 - p)], p = sigmoid(logit).
        logits = self._head.logits(inputs).unsqueeze(-1)
        return binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=self._weight)
