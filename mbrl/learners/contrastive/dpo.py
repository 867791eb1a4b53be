"""DPO: direct preference optimisation of segments, against a clone that is kept as the reference.

Source: Rafailov et al. 2023 (arXiv:2305.18290), eq. 7, with the log-ratio of a segment in the place of an
answer's: `sum_t gamma^t log [pi(a_t | s_t) / pi_ref(a_t | s_t)]`, as Hejna et al. 2024 (arXiv:2310.13639),
appendix, compare it for control.

Departures: the policy is a Gaussian whose deviation stays that of the reference.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.learners.base import LEARNERS, LearnerConfig
from mbrl.learners.contrastive.base import (
    ContrastiveConfig,
    ContrastiveLearner,
    ContrastiveState,
    DensityPolicy,
)
from mbrl.ops.preferences import direct_preference_loss
from mbrl.preferences.segments import PairBatch


class DPOConfig(ContrastiveConfig):
    """Direct preference optimisation.

    Attributes:
        temperature: beta of the paper, what a nat of the log-ratio is worth; larger keeps the policy nearer
            to the reference.
    """

    temperature: Annotated[float, Field(gt=0, le=1e4)] = 0.1


@dataclasses.dataclass(slots=True)
class DPOState(ContrastiveState):
    """Besides policy and optimisers the reference."""

    reference: DensityPolicy


class DPOUpdate(ContrastiveLearner[DPOConfig, DPOState]):
    """The loss of DPO, whatever the policy's form: see `ContrastiveLearner` for its arguments."""

    def init(self, generator: torch.Generator) -> DPOState:
        """Fresh networks and optimisers."""
        actor, clone, contrast = self.build_parts(generator)
        reference = copy.deepcopy(actor).requires_grad_(requires_grad=False)
        return DPOState(actor, clone, contrast, updates=0, reference=reference)

    def begin_contrast(self, state: DPOState) -> None:
        """The clone becomes the reference."""
        state.reference.load_state_dict(state.actor.state_dict())

    def pair_loss(self, state: DPOState, pairs: PairBatch) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 2"]]:
        """`-log sigmoid(beta (ratio+ - ratio-))`, and beta times the log-ratios."""
        beta = self.config.temperature
        scores = beta * self.log_probs(state.actor, pairs)
        with torch.no_grad():
            known = beta * self.log_probs(state.reference, pairs)
        loss = direct_preference_loss(
            scores[:, 0], scores[:, 1], known[:, 0], known[:, 1], target=pairs.target
        )
        return loss, scores - known


@LEARNERS.register("dpo", "DPO: direct preference optimisation of segments against a reference clone.")
class DPO(DPOUpdate):
    """The DPO learner of a Gaussian policy."""

    Config: ClassVar[type[LearnerConfig]] = DPOConfig
