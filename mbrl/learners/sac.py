"""Soft actor-critic with N critics (SAC, SAC-N, EDAC).

Sources: Haarnoja et al. 2018 (arXiv:1812.05905); An et al. 2021 (arXiv:2110.01548) for N critics and their
diversity.

Departures from the papers:
- observations are standardised inside the networks (switch: `normalise_observations`);
- LayerNorm in the critics and a backup without entropy are options;
- the log standard deviation is clipped to [-5, 2] as in the EDAC code; the SAC code uses [-20, 2];
- the temperature may be capped, as OfflineRL-Kit does at 1.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mbrl.core.types import TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig
from mbrl.learners.soft_actor_critic import SoftActorCritic, SoftActorCriticConfig, SoftActorCriticState
from mbrl.nets.passes import NetworkPass
from mbrl.ops.losses import critic_diversity


class SACConfig(SoftActorCriticConfig):
    """Soft actor-critic.

    Attributes:
        diversity_coef: eta of EDAC; 0 is plain SAC-N. Needs at least two critics.
    """

    diversity_coef: Annotated[float, Field(ge=0, le=1e4)] = 0.0

    @model_validator(mode="after")
    def _check_diversity(self) -> "SACConfig":
        if self.diversity_coef > 0 and self.critics < 2:
            raise ValueError("diversity_coef > 0 needs critics >= 2")
        return self


@LEARNERS.register("sac", "Soft actor-critic with N critics; options make it SAC-N and EDAC.")
class SAC(SoftActorCritic[SACConfig, SoftActorCriticState]):
    """The SAC learner: see `SoftActorCritic` for its arguments and its update."""

    Config: ClassVar[type[LearnerConfig]] = SACConfig

    def init(self, generator: torch.Generator) -> SoftActorCriticState:
        """Fresh networks and optimisers."""
        return SoftActorCriticState(**self.build_parts(generator))

    def passes(self, state: SoftActorCriticState) -> tuple[NetworkPass, ...]:
        """Those of the base; for the diversity the critics' gradients in the action, and their derivative.

        That derivative passes both of the gradient's products in each layer: a ReLU has no second derivative,
        so nothing flows back through the values.
        """
        diversity = (NetworkPass(state.critic.net, "input"),) * 2 if self.config.diversity_coef > 0 else ()
        return (*super().passes(state), *diversity)

    def _critic_regulariser(
        self,
        state: SoftActorCriticState,
        batch: TransitionBatch,
        values: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        del values, generator
        # No term rather than 0 times one, which would take a gradient of a gradient for nothing.
        if self.config.diversity_coef == 0:
            return None, {}
        # EDAC: eta / (N - 1) sum_{i != j} <grad_a Q_i, grad_a Q_j> at logged actions (An et al. 2021, eq. 4).
        action = state.critic.scale(batch.action)
        # Critics that rise in different directions at the data differ most away from
        # it, where the least of them is the pessimism.
        diversity = critic_diversity(state.critic.action_gradients(batch.observation, action))
        return self.config.diversity_coef * diversity, {"critic/diversity": diversity.detach()}
