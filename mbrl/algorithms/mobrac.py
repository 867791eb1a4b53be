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

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import ModelBasedConfig, ModelBasedRecipe, RealRatio


class MoBRACConfig(ModelBasedConfig):
    """Mostly imagined batches for `rebrac`; see `ModelBasedConfig`."""

    only_learners: ClassVar[tuple[str, ...]] = ("rebrac",)
    # Mostly imagined, as in the paper.
    real_ratio: RealRatio = 0.05


@RECIPES.register("mobrac", "ReBRAC on penalised model rollouts (Jackson et al. 2025).")
class MoBRAC(ModelBasedRecipe):
    """ReBRAC on logged data and penalised imagination."""

    Config = MoBRACConfig
