"""Model-free: any learner on the logged transitions."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from mbrl.algorithms.base import RECIPES, Recipe, RecipeConfig, RecipeContext, Stream, reward_value_bounds
from mbrl.core.errors import ConfigError
from mbrl.core.types import TransitionBatch, take
from mbrl.data.merging.mixture import SourceMixture
from mbrl.data.sources import DatasetSource
from mbrl.data.stored.source import StoredSource
from mbrl.ops.several_steps import sum_steps


class ModelFreeConfig(RecipeConfig):
    """A learner on the data, nothing else.

    Attributes:
        best_fraction: share of the training episodes, the best by undiscounted return, that the learner sees;
            0.1 makes 10 % BC of cloning. Whole episodes are kept, at least one. The unit of the rewards is
            that of all episodes.
    """

    may_sum_steps: ClassVar[bool] = True

    best_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def reads_rewards(self) -> bool:
        """Whether the learner does, or the best episodes are looked for."""
        return self.learner.config.reads_rewards or self.best_fraction < 1


@RECIPES.register("model_free", "Any learner on the logged transitions alone.")
class ModelFree(Recipe):
    """Any learner on the dataset."""

    Config = ModelFreeConfig
    weighs_sources: ClassVar[bool] = True
    reads_stored: ClassVar[bool] = True

    @classmethod
    def open_stream(cls, config: ModelFreeConfig, context: RecipeContext) -> Stream:
        """Batches of logged transitions, uniform or in shares of their sources."""
        mixture, stored = _choose_mixture(config, context), context.stored
        # All of the steps as they were logged: they may stay on disk.
        if stored is not None and config.best_fraction == 1 and config.learner.config.summed_steps == 1:
            source, reward = StoredSource(stored, mixture), torch.tensor(stored.reward)
        else:
            transitions = choose_transitions(config, context)
            source, reward = DatasetSource(transitions, mixture), transitions.reward
        # Without rewards there is no value to bound.
        if not config.reads_rewards:
            return Stream(source)
        return Stream(source, value_bounds=reward_value_bounds(reward, config.learner.config.discount))


def _choose_mixture(config: ModelFreeConfig, context: RecipeContext) -> SourceMixture | None:
    """The sources of the transitions that `choose_transitions` chooses.

    Raises:
        ConfigError: rows sum up several steps, so that they are no longer those of the log.
    """
    mixture, episodes = context.mixture, context.episodes
    if mixture is None:
        return None
    if config.learner.config.summed_steps > 1:
        raise ConfigError(
            "weights of sources and rewards summed over several steps do not go together. Remedy: "
            "learner.n_steps=1, or no weights."
        )
    if config.best_fraction == 1 or episodes is None:
        return mixture
    return mixture.take(episodes.best_rows(fraction=config.best_fraction))


def choose_transitions(config: ModelFreeConfig, context: RecipeContext) -> TransitionBatch:
    """The logged transitions of the episodes that the config asks for, over as many steps as it asks for.

    Raises:
        ConfigError: there are no logs, or nobody noted which episodes they belong to.
    """
    transitions, learner = context.logged(ModelFree.__name__), config.learner.config
    # Everything, and nobody needs to know the episodes.
    if config.best_fraction == 1 and learner.summed_steps == 1:
        return transitions
    episode, episodes = context.episode, context.episodes
    if episode is None or episodes is None:
        name = "best_fraction" if config.best_fraction < 1 else "learner.n_steps"
        raise ConfigError(f"{name} needs to know the episode of every transition.")
    if config.best_fraction < 1:
        rows = episodes.best_rows(fraction=config.best_fraction)
        transitions, episode = take(transitions, rows), episode[rows]
    return sum_steps(transitions, episode, steps=learner.summed_steps, discount=learner.discount)
