"""Losses of critics and actors. Sums over members keep members independent; means are over the batch."""

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.ops.gaussian import gaussian_log_prob

_LEAST_VALUE = 1e-8
"""Mean |Q| below which a loss is no longer scaled by it: critics that answer 0 everywhere."""


def masked_mean(values: Float[Tensor, "*n b"], is_included: Bool[Tensor, "b"]) -> Float[Tensor, "*n"]:
    """Mean over the rows where `is_included` `[b]` is True; 0 where there are none."""
    weight = is_included.to(values.dtype)
    # At least one: without any row the mean is 0 and its gradient as well, not 0 / 0.
    return (values * weight).sum(-1) / weight.sum().clamp_min(1.0)


def critic_loss(
    action_values: Float[Tensor, "n b"],
    target: Float[Tensor, "b"],
    *,
    is_included: Bool[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    """Squared Bellman error `sum_i mean_b (Q_i - y)^2`.

    Args:
        action_values: `[n, b]`, each critic at the batch.
        target: `[b]`, detached.
        is_included: `[b]`, the rows of the mean; None for all.
    """
    # A sum over critics: the gradient of one does not depend on how many there are.
    error = (action_values - target).square()
    return (error.mean(1) if is_included is None else masked_mean(error, is_included)).sum()


def soft_policy_loss(
    log_prob: Float[Tensor, "b"], action_values: Float[Tensor, "n b"], *, entropy_coef: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """`mean_b [entropy_coef * log pi(a|s) - min_i Q_i(s, a)]` (Haarnoja et al. 2018, eq. 7, with N critics).

    Args:
        log_prob: `[b]`, of reparameterised actions.
        action_values: `[n, b]`, critics at those actions, differentiable in them.
        entropy_coef: temperature, detached.
    """
    # The least of all critics: the actor looks for errors that
    # are too high, and the minimum hides single ones.
    return (entropy_coef * log_prob - action_values.amin(0)).mean()


def temperature_loss(
    log_entropy_coef: Float[Tensor, ""], log_prob: Float[Tensor, "b"], *, target_entropy: float
) -> Float[Tensor, ""]:
    """`-mean log(entropy_coef) (log pi + H)`: raises the temperature while the entropy lies below H.

    Haarnoja et al. 2018, eq. 18, with the log of the coefficient as the factor, like the reference code.

    Args:
        log_entropy_coef: `[]`, the learned parameter.
        log_prob: `[b]`, detached.
        target_entropy: H, in nats.
    """
    # With the entropy below H the bracket is positive on average, so descending raises the coefficient.
    return -(log_entropy_coef * (log_prob + target_entropy)).mean()


def critic_diversity(action_gradients: Float[Tensor, "n b act_dim"]) -> Float[Tensor, ""]:
    """EDAC's term `1/(N-1) mean_b sum_{i != j} <g_i, g_j>` of normalised gradients.

    An et al. 2021, eq. 4. Identical critics give exactly N, orthogonal gradients 0.

    Args:
        action_gradients: `[n, b, act_dim]`, dQ_i/da at data actions, n >= 2; differentiable in the critics.
    """
    members = action_gradients.shape[0]
    length = cast(Tensor, torch.linalg.vector_norm(action_gradients, dim=-1, keepdim=True))
    # sum_{i != j} <u_i, u_j> = ||sum_i u_i||^2 - sum_i ||u_i||^2: linear in the critics, not quadratic.
    unit = action_gradients / (length + 1e-10)  # a flat critic has no direction, and counts as none
    gram_sum = unit.sum(0).square().sum(-1)
    diagonal = unit.square().sum(-1).sum(0)
    return ((gram_sum - diagonal) / (members - 1)).mean()


def squared_action_error(
    predicted: Float[Tensor, "b act_dim"], action: Float[Tensor, "b act_dim"]
) -> Float[Tensor, ""]:
    """`mean_{b,d} (pi(s)_d - a_d)^2`, on actions scaled to [-1, 1]."""
    return (predicted - action).square().mean()


def squared_action_distance(
    predicted: Float[Tensor, "b act_dim"], action: Float[Tensor, "b act_dim"]
) -> Float[Tensor, "b"]:
    """`sum_d (pi(s)_d - a_d)^2` of each row, on actions scaled to [-1, 1]."""
    return (predicted - action).square().sum(-1)


def regularised_policy_loss(
    action_values: Float[Tensor, "b"],
    deviation: Float[Tensor, "*b"],
    *,
    value_coef: float,
    deviation_coef: float,
) -> Float[Tensor, ""]:
    """`mean_b [deviation_coef * D - kappa Q(s, pi(s))]`, `kappa = value_coef / mean_b |Q|` without gradient.

    Fujimoto & Gu 2021 (D averaged over action dimensions, deviation_coef 1); Tarasov et al. 2023 (D summed
    over them, value_coef 1).

    Args:
        action_values: `[b]`, values of the policy's actions, differentiable in these.
        deviation: `[b]` or its mean `[]`, distance of the policy's actions from the logged ones.
        value_coef: size of the value term: the mean of `|kappa Q|`.
        deviation_coef: weight of the distance.
    """
    # lambda = alpha / mean |Q| is a number, not a function: no gradient through it.
    scale = value_coef / action_values.detach().abs().mean().clamp_min(_LEAST_VALUE)
    return deviation_coef * deviation.mean() - scale * action_values.mean()


def mixture_log_prob(
    x: Float[Tensor, "b d"],
    log_weights: Float[Tensor, "b k"],
    means: Float[Tensor, "b k d"],
    log_stds: Float[Tensor, "b k d"],
) -> Float[Tensor, "b"]:
    """Log-density of a mixture of diagonal Gaussians, `logsumexp_k (log w_k + log N_k(x))`.

    Args:
        x: `[b, d]`.
        log_weights: `[b, k]`, normalised: `logsumexp_k = 0`.
        means: `[b, k, d]`.
        log_stds: `[b, k, d]`.
    """
    # [b, k]: every component judges every row, and the sum over them is taken in logarithms.
    components = gaussian_log_prob(x[:, None].expand_as(means), means, log_stds)
    return torch.logsumexp(log_weights + components, 1)
