"""Distributions over finitely many choices, with masks: a forbidden choice has probability exactly 0.

A mask is `[*b, n]`, True for the choices that are allowed; None allows all. These functions read no number
back: a row whose mask allows nothing is the caller's to refuse (`refuse_empty_masks`) or to fill
(`without_empty`).
"""

import math
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def refuse_empty_masks(mask: Bool[Tensor, "b n"] | None) -> None:
    """Refuses masks that leave nothing to do.

    Raises:
        ValueError: naming the first row without an allowed choice.
    """
    if mask is None:
        return
    empty = (~mask.any(-1)).nonzero()
    if len(empty):
        raise ValueError(f"the mask of row {int(empty[0])} allows no choice: at least one must be allowed")


def without_empty(mask: Bool[Tensor, "*b n"] | None) -> Bool[Tensor, "*b n"] | None:
    """The mask; a row that allows nothing allows everything.

    Such rows are the padding behind an end, whose value no target reads and which must stay a number.
    """
    return None if mask is None else mask | ~mask.any(-1, keepdim=True)


def forbid(values: Float[Tensor, "*b n"], mask: Bool[Tensor, "*#b n"] | None) -> Float[Tensor, "*b n"]:
    """Minus infinity where a choice is forbidden."""
    return values if mask is None else values.masked_fill(~mask, -math.inf)


def log_probabilities(
    logits: Float[Tensor, "*b n"], mask: Bool[Tensor, "*b n"] | None = None
) -> Float[Tensor, "*b n"]:
    """`log softmax` over the allowed choices; minus infinity elsewhere.

    Args:
        logits: `[*b, n]`, finite.
        mask: `[*b, n]`.
    """
    return torch.log_softmax(forbid(logits, mask), -1)


def log_probability_of(
    log_probs: Float[Tensor, "*b n"], choice: Float[Tensor, "*b n"]
) -> Float[Tensor, "*b"]:
    """Entry of `log_probs` at a one-hot `choice`."""
    # Gathered, not summed: 0 times minus infinity is no number.
    return log_probs.gather(-1, choice.argmax(-1, keepdim=True)).squeeze(-1)


def entropy(log_probs: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """`-sum_a p log p`, nats; forbidden choices add 0."""
    return -expectation(log_probs, log_probs)


def expectation(log_probs: Float[Tensor, "*b n"], values: Float[Tensor, "*#b n"]) -> Float[Tensor, "*b"]:
    """`sum_a p(a) value(a)`, exact over all choices; what a forbidden choice is worth is not read."""
    # Filled: exp(-inf) is 0, and 0 times a value of minus infinity would be no number.
    values = values.masked_fill(log_probs == -math.inf, 0.0)
    return (log_probs.exp() * values).sum(-1)


def greedy_choice(
    values: Float[Tensor, "*b n"], mask: Bool[Tensor, "*b n"] | None = None
) -> Int[Tensor, "*b"]:
    """Index of the best allowed choice; of equal ones the lowest."""
    return forbid(values, mask).argmax(-1)


def one_hot(index: Int[Tensor, "*b"], count: int) -> Float[Tensor, "*b n"]:
    """`[*b, count]` float32, 1 at the index."""
    # Not `torch.nn.functional.one_hot`, which reads the largest index back.
    zeros = torch.zeros(*index.shape, count, device=index.device)
    return zeros.scatter_(-1, index[..., None], 1.0)


def take_choice(values: Float[Tensor, "*#e b n"], choice: Float[Tensor, "b n"]) -> Float[Tensor, "*e b"]:
    """Values at one-hot choices."""
    return (values * choice).sum(-1)


def soft_greedy(
    best: Int[Tensor, "*b"], mask: Bool[Tensor, "*b n"], epsilon: Float[Tensor, ""]
) -> Float[Tensor, "*b n"]:
    """`1 - epsilon` on the best choice and `epsilon` spread evenly over the allowed ones, float64.

    Args:
        best: `[*b]`, an allowed choice.
        mask: `[*b, n]`, at least one choice allowed.
        epsilon: `[]`, in [0, 1].
    """
    share = mask.double() / mask.sum(-1, keepdim=True)
    return (1 - epsilon) * one_hot(best, mask.shape[-1]).double() + epsilon * share


def draw_choice(log_probs: Float[Tensor, "*b n"], noise: Float[Tensor, "*b n"]) -> Int[Tensor, "*b"]:
    """A draw from a distribution, as a function of normal noise: the Gumbel-max trick.

    `argmax_a [log p(a) - log(-log Phi(noise_a))]`: Phi of a standard normal draw is uniform, `-log(-log u)`
    of a uniform one is Gumbel, and the argmax of log-probabilities with Gumbel noise is a draw (Gumbel 1954;
    Maddison et al. 2014), without approximation.

    Args:
        log_probs: `[*b, n]`, minus infinity for what is forbidden.
        noise: `[*b, n]` standard normal draws.
    """
    # log Phi in float64 keeps its digits in both tails, where Phi itself rounds to 0 or 1.
    exponential = -cast(Tensor, torch.special.log_ndtr(noise.double()))
    return (log_probs.double() - exponential.log()).argmax(-1)
