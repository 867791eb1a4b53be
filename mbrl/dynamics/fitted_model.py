"""What judging and predicting need to know of a fitted model, whatever it consists of."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mbrl.core.history import History
from mbrl.core.protocols import DynamicsModel
from mbrl.nets.normaliser import Normaliser


@runtime_checkable
class FittedModel(DynamicsModel, Protocol):
    """A model with the units it was fitted in.

    Attributes:
        inputs: normaliser of `(s, a)`.
        targets: normaliser of `(s' - s, r)`, the newest frame's.
        history: past frames and actions that an observation holds, or None.
        obs_dim: size of an observation.
        frame_dim: size of its newest frame, which is what is predicted.
        temperature: `[frame_dim + 1]` factors on the predicted deviations, the reward last.
    """

    inputs: Normaliser
    targets: Normaliser
    history: History | None
    obs_dim: int
    frame_dim: int
    temperature: Tensor

    def forward(
        self, inputs_n: Float[Tensor, "*e b in"], *, first: int | None = None
    ) -> tuple[Float[Tensor, "e b k"], Float[Tensor, "e b k"]]:
        """Means and log-variances of normalised targets, before any temperature, of normalised inputs."""
        ...
