"""MoBRAC: a behaviour-regularised actor-critic on logged transitions mixed with model rollouts.

Source: Jackson et al. 2025 (arXiv:2504.11453, Unifloral): ReBRAC (Tarasov et al. 2023, arXiv:2305.09836) on
the stream of MOPO. Imagined actions are the policy's, and so is the next action of an imagined step: on
imagined rows the regularisers hold the policy to what it was at the refresh.

Departures from the paper:
- the penalty is unit-free, and rollouts stop where the uncertainty passes its 0.99 quantile on the data;
- termination is learned from the logs; a task's known rule is a choice;
- the horizon never exceeds the trusted one.
"""

from typing import ClassVar

from pydantic import model_validator

from mbrl.algorithms.base import RECIPES, RecipeConfig, RecipeContext
from mbrl.algorithms.model_stream import ModelBasedConfig, RealRatio, build_model_based
from mbrl.core.protocols import Training


class MoBRACConfig(ModelBasedConfig):
    """Mostly imagined batches for `rebrac`; see `ModelBasedConfig`."""

    real_ratio: RealRatio = 0.05

    @model_validator(mode="after")
    def _check_learner(self) -> "MoBRACConfig":
        if self.learner.name != "rebrac":
            raise ValueError(
                f"mobrac is the learner rebrac on model rollouts, not {self.learner.name!r}; "
                "recipe: model_based takes any learner"
            )
        return self


@RECIPES.register("mobrac", "ReBRAC on penalised model rollouts (Jackson et al. 2025).")
class MoBRAC:
    """Wires ReBRAC to logged data and imagination."""

    Config: ClassVar[type[RecipeConfig]] = MoBRACConfig
    needs_dynamics: ClassVar[bool] = True
    is_online: ClassVar[bool] = False

    @staticmethod
    def build(config: MoBRACConfig, context: RecipeContext) -> Training:
        """A mixture of the dataset and a ring of imagined transitions."""
        return build_model_based("mobrac", config, context)
