"""A network that acts and can be rebuilt from a description: the base of everything that is exported."""

import abc
import dataclasses
from typing import Any, ClassVar, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.core.types import SpaceSpec
from mbrl.nets.action_box import ActionBox
from mbrl.nets.normaliser import Normaliser

S = TypeVar("S", bound="PolicySpec")


@dataclasses.dataclass(frozen=True, slots=True)
class PolicySpec:
    """Everything about a policy network but its weights.

    Fields carry their ranges, which are read by whatever rebuilds a description that a file holds.

    Attributes:
        kind: which class rebuilds it.
        space: sizes and bounds.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: str
    space: SpaceSpec

    def to_json(self) -> dict[str, Any]:
        """Plain types, for a file's metadata."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls: type[S], fields: dict[str, Any]) -> S:
        """Inverse of `to_json`; lists become tuples."""
        # JSON knows no tuples, and a spec of lists would not equal the one it was made from.
        space, rest = _to_tuples(fields["space"]), _to_tuples(fields)
        rest["space"] = SpaceSpec(**space)
        return cls(**rest)


class PolicyNetwork(nn.Module, abc.ABC):
    """A policy on normalised observations with actions scaled to [-1, 1] inside.

    Args:
        spec: sizes and kind.
        normaliser: of observations.
        device: where the bounds live.
    """

    def __init__(self, spec: PolicySpec, normaliser: Normaliser, device: torch.device) -> None:
        super().__init__()
        self.spec = spec
        self.normaliser = normaliser
        # The task's units are known in here alone; learners work in [-1, 1].
        self.action_box = ActionBox(spec.space, device)

    @classmethod
    def tensor_shapes(cls, spec: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict of a network of this description, by name, without making it.

        Args:
            spec: of this class's own kind.
        """
        shapes = Normaliser.tensor_shapes(spec.space.obs_dim)
        return {f"normaliser.{name}": shape for name, shape in shapes.items()}

    @property
    def act_dim(self) -> int:
        """Size of an action."""
        return self.spec.space.act_dim

    @abc.abstractmethod
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """See `mbrl.core.protocols.Policy.act`."""

    def scale(self, action: Float[Tensor, "*b act_dim"]) -> Float[Tensor, "*b act_dim"]:
        """Environment units to [-1, 1]."""
        return self.action_box.scale(action)

    def unscale(self, action: Float[Tensor, "*b act_dim"]) -> Float[Tensor, "*b act_dim"]:
        """[-1, 1] to environment units."""
        return self.action_box.unscale(action)


def _to_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(cast(list[Any], v)) if isinstance(v, list) else v for name, v in fields.items()}
