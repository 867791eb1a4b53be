"""What the members minimise: likelihood of the state that followed, and of the reward on the way there."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from mbrl.dynamics.categorical.model import CategoricalDynamics, Heads
from mbrl.dynamics.training import TrainingArrays

_ENTRIES = 4_000_000  # logits of held-out rows that are computed together


def successor_nll(logits: Float[Tensor, "e b k"], successor: Int[Tensor, "e b"]) -> Float[Tensor, "e b"]:
    """`-log softmax(l)_s'`, nats."""
    return cross_entropy(logits.flatten(0, 1), successor.flatten(), reduction="none").view(successor.shape)


def step_nll(
    logits: Float[Tensor, "e b k"],
    successor: Int[Tensor, "e b"],
    error: Float[Tensor, "e b"],
    log_variance: Float[Tensor, "e b"],
) -> Float[Tensor, "e"]:
    """`mean_b [-log softmax(l)_s' + 1/2 (error^2 exp(-v) + v)]`: of s', and of r given s', up to a constant.

    Args:
        logits: `[e, b, S']`.
        successor: `[e, b]`, which of them followed.
        error: `[e, b]`, mean reward of the step to that successor less the logged one, normalised units.
        log_variance: `[e, b]`, v, likewise.

    Returns:
        `[e]`; sum it over members, so that they stay independent.
    """
    reward = 0.5 * (error.square() * torch.exp(-log_variance) + log_variance)
    return (successor_nll(logits, successor) + reward).mean(1)


class CategoricalObjective:
    """Likelihood of steps, plus the weight penalty of the networks.

    A row of inputs is `(s, a)`, normalised, and the index of s; a row of targets the index of s' among the
    states that are entered, and the reward, normalised. float32 holds indices exactly up to 16,777,216.

    Args:
        model: to be trained in place.
        weight_decay: w_k in `1/2 sum_k w_k ||W_k||^2`, one for each layer.
    """

    def __init__(self, model: CategoricalDynamics, *, weight_decay: tuple[float, ...]) -> None:
        self._model = model
        self._decay = torch.zeros_like(model.net.flat[:1])
        for layer, coefficient in zip(model.net.layers(self._decay), weight_decay, strict=True):
            layer.weight.fill_(coefficient)

    def parameters(self) -> list[Tensor]:
        """Weights, and the features of states and of successors."""
        return [self._model.net.flat, self._model.features, self._model.rewards]

    def loss(self, inputs: Float[Tensor, "e b in"], targets: Float[Tensor, "e b k"]) -> Float[Tensor, "e"]:
        """`step_nll` of each member."""
        heads, successor, error = self._asked(inputs, targets)
        return step_nll(heads.logits, successor, error, heads.log_variance)

    @torch.no_grad()
    def add_decay(self) -> None:
        """Adds `w_k W_k` of the networks; features stop early instead."""
        flat = self._model.net.flat
        if flat.grad is None:
            raise RuntimeError("add_decay follows a backward pass")
        flat.grad.addcmul_(flat, self._decay)

    @torch.no_grad()
    def holdout_error(self, arrays: TrainingArrays) -> Float[Tensor, "e"]:
        """Mean cross-entropy of s', nats, plus mean squared error of r, normalised units.

        The likelihood of the reward is left out as the Gaussian ensemble leaves it out: it may be negative,
        and is ruled by deviations.
        """
        model = self._model
        members = model.ensemble_size
        total = torch.zeros(members, dtype=torch.float64, device=arrays.holdout_inputs.device)
        size = max(1, _ENTRIES // (members * len(model.states.entered)))
        rows = len(arrays.holdout_targets)
        for first in range(0, rows, size):
            part = slice(first, first + size)
            shared = [
                values[part].expand(members, -1, -1)
                for values in (arrays.holdout_inputs, arrays.holdout_targets)
            ]
            heads, successor, error = self._asked(*shared)
            nll = successor_nll(heads.logits, successor) + error.square()
            total += nll.sum(1, dtype=torch.float64)
        return total / rows

    def _asked(self, inputs: Tensor, targets: Tensor) -> tuple[Heads, Tensor, Tensor]:
        """What the members say, the successor `[e, b]`, and the error of the reward on the way there."""
        successor = targets[..., 0].long()
        heads = self._model.heads(inputs[..., :-1], inputs[..., -1].long())
        return heads, successor, self._model.reward_at(heads, successor) - targets[..., 1]
