"""The single default of this package for model-based offline learning; no published algorithm.

A soft actor-critic with the least of several LayerNorm critics (the guard at the edge of what rollouts
reach: Sims et al. 2024, arXiv:2402.12527; An et al. 2021, arXiv:2110.01548), a backup without entropy, and
the stream of MOPO (Yu et al. 2020, arXiv:2005.13239) with a unit-free penalty of 1, which needs no tuning for
each task.

Departures from MOPO: those of the recipe `mopo`; besides, the learner is part of the recipe.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, cast

from pydantic import model_validator

from mbrl.algorithms.base import RECIPES, RecipeConfig, RecipeContext
from mbrl.algorithms.model_stream import ModelBasedConfig, build_model_based
from mbrl.core.protocols import Training

LEARNER: Final[Mapping[str, Any]] = {
    "name": "sac",
    "critics": 5,
    "critic_layer_norm": True,
    "actor_learning_rate": 1e-4,
    "actor_schedule": "cosine",
    "has_entropy_backup": False,
    "entropy_coef": 0.1,
}
"""What the learner's section holds unless it says otherwise."""


class MBRLDefaultConfig(ModelBasedConfig):
    """The common stream with a learner that need not be named; see `ModelBasedConfig` and `LEARNER`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_learner(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = cast("Mapping[str, Any]", values)
        section = given.get("learner", {})
        if not isinstance(section, Mapping) or "config" in section:
            return given
        learner = cast("Mapping[str, Any]", section)
        if learner.get("name", "sac") != "sac":
            raise ValueError(
                f"mbrl_default has the learner sac, not {learner['name']!r}; "
                "recipe: model_based takes any learner"
            )
        return {**given, "learner": {**LEARNER, **learner}}


@RECIPES.register("mbrl_default", "The default: several critics, unit-free penalty, rollouts cut by doubt.")
class MBRLDefault:
    """Wires the default learner to the default stream."""

    Config: ClassVar[type[RecipeConfig]] = MBRLDefaultConfig
    needs_dynamics: ClassVar[bool] = True
    is_online: ClassVar[bool] = False

    @staticmethod
    def build(config: MBRLDefaultConfig, context: RecipeContext) -> Training:
        """A mixture of the dataset and a ring of imagined transitions."""
        return build_model_based("mbrl_default", config, context)
