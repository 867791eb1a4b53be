"""Model-free: any learner on the logged transitions."""

import dataclasses
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from mbrl.algorithms.base import (
    RECIPES,
    Recipe,
    RecipeConfig,
    RecipeContext,
    Stream,
    data_value_bounds,
)
from mbrl.core.errors import ConfigError
from mbrl.core.types import TransitionBatch, take
from mbrl.data.returns import LoggedEpisodes
from mbrl.data.sources import DatasetSource

RewardTransform: TypeAlias = Literal["none", "return_range"]


class ModelFreeConfig(RecipeConfig):
    """A learner on the data, nothing else.

    Attributes:
        best_fraction: share of the training episodes, the best by undiscounted return, that the learner sees;
            0.1 makes 10 % BC of cloning. Whole episodes are kept, at least one.
        reward_transform: `return_range` multiplies rewards by 1000 / (greatest - least return of the training
            episodes), before any are filtered out; values that the learner reports are in these units.
    """

    best_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    reward_transform: RewardTransform = "none"


@RECIPES.register("model_free", "Any learner on the logged transitions alone.")
class ModelFree(Recipe):
    """Any learner on the dataset."""

    Config = ModelFreeConfig

    @classmethod
    def open_stream(cls, config: ModelFreeConfig, context: RecipeContext) -> Stream:
        """Uniform batches of logged transitions."""
        transitions = prepare_transitions(config, context)
        return Stream(
            DatasetSource(transitions),
            value_bounds=data_value_bounds(transitions, config.learner.config.discount),
            reward_scale=reward_scale(config, context),
        )


def reward_scale(config: ModelFreeConfig, context: RecipeContext) -> float:
    """What the rewards are multiplied by: 1 unless `reward_transform` says otherwise.

    Raises:
        ConfigError: there are no logs, or nobody noted which episodes they belong to.
        DataError: returns have no range to scale by.
    """
    if config.reward_transform == "none":
        return 1.0
    return _episodes(context).return_range_scale()


def prepare_transitions(config: ModelFreeConfig, context: RecipeContext) -> TransitionBatch:
    """The logged transitions, rewards scaled and episodes filtered as the config says.

    Raises:
        ConfigError: there are no logs, or nobody noted which episodes they belong to.
        DataError: returns have no range to scale by.
    """
    transitions = context.logged(ModelFree.__name__)
    if config.reward_transform == "none" and config.best_fraction == 1:
        return transitions
    episodes, scale = _episodes(context), reward_scale(config, context)
    transitions = dataclasses.replace(transitions, reward=transitions.reward * scale)
    if config.best_fraction < 1:
        transitions = take(transitions, episodes.best_rows(fraction=config.best_fraction))
    return transitions


def _episodes(context: RecipeContext) -> LoggedEpisodes:
    if context.episodes is None:
        raise ConfigError("best_fraction and reward_transform need to know the episode of every transition.")
    return context.episodes
