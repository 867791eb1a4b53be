"""ReBRAC: TD3 that pays for leaving the logged actions, in the actor and in the critic.

Source: Tarasov et al. 2023 (arXiv:2305.09836).

Departures from the paper and its code:
- LayerNorm stands between a linear map and its ReLU; the code has it after the ReLU;
- observations are standardised inside the networks (the code leaves them raw; switch:
  `normalise_observations`);
- rows without a next action pay no critic penalty; the code has a next action in every row;
- both targets follow the networks of the same update; the code moves the target actor by the actor of the
  update before, and delays from the first update on (1, 3, 5, ...) instead of the second (2, 4, 6, ...).
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, cast

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.types import TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext
from mbrl.learners.deterministic import TD3Config, TD3Learner, TD3State
from mbrl.nets.init import init_small_head_
from mbrl.ops.losses import regularised_policy_loss, squared_action_distance
from mbrl.ops.targets import penalised_next_value

Preset: TypeAlias = Literal[
    "halfcheetah-random",
    "hopper-random",
    "walker2d-random",
    "halfcheetah-medium",
    "hopper-medium",
    "walker2d-medium",
    "halfcheetah-medium-replay",
    "hopper-medium-replay",
    "walker2d-medium-replay",
    "halfcheetah-medium-expert",
    "hopper-medium-expert",
    "walker2d-medium-expert",
]

PRESETS: Final[Mapping[Preset, tuple[float, float]]] = {
    "halfcheetah-random": (0.001, 0.1),
    "hopper-random": (0.001, 0.01),
    "walker2d-random": (0.01, 0.0),
    "halfcheetah-medium": (0.001, 0.01),
    "hopper-medium": (0.01, 0.01),
    "walker2d-medium": (0.05, 0.1),
    "halfcheetah-medium-replay": (0.01, 0.001),
    "hopper-medium-replay": (0.05, 0.5),
    "walker2d-medium-replay": (0.05, 0.01),
    "halfcheetah-medium-expert": (0.01, 0.1),
    "hopper-medium-expert": (0.1, 0.01),
    "walker2d-medium-expert": (0.01, 0.01),
}
"""Coefficients of actor and critic by D4RL set, from the authors' files in CORL (configs/offline/rebrac)."""

_HIDDEN_BIAS: Final = 0.1
_ACTOR_HEAD: Final = 1e-3
_CRITIC_HEAD: Final = 3e-3
_COEFS: Final = ("actor_bc_coef", "critic_bc_coef")


class ReBRACConfig(TD3Config):
    """Behaviour-regularised actor-critic, revisited.

    Attributes:
        critic_layer_norm: LayerNorm in the critics.
        preset: D4RL set whose published coefficients hold, by its exact name; null for those given here.
        actor_bc_coef: weight of the squared distance from the logged action in the actor's loss.
        critic_bc_coef: weight of the squared distance from the logged next action in the target, return
            units.
    """

    critic_layer_norm: bool = True
    preset: Preset | None = None
    actor_bc_coef: Annotated[float, Field(ge=0, le=1e4)] = 0.01
    critic_bc_coef: Annotated[float, Field(ge=0, le=1e4)] = 0.01

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = cast(Mapping[str, Any], values)
        preset = given.get("preset")
        if preset not in list(PRESETS):  # none, or one that the field's own check refuses by name
            return given
        filled = dict(zip(_COEFS, PRESETS[preset], strict=True))
        for name, value in filled.items():
            # A value that agrees is no conflict: a resolved config holds
            # the preset and its numbers, and is read back.
            if given.get(name, value) != value:
                raise ValueError(
                    f"preset {preset} has {name}={value}, not {given[name]}: set one or the other"
                )
        return {**given, **filled}


@LEARNERS.register("rebrac", "ReBRAC: TD3 with penalties on actor and critic for leaving the logged actions.")
class ReBRAC(TD3Learner):
    """The ReBRAC learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes and the normaliser.
    """

    Config: ClassVar[type[LearnerConfig]] = ReBRACConfig

    def __init__(self, config: ReBRACConfig, context: LearnerContext) -> None:
        super().__init__(config, context)
        self.config = config

    def init(self, generator: torch.Generator) -> TD3State:
        """Fresh networks: hidden biases 0.1, last layers within 1e-3 (actor) and 3e-3 (critics) of 0."""
        state = super().init(generator)
        pairs = ((state.actor, state.target_actor), (state.critic, state.target_critic))
        for (module, target), bound in zip(pairs, (_ACTOR_HEAD, _CRITIC_HEAD), strict=True):
            # Detached views: what fills them fills the flat parameters, without a graph.
            layers = [(layer.weight, layer.bias) for layer in module.net.layers(module.net.flat.detach())]
            init_small_head_(layers, hidden_bias=_HIDDEN_BIAS, head_bound=bound, generator=generator)
            # The targets were copied before these draws.
            target.load_state_dict(module.state_dict())
        return state

    def backup_value(
        self, state: TD3State, batch: TransitionBatch, next_action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s', ã') - critic_bc_coef sum_d (ã'_d - a'_d)^2`, a' the logged next action.

        Raises:
            ConfigError: the batch knows no next actions.
        """
        # The least target critic at the smoothed action, as in TD3; the charge below comes on top.
        value = super().backup_value(state, batch, next_action)
        if batch.next_action is None or batch.has_next_action is None:
            raise ConfigError(
                "ReBRAC needs the action that followed each transition; this source of batches has none "
                "(next_action is None). Use a dataset of whole episodes, or rollouts that note it."
            )
        logged = state.critic.scale(batch.next_action)
        # beta_2 ||a~' - a'||^2 beside the value: no charge where the log ends and knows no a'.
        deviation = squared_action_distance(next_action, logged)
        return penalised_next_value(value, deviation, batch.has_next_action, coef=self.config.critic_bc_coef)

    def actor_loss(self, state: TD3State, batch: TransitionBatch) -> Float[Tensor, ""]:
        """`mean [actor_bc_coef sum_d (pi(s)_d - a_d)^2 - min_i Q_i(s, pi(s)) / mean |min_i Q_i|]`."""
        # beta_1 ||pi(s) - a||^2 - Q(s, pi(s)) / mean |Q|: the least critic, where TD3+BC takes the first.
        action = state.actor.scaled_action(batch.observation)
        # Frozen: the gradient goes through Q to the action and leaves the critics alone.
        values = state.critic(batch.observation, action, frozen=True).amin(0)
        deviation = squared_action_distance(action, state.actor.scale(batch.action))
        return regularised_policy_loss(
            values, deviation, value_coef=1.0, deviation_coef=self.config.actor_bc_coef
        )
