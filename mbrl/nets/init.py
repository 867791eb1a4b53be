"""Initialisers that draw from a given generator and never from the global random state."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Initialiser: TypeAlias = Literal["uniform", "truncated_normal"]


@torch.no_grad()
def init_linear_(weight: Tensor, bias: Tensor, *, kind: Initialiser, generator: torch.Generator) -> None:
    """Fills one stacked linear layer in place.

    `uniform`: weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the default of `torch.nn.Linear`.
    `truncated_normal`: standard deviation 1/(2 sqrt(fan_in)), cut at two deviations, bias 0 (Chua et al.
    2018, PETS code).

    Args:
        weight: `[e, in, out]`.
        bias: `[e, 1, out]`.
        kind: which of the two.
        generator: source of the draws.
    """
    fan_in = weight.shape[-2]
    if kind == "uniform":
        bound = 1 / math.sqrt(fan_in)
        weight.uniform_(-bound, bound, generator=generator)
        bias.uniform_(-bound, bound, generator=generator)
        return
    deviation = 1 / (2 * math.sqrt(fan_in))
    # Inverse-CDF sampling: uniform on the kept probability mass, then the normal quantile.
    mass = math.erf(2 / math.sqrt(2))
    uniform = torch.empty(weight.shape, dtype=torch.float64, device=weight.device).uniform_(
        -mass, mass, generator=generator
    )
    weight.copy_(torch.erfinv(uniform) * math.sqrt(2) * deviation)
    bias.zero_()


@torch.no_grad()
def init_small_head_(
    layers: Sequence[tuple[Tensor, Tensor]],
    *,
    hidden_bias: float,
    head_bound: float,
    generator: torch.Generator,
) -> None:
    """Sets hidden biases to a constant and draws the last layer from U(-head_bound, head_bound), in place.

    Outputs then start near 0, as in TD3-like codes that follow Lillicrap et al. 2016 (section 7).

    Args:
        layers: weight `[e, in, out]` and bias `[e, 1, out]` of every linear layer, the last one last.
        hidden_bias: of all layers but the last.
        head_bound: of the last layer's weights and biases.
        generator: source of the draws.
    """
    for _, bias in layers[:-1]:
        bias.fill_(hidden_bias)
    for tensor in layers[-1]:
        # Small outputs at first: tanh is not saturated, and values start from about 0.
        tensor.uniform_(-head_bound, head_bound, generator=generator)
