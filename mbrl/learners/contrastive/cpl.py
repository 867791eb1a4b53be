"""CPL: contrastive preference learning, a policy from answered pairs without rewards or values.

Source: Hejna et al. 2024 (arXiv:2310.13639), eqs. 5 and 6, and the authors' code. People are taken to compare
segments by their advantages, which for the policy that is optimal under an entropy bonus are
`alpha log pi(a | s)`: a score of a segment is thus known without its reward.

Departures:
- the deviation of the Gaussian is that of the clone; the code's is 1, in other words alpha is given in units
  of it;
- pairs are contrasted, as in the paper; the code contrasts all segments of a batch by their scores;
- no dropout, no warm-up of the rate.
"""

import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.learners.base import LEARNERS, LearnerConfig
from mbrl.learners.contrastive.base import ContrastiveConfig, ContrastiveLearner, ContrastiveState
from mbrl.ops.preferences import contrastive_loss
from mbrl.preferences.segments import PairBatch


class CPLConfig(ContrastiveConfig):
    """Contrastive preference learning.

    Attributes:
        temperature: alpha of the scores `alpha sum_t gamma^t log pi(a_t | s_t)`.
        conservative_bias: lambda, in (0, 1]: how much the segment counts that was not preferred. Below 1 the
            loss is least where preferred actions are likely in absolute terms, too.
    """

    temperature: Annotated[float, Field(gt=0, le=1e4)] = 0.1
    conservative_bias: Annotated[float, Field(gt=0, le=1)] = 0.5


@dataclasses.dataclass(slots=True)
class CPLState(ContrastiveState):
    """Policy and optimisers."""


class CPLUpdate(ContrastiveLearner[CPLConfig, CPLState]):
    """The loss of CPL, whatever the policy's form: see `ContrastiveLearner` for its arguments."""

    def init(self, generator: torch.Generator) -> CPLState:
        """Fresh networks and optimisers."""
        return CPLState(*self.build_parts(generator), updates=0)

    def pair_loss(self, state: CPLState, pairs: PairBatch) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 2"]]:
        """`-log [exp A+ / (exp A+ + exp(lambda A-))]`, A the score of a segment, and the scores."""
        scores = self.config.temperature * self.log_probs(state.actor, pairs)
        bias = self.config.conservative_bias
        left, right = scores.unbind(-1)
        return contrastive_loss(left, right, pairs.target, conservative_bias=bias), scores


@LEARNERS.register("cpl", "CPL: contrastive preference learning, a policy straight from answered pairs.")
class CPL(CPLUpdate):
    """The CPL learner of a Gaussian policy."""

    Config: ClassVar[type[LearnerConfig]] = CPLConfig
