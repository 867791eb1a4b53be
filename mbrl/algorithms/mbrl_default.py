"""The single default of this package for model-based offline learning; no published algorithm.

A soft actor-critic with the least of several LayerNorm critics (the guard at the edge of what rollouts
reach: Sims et al. 2024, arXiv:2402.12527; An et al. 2021, arXiv:2110.01548), a backup without entropy, and
the stream of MOPO (Yu et al. 2020, arXiv:2005.13239) with a unit-free penalty of 1, which needs no tuning for
each task. Over choices the actor-critic is `discrete_sac`.

Departures from MOPO: those of the recipe `mopo`; besides, the learner is part of the recipe.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import ModelBasedConfig, ModelBasedRecipe


class MBRLDefaultConfig(ModelBasedConfig):
    """The common stream with a learner that need not be named; see `ModelBasedConfig`."""

    only_learners: ClassVar[tuple[str, ...]] = ("sac", "discrete_sac")
    default_learner: ClassVar[Mapping[str, Any]] = {
        "name": "sac",
        # The least of several bounded critics guards states at
        # the edge of rollouts, without a setting to tune.
        "critics": 5,
        "critic_layer_norm": True,
        "actor_learning_rate": 1e-4,
        "actor_schedule": "cosine",
        "has_entropy_backup": False,
        "entropy_coef": 0.1,
    }


@RECIPES.register("mbrl_default", "The default: several critics, unit-free penalty, truncated rollouts.")
class MBRLDefault(ModelBasedRecipe):
    """The default learner on the default stream."""

    Config = MBRLDefaultConfig
