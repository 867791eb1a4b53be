"""MOReL: a learner in a pessimistic MDP, whose unknown region ends the episode at a loss.

Source: Kidambi et al. 2020 (arXiv:2005.05951), definitions 1 and 2: a step is unknown where two members
disagree by more than a threshold (`max_pair`); it leads to the absorbing state HALT. Long rollouts start
where episodes start, and no logged transition enters a batch.

Departures from the paper and its code:
- any learner optimises the policy, on a replay of imagined transitions; the original runs natural policy
  gradients on fresh ones;
- the threshold is the largest disagreement on the data divided by `rollout.truncation_divisor` (c), over the
  elites of a probabilistic ensemble and in units of the logged changes of state;
- HALT earns, once, what the worst logged reward for ever would earn, `min(r_min, 0) / (1 - discount)`; the
  code adds 0 and never ends the path there, so that halting pays where rewards are negative;
- rewards are the model's; the code uses the true reward function;
- termination is learned from the logs; a task's known rule is a choice.
"""

from typing import Annotated, Any

from pydantic import model_validator

from mbrl.algorithms.base import RECIPES, unless_given
from mbrl.algorithms.model_stream import ModelBasedConfig, ModelBasedRecipe, RealRatio
from mbrl.algorithms.penalty import PenaltyConfig
from mbrl.rollouts.config import RolloutConfig

_ROLLOUT: dict[str, Any] = {
    # Long rollouts from where episodes start: what stops them is HALT, not the horizon.
    "horizon": 100,
    "starts": 500,
    "start_states": "initial",
    "respect_trusted_horizon": False,
    # The largest disagreement on the data: known is what is no stranger than any logged step.
    "truncation_quantile": 1.0,
    "flagged": "halt",
}
# No penalty beside the halt, which is the method's own.
_PENALTY: dict[str, Any] = {"measure": "max_pair", "coef": 0.0, "units": "raw"}


class MOReLConfig(ModelBasedConfig):
    """Long rollouts that halt where the members disagree; see `ModelBasedConfig`."""

    rollout: Annotated[RolloutConfig, unless_given(**_ROLLOUT)] = RolloutConfig(**_ROLLOUT)
    penalty: Annotated[PenaltyConfig, unless_given(**_PENALTY)] = PenaltyConfig(**_PENALTY)
    real_ratio: RealRatio = 0.0

    @model_validator(mode="after")
    def _check_halts(self) -> "MOReLConfig":
        # Without a halt the MDP is not pessimistic, and nothing else here would be.
        if self.rollout.flagged != "halt" or self.rollout.truncation_quantile is None:
            raise ValueError(
                "MOReL halts in the unknown region: rollout.flagged must be halt and "
                "rollout.truncation_quantile a number; recipe: model_based takes any stream"
            )
        return self


@RECIPES.register("morel", "A pessimistic MDP: rollouts halt, at a loss, where the model is unknown (2020).")
class MOReL(ModelBasedRecipe):
    """Any learner in the pessimistic MDP."""

    Config = MOReLConfig
