"""Imitation without a model: a learner of demonstrations on a mixed log that need not be good."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from mbrl.algorithms.base import RECIPES, Recipe, RecipeConfig, RecipeContext, Stream
from mbrl.core.types import concat
from mbrl.data.sources import DatasetSource, DemonstrationSource
from mbrl.learners.base import BatchKind


class DemonstrationsConfig(RecipeConfig):
    """A learner of demonstrations.

    Attributes:
        demonstrations: steps of the expert, and states where episodes start, in an update.
        includes_expert: whether the expert's steps are part of the log as well, so that there is something to
            clone where the log has nothing like them.
    """

    default_learner: ClassVar[Mapping[str, Any]] = {"name": "smodice"}
    batch_kinds: ClassVar[frozenset[BatchKind]] = frozenset({"demonstrations"})

    demonstrations: Annotated[int, Field(ge=1, le=65536)] = 256
    includes_expert: bool = True

    @property
    def reads_rewards(self) -> bool:
        """The expert takes the place of rewards."""
        return False


@RECIPES.register("demonstrations", "A learner of demonstrations on an expert's steps and a mixed log.")
class Demonstrations(Recipe):
    """Logged transitions with demonstrated ones beside them."""

    Config = DemonstrationsConfig
    imitates: ClassVar[bool] = True

    @classmethod
    def open_stream(cls, config: DemonstrationsConfig, context: RecipeContext) -> Stream:
        """Uniform batches of the log, of the expert's steps and of start states.

        Raises:
            ConfigError: there is no expert, or nobody noted where the logged episodes start.
        """
        expert, logged = context.demonstrations(cls.__name__), context.logged(cls.__name__)
        # Rewards of either are never read; those of the expert may not even be there.
        rows = concat([logged, expert]) if config.includes_expert else logged
        initial = context.first_observations(cls.__name__)
        return Stream(DemonstrationSource(DatasetSource(rows), expert, initial, config.demonstrations))
