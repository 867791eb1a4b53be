"""Model-free: any learner on the logged transitions."""

from typing import ClassVar

from mbrl.algorithms.base import RECIPES, RecipeConfig, RecipeContext, data_value_bounds
from mbrl.core.protocols import Training
from mbrl.data.sources import DatasetSource


class ModelFreeConfig(RecipeConfig):
    """A learner on the data, nothing else."""


@RECIPES.register("model_free", "Any learner on the logged transitions alone.")
class ModelFree:
    """Wires a learner to the dataset."""

    Config: ClassVar[type[RecipeConfig]] = ModelFreeConfig
    needs_dynamics: ClassVar[bool] = False
    is_online: ClassVar[bool] = False

    @staticmethod
    def build(config: ModelFreeConfig, context: RecipeContext) -> Training:
        """Uniform batches of logged transitions."""
        transitions = context.logged("model_free")
        return Training(
            learner=config.learner.build(context.for_learner(config)),
            source=DatasetSource(transitions),
            batch_size=config.learner.config.batch_size,
            value_bounds=data_value_bounds(transitions, config.learner.config.discount),
        )
