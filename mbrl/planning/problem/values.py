"""A policy's critics as the values at leaves."""

from jaxtyping import Float
from torch import Tensor

from mbrl.core.protocols import CriticValues
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.problem import Prior


class CriticLeaf:
    """Critics of a policy as a `LeafValue`: `V_j(s) = Q_j(s, mode(s))`, never evaluated at terminal states.

    Args:
        critics: Q in environment units.
        prior: whose mode acts at leaves.
        box: of the task's actions; None for one-hot actions.
        unit: of the critics' values, reward units; critics of rescaled rewards have another than 1.
    """

    def __init__(
        self, critics: CriticValues, prior: Prior, box: ActionBox | None, *, unit: float = 1.0
    ) -> None:
        self.critics, self.prior, self.box, self.unit = critics, prior, box, unit

    def value(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "c r"]:
        """Q of the prior's mode."""
        return self.action_value(obs, self.prior.act(obs))

    def action_value(
        self, obs: Float[Tensor, "r obs_dim"], action: Float[Tensor, "r act_dim"]
    ) -> Float[Tensor, "c r"]:
        """Q of an action."""
        raw = action if self.box is None else self.box.unscale(action)
        values = self.critics.action_values(obs, raw).to(obs.dtype)
        return values if self.unit == 1.0 else values * self.unit
