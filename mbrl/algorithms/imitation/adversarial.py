"""Adversarial imitation in the learned model: AIRL, and GAIL by a switch.

Sources: Fu, Luo & Levine 2018 (AIRL, arXiv:1710.11248); Ho & Ermon 2016 (GAIL, arXiv:1606.03476); off-policy
steps and the gradient penalty as in discriminator-actor-critic, Kostrikov et al. 2019 (arXiv:1809.02925); in
a model of the log, Chang et al. 2021 (MILO, arXiv:2106.03207).

Departures:
- policies act in the fitted ensemble alone, from logged states on, and pay for its uncertainty;
- the expert is told from what the policies of the last refreshes imagined;
- the policy is that of an off-policy learner (SAC), whose critics also see logged and demonstrated steps, at
  the discriminator's present reward; its temperature is its own, where AIRL has 1;
- GAIL's reward is the logit `log D - log(1 - D)`, which has both signs, instead of `-log(1 - D)`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mbrl.algorithms.base import RECIPES, RecipeContext, Stream
from mbrl.algorithms.imitation.adversary import AdversarialLearner, AdversaryConfig
from mbrl.algorithms.model_stream import ModelBasedConfig, ModelBasedRecipe
from mbrl.core.protocols import Learner
from mbrl.data.sources import DemonstrationSource
from mbrl.nets.widths import Hidden

DiscriminatorForm: TypeAlias = Literal["airl", "gail"]


class AdversarialConfig(ModelBasedConfig):
    """A discriminator of an expert's steps, and a learner that is rewarded by it.

    `penalty.coef` is in nats here: what a step costs that is as uncertain as the 95th percentile of the data.

    Attributes:
        form: `airl` takes the policy's density out of the discriminator, whose reward then is one that
            explains the expert; `gail` does not.
        reads_actions: whether the reward reads the action; AIRL's reward carries over to other dynamics only
            without.
        shaping: learns a potential beside the reward (`airl` only).
        discriminator_hidden: widths of the hidden layers of reward and potential.
        discriminator_learning_rate: Adam rate of both.
        gradient_penalty: weight of `(|grad| - 1)^2` between the expert's steps and others; 0 for none.
        demonstrations: steps of the expert in an update.
    """

    default_learner: ClassVar[Mapping[str, Any]] = {
        "name": "sac",
        "critics": 2,
        "critic_layer_norm": True,
        "has_entropy_backup": True,
        "entropy_coef": 0.1,
    }

    may_start_logged: ClassVar[bool] = False

    real_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.25
    form: DiscriminatorForm = "airl"
    reads_actions: bool = False
    shaping: bool = True
    discriminator_hidden: Hidden = (128, 128)
    discriminator_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    gradient_penalty: Annotated[float, Field(ge=0, le=1e4)] = 1.0
    demonstrations: Annotated[int, Field(ge=1, le=65536)] = 128

    @model_validator(mode="after")
    def _check_shaping(self) -> "AdversarialConfig":
        if self.form == "gail" and self.shaping:
            raise ValueError("GAIL's discriminator has no potential: set shaping to false")
        return self

    @property
    def reads_rewards(self) -> bool:
        """The expert takes the place of rewards."""
        return False


@RECIPES.register("adversarial", "AIRL or GAIL: a reward that tells an expert from what policies imagine.")
class Adversarial(ModelBasedRecipe):
    """An off-policy learner on imagination, rewarded by a discriminator."""

    Config = AdversarialConfig
    imitates: ClassVar[bool] = True

    @classmethod
    def make_learner(cls, config: AdversarialConfig, context: RecipeContext) -> Learner[Any]:
        """The learner behind a discriminator."""
        settings = AdversaryConfig(
            subtracts_log_prob=config.form == "airl",
            reads_actions=config.reads_actions,
            shaping=config.shaping,
            hidden=config.discriminator_hidden,
            learning_rate=config.discriminator_learning_rate,
            gradient_penalty=config.gradient_penalty,
            discount=config.learner.config.discount,
            real_ratio=config.real_ratio,
            batch_size=config.learner.config.batch_size,
        )
        return AdversarialLearner(super().make_learner(config, context), settings, context)

    @classmethod
    def open_stream(cls, config: AdversarialConfig, context: RecipeContext) -> Stream:
        """The stream of MOPO without its rewards, and demonstrated steps beside it.

        Raises:
            ConfigError: there is no expert, or see `ModelBasedRecipe.open_stream`.
        """
        expert = context.demonstrations(cls.__name__)
        logged, dynamics = context.logged(cls.__name__), context.model(cls.__name__)
        unrewarded = dataclasses.replace(
            context,
            transitions=dataclasses.replace(logged, reward=torch.zeros_like(logged.reward)),
            # Imagined steps earn nothing but their penalty, in nats.
            dynamics=dataclasses.replace(dynamics, known_reward=_nothing, reward_scale=1.0),
        )
        stream = super().open_stream(config, unrewarded)
        # Start states are no part of the method: any will do where nobody noted the first ones.
        initial = logged.observation if context.episodes is None else context.episodes.first_observation
        source = DemonstrationSource(stream.source, expert, initial, config.demonstrations)
        # The learned reward moves, so that nobody knows what values it permits.
        return dataclasses.replace(stream, source=source, value_bounds=None)


def _nothing(
    obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], next_obs: Float[Tensor, "b obs_dim"]
) -> Float[Tensor, "b"]:
    del action, next_obs
    return obs.new_zeros(len(obs))
