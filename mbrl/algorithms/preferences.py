"""Direct methods: a learner of preferences on the answers of people about a log, and on the log itself."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from mbrl.algorithms.base import RECIPES, Recipe, RecipeConfig, RecipeContext, Stream
from mbrl.core.errors import ConfigError
from mbrl.learners.base import BatchKind
from mbrl.preferences.source import PreferenceSource


class PreferencesConfig(RecipeConfig):
    """A learner of preferences.

    Attributes:
        preferences: file of answers about the log, `.jsonl` or `.parquet`; part of the run's identity by its
            content.
        pairs: answered pairs in an update.
    """

    batch_kinds: ClassVar[frozenset[BatchKind]] = frozenset({"preferences"})
    default_learner: ClassVar[Mapping[str, Any]] = {"name": "cpl"}

    preferences: str | None = None
    pairs: Annotated[int, Field(ge=1, le=65536)] = 32

    @property
    def reads_rewards(self) -> bool:
        """Answers take the place of rewards."""
        return False


@RECIPES.register("preferences", "A learner of preferences on people's answers about a log.")
class Preferences(Recipe):
    """Answered pairs beside logged transitions."""

    Config = PreferencesConfig

    @classmethod
    def open_stream(cls, config: PreferencesConfig, context: RecipeContext) -> Stream:
        """Uniform batches of transitions and of pairs.

        Raises:
            ConfigError: there are no answers.
        """
        if context.preferences is None:
            raise ConfigError(
                "The recipe preferences needs answers about the log. Remedy: "
                "algorithm.preferences=FILE.jsonl (mbrl label LOG makes one)."
            )
        return Stream(PreferenceSource(context.logged(cls.__name__), context.preferences, config.pairs))
