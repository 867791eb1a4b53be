"""Dynamics models made ready to roll policies out: their end of the task, and where they leave their data."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DynamicsModel, RewardFn, TerminationFn, UncertaintyMeasure
from mbrl.core.types import DynamicsPosterior
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.rollouts.box import Box
from mbrl.uncertainty.measures import ens_std

MEASURE: Final = "ens_std"
"""Disagreement of the members' means, each dimension in deviations of the data."""

TailValue: TypeAlias = Callable[[Tensor, Tensor, int | None], Tensor]
"""`(obs, action, steps to go, or None without a horizon) -> [b]`, reward units."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EvaluationModel:
    """A model to roll out.

    Attributes:
        dynamics: every member's belief; a member is rolled out by itself.
        termination: probability that the task ends.
        threshold: u_max, exceeded by the disagreement at 1 % of logged steps that the members were not fitted
            to; live steps beyond it are counted. The measure's units.
        limit: disagreement beyond which a roll-out stops, the same units: the largest on any logged step.
        measure: disagreement of the members.
        dataset_hash: of the log that the model was fitted to; empty where unknown.
        is_own: whether the policy was trained in it.
        samples: draw s' and r from a member's Gaussian; else follow its mean.
        box: beyond which imagined steps are clipped; None leaves that to who rolls out.
        reward: known rule in the place of the model's reward, or None.
    """

    dynamics: DynamicsModel
    termination: TerminationFn
    threshold: float = math.inf
    limit: float = math.inf
    measure: UncertaintyMeasure = ens_std
    dataset_hash: str = ""
    is_own: bool = False
    samples: bool = True
    box: Box | None = None
    reward: RewardFn | None = None

    @classmethod
    def of(
        cls,
        fitted: FittedDynamics,
        *,
        termination: TerminationFn | None = None,
        quantile: float = 0.99,
        stop_quantile: float = 1.0,
    ) -> "EvaluationModel":
        """A fit with the quantiles of its disagreement on logged steps.

        Args:
            fitted: what a fit left behind.
            termination: replaces the learned head, such as a task's known rule.
            quantile: of the threshold; the fit must have stored it.
            stop_quantile: of the limit; likewise.

        Raises:
            ConfigError: it has not.
        """
        stored = fitted.thresholds.get(MEASURE, {})
        for wanted in (quantile, stop_quantile):
            if wanted not in stored:
                raise ConfigError(
                    f"The fit stored no {wanted:g} quantile of {MEASURE!r}, so roll-outs cannot tell where "
                    "they leave the data. Remedy: add it to dynamics.assessment.truncation_quantiles and fit "
                    "again."
                )
        return cls(
            fitted.model,
            termination or fitted.termination,
            threshold=stored[quantile],
            limit=stored[stop_quantile],
            dataset_hash=fitted.dataset_hash,
            reward=fitted.known_reward,
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ModelPanel:
    """The members of several ensembles as one model; implements `DynamicsModel`.

    Attributes:
        models: ensembles of one task, at least one; the members of the first come first.
    """

    models: tuple[DynamicsModel, ...]

    @property
    def ensemble_size(self) -> int:
        """Members of all of them."""
        return sum(model.ensemble_size for model in self.models)

    def predict(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> DynamicsPosterior:
        """Every member's belief; deviations of the data are those of the first ensemble."""
        found = [model.predict(obs, action) for model in self.models]
        changes = [one.mean - obs if one.change is None else one.change for one in found]
        return DynamicsPosterior(
            mean=torch.cat([posterior.mean for posterior in found]),
            variance=torch.cat([posterior.variance for posterior in found]),
            reward_mean=torch.cat([posterior.reward_mean for posterior in found]),
            reward_variance=torch.cat([posterior.reward_variance for posterior in found]),
            delta_scale=found[0].delta_scale,
            reward_scale=found[0].reward_scale,
            change=torch.cat(changes),
        )

    def predict_member(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], member: Int[Tensor, "b"]
    ) -> tuple[
        Float[Tensor, "b obs_dim"], Float[Tensor, "b obs_dim"], Float[Tensor, "b"], Float[Tensor, "b"]
    ]:
        """Mean and variance of s' and of r, each row from its own member."""
        mean, reward = torch.empty_like(obs), obs.new_empty(len(obs))
        out = (mean, torch.empty_like(mean), reward, torch.empty_like(reward))
        first = 0
        for model in self.models:
            rows = (member >= first) & (member < first + model.ensemble_size)
            if bool(rows.any()):
                parts = model.predict_member(obs[rows], action[rows], member[rows] - first)
                for whole, part in zip(out, parts, strict=True):
                    whole[rows] = part
            first += model.ensemble_size
        return out


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MeanTermination:
    """The mean probability of several heads; implements `TerminationFn`.

    Attributes:
        heads: at least one.
    """

    heads: tuple[TerminationFn, ...]

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]`, in [0, 1]."""
        return torch.stack([head(obs, action, next_obs) for head in self.heads]).mean(0)


@torch.no_grad()
def panel_of(
    fits: Sequence[FittedDynamics],
    termination: TerminationFn,
    held_out: tuple[Float[Tensor, "n obs_dim"], Float[Tensor, "n act_dim"]],
    *,
    quantile: float = 0.99,
) -> EvaluationModel:
    """Several fits as one model, whose members are rolled out to the end wherever they disagree.

    How far they disagree is what the spread of their values says, so nothing is cut; the share of the steps
    beyond the threshold is counted as for one fit.

    Args:
        fits: to one log.
        termination: probability that the task ends.
        held_out: logged states and actions that at least one of them was not fitted to.
        quantile: of the panel's disagreement there, which is the threshold.
    """
    panel = ModelPanel(tuple(fit.model for fit in fits))
    disagreement = ens_std(panel.predict(*held_out)).double()
    threshold = float(torch.quantile(disagreement, quantile))
    return EvaluationModel(
        panel,
        termination,
        threshold=threshold,
        dataset_hash=fits[0].dataset_hash,
        reward=fits[0].known_reward,
    )
