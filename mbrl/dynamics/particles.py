"""Sampled futures: every particle follows one member of a model and draws from its Gaussian at each step."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.protocols import SamplingModel

Act: TypeAlias = Callable[[int, Tensor], Tensor]
"""`(step, [b, obs_dim]) -> [b, act_dim]`: the actions of all particles at a step, environment units."""


@runtime_checkable
class MemberModel(Protocol):
    """A model whose members can be asked one by one, as `DynamicsEnsemble` can."""

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        ...

    def predict_member(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], member: Int[Tensor, "b"]
    ) -> tuple[
        Float[Tensor, "b obs_dim"], Float[Tensor, "b obs_dim"], Float[Tensor, "b"], Float[Tensor, "b"]
    ]:
        """Mean and variance of s', mean and variance of the reward, raw units."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ParticleStep:
    """One step of `s * p` particles, those of a start next to each other.

    Attributes:
        obs: `[s * p, obs_dim]`, where the step began, raw units.
        action: `[s * p, act_dim]`, environment units.
        next_obs: `[s * p, obs_dim]`, sampled, raw units.
        reward_mean: `[s * p]`, that of each particle's member, reward units.
        reward_variance: `[s * p]`, likewise, reward units squared.
    """

    obs: Float[Tensor, "b obs_dim"]
    action: Float[Tensor, "b act_dim"]
    next_obs: Float[Tensor, "b obs_dim"]
    reward_mean: Float[Tensor, "b"]
    reward_variance: Float[Tensor, "b"]


def simulate_particles(
    model: MemberModel,
    start: Float[Tensor, "s obs_dim"],
    act: Act,
    *,
    horizon: int,
    particles: int,
    generator: torch.Generator,
    bounds: tuple[Float[Tensor, "s obs_dim"], Float[Tensor, "s obs_dim"]] | None = None,
) -> Iterator[ParticleStep]:
    """Yields the steps of `particles` futures from each start.

    A particle keeps one member for its whole life, so that what the members dispute is carried along, and
    draws `s' ~ N(mu_e(s, a), sigma_e^2(s, a))` anew at each step (trajectory sampling TS-inf of Chua et al.
    2018, section 5). Particle i follows member `i mod e`: members differ in their share by one at most.

    Args:
        model: predicts, raw units.
        start: `[s, obs_dim]`, raw units.
        act: chooses the actions.
        horizon: steps.
        particles: of each start.
        generator: draws the outcomes, one standard normal vector for each particle and step.
        bounds: least and largest values that the particles of each start may take; None for any.
    """
    count = len(start)
    # `[s * p]`, the same members for every start, so that starts are compared under the same beliefs.
    member = (torch.arange(particles) % model.ensemble_size).expand(count, particles).flatten()
    obs = start.repeat_interleave(particles, 0)
    box = None if bounds is None else [bound.repeat_interleave(particles, 0) for bound in bounds]
    for step in range(horizon):
        action = act(step, obs)
        mean, variance, reward_mean, reward_variance = model.predict_member(obs, action, member)
        # Drawn step by step: the noise of all steps at once would be as large as all futures.
        noise = torch.randn(mean.shape, generator=generator)
        if isinstance(model, SamplingModel):  # a reward is drawn where it is asked for
            next_obs, _ = model.draw_member(obs, action, member, torch.cat((noise, noise[:, :1]), 1))
        else:
            next_obs = torch.addcmul(mean, variance.sqrt(), noise)  # mu + sigma * noise
        if box is not None:
            next_obs = next_obs.clamp(box[0], box[1])
        yield ParticleStep(obs, action, next_obs, reward_mean, reward_variance)
        obs = next_obs


def summarise_particles(
    step: ParticleStep,
    particles: int,
    ends: Float[Tensor, "2"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "s k"], Float[Tensor, "s k"], Float[Tensor, "s k"]]:
    """Mean and ends of a central interval over the particles of each start: observations, then the reward.

    Each dimension for itself: ends are no states.

    Args:
        step: of all particles.
        particles: of each start.
        ends: quantiles, as `central_probabilities` gives them.
        generator: draws the noise of the rewards, one number for each particle.
    """
    # Rewards of an interval need their own noise: the spread of the means alone would be too narrow.
    noise = torch.randn(step.reward_mean.shape, generator=generator)
    reward = torch.addcmul(step.reward_mean, step.reward_variance.sqrt(), noise)
    cloud = torch.cat((step.next_obs, reward[:, None]), 1).view(-1, particles, step.next_obs.shape[1] + 1)
    low, high = torch.quantile(cloud, ends, dim=1)
    reward_mean = step.reward_mean.view(-1, particles).mean(1)  # the noise of the draws has mean 0
    mean = torch.cat((cloud[..., :-1].mean(1), reward_mean[:, None]), 1)
    return mean, low, high


def central_probabilities(ends: tuple[float, float], draws: int) -> Float[Tensor, "2"]:
    """Sample quantiles whose interval holds a further draw with probability `ends[1] - ends[0]`.

    The i-th smallest of P draws lies at the level `i / (P + 1)` on average, and `torch.quantile` puts it at
    `(i - 1) / (P - 1)`; so the level q is found at `(q (P + 1) - 1) / (P - 1)`, whatever P is.

    Args:
        ends: lower and upper level, in [0, 1].
        draws: P, at least 2.
    """
    # Clamped: few draws have no quantile further out than their extremes.
    return ((torch.tensor(ends) * (draws + 1) - 1) / (draws - 1)).clamp(0.0, 1.0)
