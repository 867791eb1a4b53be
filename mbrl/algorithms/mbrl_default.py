"""The single default of this package for model-based offline learning; no published algorithm.

The stream of MOPO (Yu et al. 2020, arXiv:2005.13239) with a strong unit-free penalty, long rollouts that are
cut where the model is unsure and a fifth of each batch logged, under a soft actor-critic with two small
LayerNorm critics and a backup without entropy. Long rollouts in a model that is fitted well, cut by its
doubt, and LayerNorm are those of NEUBAY (arXiv:2512.04341); the penalty stands in for its many critics, at a
fifth of the cost. Over choices the actor-critic is `discrete_sac`.

Departures from MOPO: those of the recipe `mopo`; besides, the learner is part of the recipe.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from mbrl.algorithms.base import RECIPES, unless_given
from mbrl.algorithms.model_stream import ModelBasedConfig, ModelBasedRecipe, RealRatio
from mbrl.algorithms.penalty import PenaltyConfig
from mbrl.rollouts.config import RolloutConfig


class MBRLDefaultConfig(ModelBasedConfig):
    """The common stream with a learner that need not be named; see `ModelBasedConfig`."""

    only_learners: ClassVar[tuple[str, ...]] = ("sac", "discrete_sac")
    default_learner: ClassVar[Mapping[str, Any]] = {
        "name": "sac",
        "hidden": (128, 128),
        "critics": 2,
        "critic_layer_norm": True,
        "actor_learning_rate": 1e-3,
        "critic_learning_rate": 1e-3,
        "has_entropy_backup": False,
        "entropy_coef": 0.1,
    }

    rollout: Annotated[RolloutConfig, unless_given(horizon=20, starts=2000)] = RolloutConfig(
        horizon=20, starts=2000
    )
    penalty: Annotated[PenaltyConfig, unless_given(coef=5.0)] = PenaltyConfig(coef=5.0)
    real_ratio: RealRatio = 0.2


@RECIPES.register("mbrl_default", "The default: long rollouts, cut and penalised where the model is unsure.")
class MBRLDefault(ModelBasedRecipe):
    """The default learner on the default stream."""

    Config = MBRLDefaultConfig
