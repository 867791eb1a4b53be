"""A policy's critics as the values at leaves."""

from jaxtyping import Float
from torch import Tensor

from mbrl.core.protocols import CriticValues
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.problem import Prior


class CriticLeaf:
    """Critics of a policy as a `LeafValue`: `V_j(s) = Q_j(s, mode(s))`, never evaluated at terminal states.

    Args:
        critics: Q in environment units, values in reward units.
        prior: whose mode acts at leaves.
        box: of the task's actions; None for one-hot actions.
    """

    def __init__(self, critics: CriticValues, prior: Prior, box: ActionBox | None) -> None:
        self.critics, self.prior, self.box = critics, prior, box

    def value(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "c r"]:
        """Q of the prior's mode."""
        return self.action_value(obs, self.prior.act(obs))

    def action_value(
        self, obs: Float[Tensor, "r obs_dim"], action: Float[Tensor, "r act_dim"]
    ) -> Float[Tensor, "c r"]:
        """Q of an action."""
        raw = action if self.box is None else self.box.unscale(action)
        # Critics are float32; a planner may count in float64.
        return self.critics.action_values(obs, raw).to(obs.dtype)
