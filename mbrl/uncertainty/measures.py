"""Uncertainty measures `u(s, a)`, registered by name.

All work over the members of the posterior that they are given (the elites of a fitted model), in normalised
target units: deviations of `s' - s` in the training data. So they do not depend on the units of a dimension,
and a member that is not an elite cannot change them.

Most read the posterior alone and are `UncertaintyMeasure`s. Three need more, in a `StepContext`: `ll_var` the
sampled outcome, `knn` the query and the dataset's rows, `bellman` values at sampled successors.
"""

import dataclasses
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.registry import Registry
from mbrl.core.types import DynamicsPosterior
from mbrl.ops.gaussian import gaussian_log_prob
from mbrl.uncertainty.density import DensityReference

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class StepContext:
    """What some measures read besides the posterior.

    Attributes:
        obs: `[b, obs_dim]`, raw units; for `knn`, and for `ll_var` far from 0.
        action: `[b, act_dim]`, environment units; for `knn`.
        reference: the dataset's rows; for `knn`.
        episode: `[b]` int64, of rows that belong to the dataset themselves, None for others; for `knn`, which
            then leaves out rows of the same episode.
        outcome: `[b, obs_dim]` sampled next observation, raw units; for `ll_var`.
        next_values: `[k, e, b]`, the least target critic at k successors sampled from each member, with the
            policy's actions there, return units; for `bellman`.
    """

    obs: Float[Tensor, "b obs_dim"] | None = None
    action: Float[Tensor, "b act_dim"] | None = None
    reference: DensityReference | None = None
    episode: Int[Tensor, "b"] | None = None
    outcome: Float[Tensor, "b obs_dim"] | None = None
    next_values: Float[Tensor, "k e b"] | None = None


@runtime_checkable
class Measure(Protocol):
    """An uncertainty measure; one that ignores its context is an `UncertaintyMeasure`."""

    def __call__(
        self, posterior: DynamicsPosterior, context: StepContext | None = None
    ) -> Float[Tensor, "b"]:
        """`[b]`, non-negative."""
        ...


MEASURES: Registry[Measure] = Registry(
    "uncertainty measure",
    "mbrl.uncertainty",
    group="mbrl.measures",
    spelling='mbrl.registry("measures")',
    needs=("__call__",),
)

POSTERIOR_MEASURES = ("ens_std", "max_aleatoric", "max_dev", "max_pair", "total_std")
"""Measures that need no context."""


@MEASURES.register("ens_std")
def ens_std(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Disagreement of the means, `sqrt(mean_d Var_e mu)`, population variance (NEUBAY's `epi_mean`)."""
    del context
    # The members are all there is, no sample of more: population variance, which is 0 and not NaN for one.
    return _mean_n(posterior).var(0, correction=0).mean(-1).sqrt()


@MEASURES.register("max_aleatoric")
def max_aleatoric(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Largest predicted deviation, `max_e sqrt(sum_d sigma_d^2)`, reward included (Yu et al. 2020)."""
    del context
    # MOPO's ||Sigma_e||_F, Sigma_e the diagonal matrix of deviations: sqrt(sum_d sigma_{e,d}^2).
    state = _variance_n(posterior).sum(-1)
    # The reward is one more dimension of the same Gaussian, in deviations of the logged rewards.
    reward = posterior.reward_variance / posterior.reward_scale.square()
    return (state + reward).amax(0).sqrt()


@MEASURES.register("max_dev")
def max_dev(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Largest distance of a member's mean from their average, `max_e ||mu_e - mean_e mu||`."""
    del context
    mean = _mean_n(posterior)
    # The norm before the maximum: one member that is off in all dimensions counts
    # for more than several that are off in one each.
    return _distance(mean, mean.mean(0)).amax(0)


@MEASURES.register("max_pair")
def max_pair(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Largest distance of two means, `max_{i<j} ||mu_i - mu_j||` (Kidambi et al. 2020, MOReL)."""
    del context
    mean = _mean_n(posterior)
    largest = mean.new_zeros(mean.shape[1])
    # Members on a ring: a turn by k compares all pairs k apart, so e / 2 turns see each pair once or twice.
    for shift in range(1, mean.shape[0] // 2 + 1):
        largest = torch.maximum(largest, _distance(mean, mean.roll(shift, 0)).amax(0))
    return largest


@MEASURES.register("total_std")
def total_std(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Deviation of the mixture, `sqrt(mean_d (Var_e mu + mean_e sigma^2))` (Lu et al. 2022)."""
    del context
    # Law of total variance over an equal mixture: Var = Var_e mu_e + mean_e sigma_e^2.
    between = _mean_n(posterior).var(0, correction=0)
    within = _variance_n(posterior).mean(0)
    return (between + within).mean(-1).sqrt()


@MEASURES.register("ll_var")
def ll_var(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Variance over members of the log-likelihood of the sampled outcome, `Var_e log N(x; mu_e, sigma_e)`."""
    outcome = _need(context.outcome if context else None, "ll_var", "the sampled outcome (`outcome`)")
    # In normalised units the density changes by a constant, sum_d log scale_d, which the variance drops.
    log_std = 0.5 * torch.log(_variance_n(posterior))
    # Outcome and means relative to s where the change is known exactly: differences of large
    # numbers lose the digits that members differ in.
    origin = context.obs if context is not None and posterior.change is not None else None
    point = (outcome if origin is None else outcome - origin) / posterior.delta_scale
    mean = _mean_n(posterior) if origin is not None else posterior.mean / posterior.delta_scale
    return gaussian_log_prob(point.expand_as(log_std), mean, log_std).var(0, correction=0)


@MEASURES.register("knn")
def knn(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Mean distance of (s, a) to its 5 nearest dataset rows, over sqrt(dim); no ensemble needed."""
    del posterior
    episode = context.episode if context else None
    reference = _need(context.reference if context else None, "knn", "the dataset's rows (`reference`)")
    obs = _need(context.obs if context else None, "knn", "the observations (`obs`)")
    action = _need(context.action if context else None, "knn", "the actions (`action`)")
    # The members are not asked: distance to the data tells of steps that they agree on and know nothing of.
    return reference.distance(obs, action, episode)


@MEASURES.register("bellman")
def bellman(posterior: DynamicsPosterior, context: StepContext | None = None) -> Float[Tensor, "b"]:
    """Deviation of the next value, `std_e mean_j min_i Q(s'_ej, a'_ej)` (Sun et al. 2023, MOBILE).

    Value units, sample deviation (ddof 1). It needs a learner's critics; a fit has none.
    """
    del posterior
    values = _need(context.next_values if context else None, "bellman", "a learner's values (`next_values`)")
    # The mean over k successors is taken first: their spread is noise of the world, not of the model.
    return values.mean(0).std(0, correction=1)


def _distance(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).square().sum(-1).sqrt()


def _mean_n(posterior: DynamicsPosterior) -> Float[Tensor, "e b d"]:
    """The members' means up to a shift that they share: differences between them are all that is used.

    The change is exact where s' is not: at s = 1e4 float32 knows s' to 1e-3, and members that dispute less
    would agree.
    """
    mean = posterior.mean if posterior.change is None else posterior.change
    return mean / posterior.delta_scale


def _variance_n(posterior: DynamicsPosterior) -> Float[Tensor, "e b d"]:
    return posterior.variance / posterior.delta_scale.square()


def _need(value: T | None, measure: str, what: str) -> T:
    if value is None:
        raise ConfigError(
            f"The uncertainty measure {measure!r} needs {what}, which is not available here. "
            f"Remedy: use one of {', '.join(POSTERIOR_MEASURES)}."
        )
    return value
