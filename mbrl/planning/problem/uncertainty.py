"""How unsure the members together are of an imagined step: u(s, a), always in reward units."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import TerminationFn
from mbrl.core.types import DynamicsPosterior
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.model import has_terminated
from mbrl.planning.problem.problem import LeafValue, Prior, UncertaintyFn
from mbrl.uncertainty.measures import MEASURES, POSTERIOR_MEASURES
from mbrl.uncertainty.penalty import UNIT_QUANTILE, UnitFree

UncertaintyName: TypeAlias = Literal[
    "target_q_std", "ens_std", "max_aleatoric", "max_dev", "max_pair", "total_std"
]

_SHARED_SEED: Final = 0
"""Of the draws of a' that all rows and members share; any constant would make u a function of the step."""


class UncertaintyConfig(BaseModel):
    """How u, the uncertainty of an imagined step, is measured; always in reward units.

    Attributes:
        measure: `target_q_std` is the deviation over members of what the step leads to,
            `r_e + discount (1 - ended_e) Q(s'_e, a')`; any other is a measure of the posterior in units of
            its 0.95 quantile on held-out data, times the deviation of the logged rewards.
        action_samples: draws of a' for `target_q_std`; 0 takes the policy's mode.
        proposal_std: deviation of proposals around a policy that has no density, half-range units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    measure: UncertaintyName = "target_q_std"
    action_samples: Annotated[int, Field(ge=0, le=1000)] = 0
    proposal_std: Annotated[float, Field(gt=0, le=2)] = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class TargetDeviation:
    """`std_e [r_e + g (1 - ended_e) mean_{a'} Q(s'_e, a')]` of the members' means, population deviation.

    Q is the mean of the critics. The draws of a' are the same for all rows and members, so that u is a
    function of the step and members that agree have none.

    Attributes:
        termination: probability of termination.
        prior: acts at successors.
        leaf: critics.
        discount: g.
        action_samples: draws of a'; 0 takes the mode.
    """

    termination: TerminationFn
    prior: Prior
    leaf: LeafValue
    discount: float
    action_samples: int = 0

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        posterior: DynamicsPosterior,
    ) -> Float[Tensor, "r"]:
        """The deviation of the targets."""
        # y_e = r_e + g (1 - ended_e) V(s'_e): what each member says that the step is worth.
        ended = has_terminated(self.termination, obs, action, posterior.mean)
        alive = self.discount * (~ended).to(posterior.reward_mean.dtype)
        value = self._value(posterior.mean.flatten(0, 1)).view_as(alive)
        # Population deviation: members are all there is, and one member has 0.
        return torch.addcmul(posterior.reward_mean, alive, value).std(0, correction=0)

    def _value(self, obs: Float[Tensor, "n obs_dim"]) -> Float[Tensor, "n"]:
        """`mean_{a'} Q(s', a')`, Q the mean of the critics."""
        if self.action_samples == 0:
            return self.leaf.value(obs).mean(0)
        shape = (self.action_samples, 1, self.prior.act_dim)
        # Common draws: with draws of their own, members that agree would differ by the noise of a'.
        noise = RowNoise(torch.tensor([_SHARED_SEED], device=obs.device)).normal("target", shape)[0]
        noise = noise.to(obs.dtype).expand(-1, len(obs), -1)
        if self.prior.is_discrete:
            actions = torch.stack([self.prior.act(obs, draw) for draw in noise])
        else:
            actions = self.prior.sample(obs, noise)
        rows = obs.expand(self.action_samples, *obs.shape).flatten(0, 1)
        # Over critics before members: what critics dispute is not uncertainty of the model.
        values = self.leaf.action_value(rows, actions.flatten(0, 1)).mean(0)
        return values.view(self.action_samples, -1).mean(0)


def posterior_uncertainty(
    name: UncertaintyName, thresholds: Mapping[str, Mapping[float, float]], *, reward_scale: float
) -> UncertaintyFn:
    """`c_r min(u / q_0.95, 10)`, a measure of the posterior alone.

    Args:
        name: of the measure.
        thresholds: its quantiles on held-out data, by measure and level, as a fit stores them.
        reward_scale: c_r, deviation of the logged rewards.

    Raises:
        ConfigError: the fit stored no quantile of the measure.
    """
    assert name in POSTERIOR_MEASURES
    quantiles = thresholds.get(name, {})
    if UNIT_QUANTILE not in quantiles:
        raise ConfigError(
            f"The fit stored no {UNIT_QUANTILE:g} quantile of the measure {name!r}, its unit. "
            "Remedy: use measure=target_q_std, or fit again."
        )
    measure = UnitFree(MEASURES.get(name), quantiles[UNIT_QUANTILE])

    def uncertainty(obs: Tensor, action: Tensor, posterior: DynamicsPosterior) -> Tensor:
        del obs, action
        # Unit-free times the deviation of rewards: lambda then compares with that of `target_q_std`.
        return reward_scale * measure(posterior)

    return uncertainty
