"""Gaussian densities, squashing and log-variance bounds."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

LOG_2 = math.log(2.0)
LOG_2PI = math.log(2.0 * math.pi)


def gaussian_log_prob(
    x: Float[Tensor, "*b d"], mean: Float[Tensor, "*b d"], log_std: Float[Tensor, "*b d"]
) -> Float[Tensor, "*b"]:
    """Log-density of a diagonal Gaussian, `-1/2 sum_d [((x - mean)/std)^2 + 2 log std + log 2 pi]`."""
    # A product with exp(-log std): networks give log_std, and nothing is divided by a small deviation.
    standardised = (x - mean) * torch.exp(-log_std)
    return -0.5 * (standardised.square() + 2 * log_std + LOG_2PI).sum(-1)


def tanh_log_det(x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
    """Log-determinant of `tanh`, `sum_d log(1 - tanh(x_d)^2)`, in the form that does not underflow.

    `log(1 - tanh(x)^2) = 2 (log 2 - x - softplus(-2 x))`; a squashed density subtracts it (Haarnoja et al.
    2018, appendix C, eq. 21).
    """
    return (2 * (LOG_2 - x - softplus(-2 * x))).sum(-1)


def gaussian_nll(error: Float[Tensor, "*b d"], log_variance: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """Negative log-likelihood in nats per dimension, `1/2 [error^2 exp(-l) + l + log 2 pi]`."""
    # Not summed over dimensions: how dimensions are weighed is up to the caller.
    return 0.5 * (error.square() * torch.exp(-log_variance) + log_variance + LOG_2PI)


def mixture_transform(
    x: Float[Tensor, "b d"],
    log_weights: Float[Tensor, "b k"],
    means: Float[Tensor, "b k d"],
    log_stds: Float[Tensor, "b k d"],
) -> Float[Tensor, "b d"]:
    """Probability integral transform of draws from a mixture of diagonal Gaussians, one dimension at a time.

    `u_j = sum_k w_k(x_1 .. x_{j-1}) Phi((x_j - mean_kj) / std_kj)`: the weights are those given the
    dimensions before (Rosenblatt 1952). If x was drawn from the mixture, u is uniform on the unit cube.

    Args:
        x: `[b, d]`.
        log_weights: `[b, k]`, normalised.
        means: `[b, k, d]`.
        log_stds: `[b, k, d]`.
    """
    # Component k has seen the dimensions before j with density prod_{i<j} N(x_i): its weight given these.
    z = (x[:, None] - means) * torch.exp(-log_stds)
    log_density = -0.5 * (z.square() + LOG_2PI) - log_stds
    before = log_density.cumsum(-1) - log_density
    weights = torch.softmax(log_weights[..., None] + before, 1)
    # Phi by erfc, which keeps its digits in the lower tail.
    below = 0.5 * torch.erfc(-z / math.sqrt(2.0))
    return (weights * below).sum(1)


def standard_normal_kl(mean: Float[Tensor, "*b d"], log_std: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """`KL(N(mean, std^2) || N(0, 1)) = 1/2 (mean^2 + std^2 - 1 - 2 log std)` in nats, per dimension."""
    return 0.5 * (mean.square() + torch.exp(2 * log_std) - 1 - 2 * log_std)


def gaussian_kl(
    first: tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]],
    second: tuple[Float[Tensor, "*b d"], Float[Tensor, "*b d"]],
) -> Float[Tensor, "*b"]:
    """`KL(N(m1, s1^2) || N(m2, s2^2)) = sum_d [l2 - l1 + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2]`, in nats.

    The same after both are squashed by one bijection, such as `tanh`.

    Args:
        first: mean and log standard deviation.
        second: likewise.
    """
    (mean, log_std), (other, log_other) = first, second
    # A bijection changes both densities by one Jacobian, which cancels.
    ratio = torch.exp(2 * (log_std - log_other))
    distance = ((mean - other) * torch.exp(-log_other)).square()
    return (log_other - log_std + 0.5 * (ratio + distance - 1)).sum(-1)


def soft_clamp(
    x: Float[Tensor, "*b d"], low: Float[Tensor, "*#b d"], high: Float[Tensor, "*#b d"]
) -> Float[Tensor, "*b d"]:
    """Smooth two-sided bound: first `high - softplus(high - x)`, then `low + softplus(. - low)`.

    The bound that PETS puts on log-variances (Chua et al. 2018, appendix A.1). The second step leaks above
    `high` by `log(1 + exp(low - high))`.

    Args:
        x: `[*b, d]`.
        low: lower bounds, broadcast against x.
        high: upper bounds, broadcast against x.

    Returns:
        `[*b, d]`, with a gradient everywhere.
    """
    # Unlike a hard clamp it pulls values from beyond a bound back: the gradient never vanishes.
    x = high - softplus(high - x)
    return low + softplus(x - low)


def standard_normal_cdf(x: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """`Phi(x) = (1 + erf(x / sqrt 2)) / 2` in float64: a standard normal draw becomes a uniform one."""
    # float64: in float32 Phi rounds to 1 from about 5.4 on, and quantiles of 1 are infinite.
    return 0.5 * (1 + torch.erf(x.double() / math.sqrt(2)))
