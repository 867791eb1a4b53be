"""Losses of answers: success or failure, Bradley-Terry of returns, and contrasts of log-densities."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def logistic_loss(logit: Float[Tensor, "*b"], target: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """`-y log sigmoid(x) - (1 - y) log(1 - sigmoid(x))`, nats; its derivative in x is `sigmoid(x) - y`.

    Args:
        logit: log-odds of success.
        target: probability of success, 0 or 1 where it is known.
    """
    # -log sigmoid(x) = softplus(-x), which neither overflows nor takes the logarithm of 0.
    return target * softplus(-logit) + (1.0 - target) * softplus(logit)


def preference_probability(
    left: Float[Tensor, "*b"], right: Float[Tensor, "*b"], *, lapse: float = 0.0
) -> Float[Tensor, "*b"]:
    """`(1 - lapse) / (1 + exp(right - left)) + lapse / 2`: Bradley & Terry 1952 on sums of rewards.

    Args:
        left: sum of rewards of the left segment.
        right: of the right one.
        lapse: probability that an annotator answers at random, 0 to 1 (Christiano et al. 2017, section 2.2.3,
            take 0.1).
    """
    return (1.0 - lapse) * torch.sigmoid(left - right) + 0.5 * lapse


def bradley_terry_loss(
    left: Float[Tensor, "*e n"],
    right: Float[Tensor, "*e n"],
    target: Float[Tensor, "*e n"],
    *,
    lapse: float = 0.0,
) -> Float[Tensor, "*e n"]:
    """Cross-entropy of each pair, nats (Christiano et al. 2017, eq. 1; arXiv:1706.03741).

    Args:
        left: sums of rewards of the left segments.
        right: of the right ones.
        target: probability that left is preferred; 1/2 for equal segments.
        lapse: see `preference_probability`.
    """
    gap = left - right
    if lapse == 0.0:
        return logistic_loss(gap, target)
    probability = preference_probability(left, right, lapse=lapse)
    return -(target * probability.log() + (1.0 - target) * (1.0 - probability).log())


def contrastive_loss(
    left: Float[Tensor, "n"],
    right: Float[Tensor, "n"],
    target: Float[Tensor, "n"],
    *,
    conservative_bias: float = 1.0,
) -> Float[Tensor, "n"]:
    """`-log [exp A+ / (exp A+ + exp(bias A-))]` of each pair (Hejna et al. 2024, eqs. 5 and 6).

    A+ is the score of the preferred segment. A bias below 1 makes the other one count less, so that the loss
    also falls when both scores rise together: what was logged stays likely.

    Args:
        left: scores of the left segments, `alpha sum_t gamma^t log pi(a_t | s_t)`.
        right: of the right ones.
        target: probability that left is preferred.
        conservative_bias: lambda, in (0, 1]; 1 is the plain contrast.
    """
    prefers_left = softplus(conservative_bias * right - left)
    prefers_right = softplus(conservative_bias * left - right)
    return target * prefers_left + (1.0 - target) * prefers_right


def direct_preference_loss(
    left: Float[Tensor, "n"],
    right: Float[Tensor, "n"],
    reference_left: Float[Tensor, "n"],
    reference_right: Float[Tensor, "n"],
    target: Float[Tensor, "n"],
) -> Float[Tensor, "n"]:
    """`-log sigmoid((left - reference_left) - (right - reference_right))` (Rafailov et al. 2023, eq. 7).

    Args:
        left: `beta sum_t log pi(a_t | s_t)` of the left segments.
        right: of the right ones.
        reference_left: the same of the reference policy.
        reference_right: likewise.
        target: probability that left is preferred (the cross-entropy with it, where it is not 0 or 1).
    """
    return bradley_terry_loss(left - reference_left, right - reference_right, target)
