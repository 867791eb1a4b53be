"""MOBILE: model rollouts whose targets are lowered by the Bellman inconsistency of the ensemble.

Source: Sun et al. 2023 (ICML): `y = r + discount (1 - terminated) V(s') - beta u(s, a)` on imagined
rows, u the deviation over the elites of the mean value of successors that each of them samples.

`beta` is a pure number: u is made of values, so it scales with the rewards as y does, and a unit of an
observation does not enter at all. No unit-free form is needed, and published coefficients hold as they are.

Departures from the paper and its code:
- all elites sample with the same noise (`is_noise_shared`): members that agree then have no inconsistency,
  however few the samples; with noise of their own, the deviation of a mean of k samples is added to it. So 2
  samples do where the paper takes 10, at a fifth of the work;
- targets are not clamped at 0: with negative rewards every value would be wrong;
- termination is learned from the logs; a task's known rule is a choice;
- the horizon never exceeds the trusted one.
"""

import dataclasses
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.algorithms.base import RECIPES, RecipeContext, Stream
from mbrl.algorithms.model_stream import ModelBasedRecipe, RealRatio, UnpenalisedConfig
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DynamicsModel, Learner, Policy, StateValueFn
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.data.sources import imagined_rows
from mbrl.learners.base import find_phase
from mbrl.uncertainty.measures import StepContext, bellman

_CHUNK_ROWS = 1024
"""Successors that go through actor and critics together: their activations stay in the cache."""


class MOBILEConfig(UnpenalisedConfig):
    """Mostly imagined batches, penalised in the target; see `UnpenalisedConfig`.

    Attributes:
        inconsistency_coef: beta, on the Bellman inconsistency of imagined rows; both are in units of values.
        samples: successors that each elite samples for each imagined row of a batch.
        is_noise_shared: whether all elites sample with the same noise.
    """

    may_penalise: ClassVar[bool] = False  # targets are penalised, not rewards
    may_start_logged: ClassVar[bool] = False
    real_ratio: RealRatio = 0.05
    inconsistency_coef: Annotated[float, Field(ge=0, le=1e4)] = 1.0
    samples: Annotated[int, Field(ge=1, le=1000)] = 2
    is_noise_shared: bool = True


@runtime_checkable
class BootstrapLearner(Protocol):
    """A learner that tells what it would bootstrap on."""

    def next_value(
        self, state: Any, next_obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """V(s') of the Bellman target, as a function of normal noise; without gradients, return units."""
        ...


class InconsistencyPenalty:
    """A learner whose imagined rows earn `r - beta u`, which lowers their targets by `beta u`; a `Learner`.

    Args:
        learner: of the policy; a `BootstrapLearner` as well.
        model: whose elites are compared.
        config: coefficient and samples.
    """

    def __init__(self, learner: Any, model: DynamicsModel, config: MOBILEConfig) -> None:
        self.learner, self.model, self.config = learner, model, config

    def init(self, generator: torch.Generator) -> Any:
        """Fresh networks and optimisers."""
        return self.learner.init(generator)

    def update(self, state: Any, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One update of the learner on the penalised batch."""
        # Logged successors are real: there is nothing for members to dispute.
        rows = imagined_rows(batch, self.config.real_ratio, self.config.learner.config.batch_size)
        # A batch may hold no imagined row: metrics have the same names all the same.
        inconsistency = batch.reward.new_zeros(len(rows))
        if len(rows) > 0:
            obs, action = batch.observation[rows], batch.action[rows]
            inconsistency = self.inconsistency(state, obs, action, generator=generator)
        # y - beta u is the target of a reward r - beta u: nothing of the learner has to change.
        reward = batch.reward.index_add(0, rows, inconsistency, alpha=-self.config.inconsistency_coef)
        metrics = self.learner.update(state, dataclasses.replace(batch, reward=reward), generator)
        return {**metrics, "critic/inconsistency": inconsistency.sum() / max(len(rows), 1)}

    def phase(self, state: Any) -> int | None:
        """The learner's."""
        return find_phase(self.learner, state)

    def policy(self, state: Any) -> Policy:
        """The learner's."""
        return self.learner.policy(state)

    def value(self, state: Any) -> StateValueFn | None:
        """The learner's."""
        return self.learner.value(state)

    @torch.no_grad()
    def inconsistency(
        self,
        state: Any,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        *,
        generator: torch.Generator,
    ) -> Float[Tensor, "b"]:
        """`std_e mean_j V(s'_ej)`, V what the learner bootstraps on.

        Args:
            state: of the learner.
            obs: `[b, obs_dim]`, raw units.
            action: `[b, act_dim]`.
            generator: of the successors and the actions there.

        Returns:
            `[b]`, return units, sample deviation (ddof 1) over the elites.
        """
        posterior = self.model.predict(obs, action)
        # s'_ej = mu_e + sigma_e eps_j, and a'_ej = pi(s'_ej, eps_j), for elites e and samples j
        # One set of noise for all members, expanded below, or one for each.
        members = 1 if self.config.is_noise_shared else posterior.mean.shape[0]
        shape = (self.config.samples, members, len(obs), obs.shape[-1] + action.shape[-1])
        noise = torch.randn(shape, generator=generator, device=generator.device)
        # `[k, e, b, obs_dim + act_dim]`.
        noise = noise.expand(-1, posterior.mean.shape[0], -1, -1)
        successor_noise, action_noise = torch.split(noise, [obs.shape[-1], action.shape[-1]], -1)
        successors = torch.addcmul(posterior.mean, posterior.variance.sqrt(), successor_noise)
        # std_e mean_j V(s'_ej), in parts whose activations stay in the cache
        successor_parts = torch.split(successors.flatten(0, 2), _CHUNK_ROWS)
        noise_parts = torch.split(action_noise.flatten(0, 2), _CHUNK_ROWS)
        parts = zip(successor_parts, noise_parts, strict=True)
        values = torch.cat([self.learner.next_value(state, *part) for part in parts])
        return bellman(posterior, StepContext(next_values=values.view(successors.shape[:-1])))


@RECIPES.register("mobile", "Targets lowered by the ensemble's Bellman inconsistency (Sun et al. 2023).")
class MOBILE(ModelBasedRecipe):
    """Any learner that bootstraps on unpenalised imagination, its targets penalised by the ensemble."""

    Config = MOBILEConfig

    @classmethod
    def make_learner(cls, config: MOBILEConfig, context: RecipeContext) -> Learner[Any]:
        """The learner under a penalty, unless nothing is imagined.

        Raises:
            ConfigError: the learner does not tell its bootstrap value, or there is one elite only.
        """
        learner = super().make_learner(config, context)
        if config.real_ratio == 1:
            return learner
        if not isinstance(learner, BootstrapLearner):
            raise ConfigError(
                f"mobile compares the values that a learner bootstraps on, which {config.learner.name!r} "
                "does not tell. Remedy: set algorithm.learner.name=sac."
            )
        model = context.model(cls.__name__).model
        # The sample deviation of one value is NaN.
        if model.ensemble_size < 2:
            raise ConfigError(
                "mobile needs at least two elites to compare. Remedy: raise dynamics.elites and fit again."
            )
        return InconsistencyPenalty(learner, model, config)

    @classmethod
    def open_stream(cls, config: MOBILEConfig, context: RecipeContext) -> Stream:
        """The unpenalised stream; values may be lower than its rewards permit."""
        stream = super().open_stream(config, context)
        if config.real_ratio == 1:
            return stream
        return dataclasses.replace(stream, value_bounds=_penalised_bounds(stream.value_bounds, config))


def _penalised_bounds(bounds: tuple[float, float] | None, config: MOBILEConfig) -> tuple[float, float] | None:
    """Room below for a penalty of half the range of values in every step: no more is sane."""
    if bounds is None:
        return None
    low, high = bounds
    # Values between low and high deviate by half of the range at most (population form).
    worst = config.inconsistency_coef * 0.5 * (high - low)
    # Paid in every step, so summed like a reward; the upper bound stays, as penalties only lower.
    return low - worst / (1 - config.learner.config.discount), high
