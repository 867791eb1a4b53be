"""Losses of imitation: discriminators, and the dual of matching an expert's occupancy."""

import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from mbrl.ops.targets import td_target

Divergence: TypeAlias = Literal["chi2", "kl"]
"""`f(x) = (x - 1)^2 / 2`, and `f(x) = x log x - x + 1`, of `D_f(d || d_O) = E_{d_O} f(d / d_O)`."""


def discrimination_loss(
    expert_logit: Float[Tensor, "n"], other_logit: Float[Tensor, "m"]
) -> Float[Tensor, ""]:
    """`-mean_E log D - mean_O log(1 - D)`, `D = sigmoid(logit)`: the binary cross-entropy, in nats.

    Its minimum over free logits is `logit = log(p_E / p_O)` (Goodfellow et al. 2014, proposition 1; Ho &
    Ermon 2016, eq. 14).

    Args:
        expert_logit: `[n]`, of demonstrated rows.
        other_logit: `[m]`, of the others; both sides count alike, whatever n and m.
    """
    # -log sigmoid(x) = softplus(-x) and -log(1 - sigmoid(x)) = softplus(x): no logarithm of 0.
    return softplus(-expert_logit).mean() + softplus(other_logit).mean()


def airl_logit(advantage: Float[Tensor, "b"], log_prob: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
    """Logit of `D = exp f / (exp f + pi(a|s))`, which is `f - log pi(a|s)` (Fu et al. 2018, section 4).

    Against rows of the policy itself, the best f is the expert's log-density: what the policy already does is
    taken out of what the discriminator learns.

    Args:
        advantage: `[b]`, f(s, a, s').
        log_prob: `[b]`, of the action by the present policy, detached, nats.
    """
    return advantage - log_prob


def shaped_reward(
    reward: Float[Tensor, "b"],
    potential: Float[Tensor, "b"],
    next_potential: Float[Tensor, "b"],
    terminated: Bool[Tensor, "b"],
    *,
    discount: float,
) -> Float[Tensor, "b"]:
    """`f = g + discount (1 - terminated) h(s') - h(s)` (Fu et al. 2018, eq. 4; Ng et al. 1999).

    The potential h changes no optimal policy, so that g keeps what is worth something and h what is learned
    of the dynamics. That of an end is 0.

    Args:
        reward: `[b]`, g.
        potential: `[b]`, h(s).
        next_potential: `[b]`, h(s').
        terminated: `[b]`.
        discount: in [0, 1).
    """
    return td_target(reward, terminated, next_potential, discount=discount) - potential


def unit_gradient_penalty(gradient: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """`mean (|gradient| - 1)^2` over rows (Gulrajani et al. 2017, eq. 3)."""
    # Not the norm itself: its derivative at 0 is none.
    length = gradient.square().sum(-1).clamp_min(1e-16).sqrt()
    return (length - 1).square().mean()


def interpolate(
    first: Float[Tensor, "b d"], second: Float[Tensor, "b d"], share: Float[Tensor, "b"]
) -> Float[Tensor, "b d"]:
    """A point between each two rows, `share` in [0, 1] of the way from the first."""
    return torch.lerp(first, second, share[:, None])


def occupancy_error(
    reward: Float[Tensor, "b"],
    value: Float[Tensor, "b"],
    next_value: Float[Tensor, "b"],
    terminated: Bool[Tensor, "b"],
    *,
    discount: float,
) -> Float[Tensor, "b"]:
    """`e = R + discount (1 - terminated) V(s') - V(s)`, whose function the dual's weights are."""
    return td_target(reward, terminated, next_value, discount=discount) - value


def occupancy_dual_loss(
    initial_value: Float[Tensor, "k"],
    error: Float[Tensor, "b"],
    *,
    discount: float,
    divergence: Divergence,
) -> Float[Tensor, ""]:
    """The dual of `max_d E_d R - D_f(d || d_O)` over occupancies d of the task, as a function of V.

    `(1 - discount) E_{mu_0} V(s_0) + E_{d_O} f*(e)` for chi^2, where `f*(y) = max(y + 1, 0)^2 / 2 - 1/2`, and
    `(1 - discount) E_{mu_0} V(s_0) + log E_{d_O} exp(e)` for KL (Ma et al. 2022, eqs. 16 and 17; Kim et al.
    2022, eq. 10). Convex in V; at its least the weights of `occupancy_weights` make the log's occupancy that
    of the best policy.

    Args:
        initial_value: `[k]`, V of states where episodes start.
        error: `[b]`, e on rows of the log, see `occupancy_error`; differentiable in V.
        discount: in [0, 1).
        divergence: which f.
    """
    start = (1 - discount) * initial_value.mean()
    if divergence == "kl":
        # log mean exp, with the largest taken out: e may be hundreds.
        return start + torch.logsumexp(error, 0) - math.log(error.shape[0])
    # f*(y) = max_{x >= 0} x y - f(x), at x = max(y + 1, 0): occupancies are not negative.
    return start + (0.5 * torch.relu(error + 1).square() - 0.5).mean()


def occupancy_weights(error: Float[Tensor, "b"], *, divergence: Divergence) -> Float[Tensor, "b"]:
    """`d(s, a) / d_O(s, a)` of the best occupancy: `max(e + 1, 0)`, or `exp(e)` of mean 1 over the batch.

    Args:
        error: `[b]`, e at the dual's least V, detached.
        divergence: which f.
    """
    if divergence == "kl":
        return torch.softmax(error, 0) * error.shape[0]
    return torch.relu(error + 1)
