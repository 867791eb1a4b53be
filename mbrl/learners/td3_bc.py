"""TD3+BC: TD3 whose actor also clones the logged actions.

Source: Fujimoto & Gu 2021 (arXiv:2106.06860).

Departures from the paper: observations are standardised inside the networks, with a floor on deviations
instead of an added 1e-3.
"""

from typing import Annotated, ClassVar

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext
from mbrl.learners.deterministic import TD3Config, TD3Learner, TD3State
from mbrl.ops.losses import regularised_policy_loss, squared_action_error


class TD3BCConfig(TD3Config):
    """TD3 with behaviour cloning.

    Attributes:
        value_coef: alpha of the paper, the weight of the normalised value against cloning; 0 clones only.
    """

    value_coef: Annotated[float, Field(ge=0, le=1e4)] = 2.5


@LEARNERS.register("td3_bc", "TD3+BC: TD3 whose actor also clones the logged actions.")
class TD3BC(TD3Learner):
    """The TD3+BC learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes and the normaliser.
    """

    Config: ClassVar[type[LearnerConfig]] = TD3BCConfig
    critics_asked: ClassVar[int] = 1

    def __init__(self, config: TD3BCConfig, context: LearnerContext) -> None:
        super().__init__(config, context)
        self.config = config

    def actor_loss(self, state: TD3State, batch: TransitionBatch) -> Float[Tensor, ""]:
        """`mean_{b,d} (pi(s)_d - a_d)^2 - value_coef mean Q_1(s, pi(s)) / mean |Q_1|`."""
        # Only the first critic is asked, as in TD3; the distance keeps the action where that one was trained.
        action = state.actor.scaled_action(batch.observation)
        values = state.critic(batch.observation, action, frozen=True, first=self.critics_asked)[0]
        # Averaged over dimensions, as in the paper: alpha is then the same for any number of actuators.
        error = squared_action_error(action, state.actor.scale(batch.action))
        return regularised_policy_loss(values, error, value_coef=self.config.value_coef, deviation_coef=1.0)
