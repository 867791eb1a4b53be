"""A reward that was learned from preferences: an ensemble of networks, each with a unit of its own."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.core.types import SpaceSpec
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import ActivationName
from mbrl.nets.widths import Layers
from mbrl.ops.spread import lower_bound

RewardMembers: TypeAlias = Annotated[int, Ge(1), Le(100)]
"""Networks of an ensemble."""

RewardReads: TypeAlias = Literal["steps", "states"]
"""What a reward is a function of: states and the actions taken in them, or states alone."""

RewardUnit: TypeAlias = Literal["deviations", "log_odds", "probability"]
"""In what rewards are told: deviations of the log, or the log-odds or probability of success."""

_CHUNK_ROWS: Final = 4096
"""Steps that are asked at once: activations of all members stay in the cache."""


@dataclasses.dataclass(frozen=True, slots=True)
class RewardSpec:
    """Everything about a reward model but its weights.

    Attributes:
        space: sizes and bounds.
        members: networks.
        hidden: widths of their hidden layers.
        activation: of the hidden layers.
        layer_norm: LayerNorm in the hidden layers.
        reads: what the members look at.
        unit: of their rewards.
    """

    space: SpaceSpec
    members: RewardMembers = 5
    hidden: Layers = (128, 128)
    activation: ActivationName = "relu"
    layer_norm: bool = False
    reads: RewardReads = "steps"
    unit: RewardUnit = "deviations"

    def to_json(self) -> dict[str, Any]:
        """Plain types, for a file's header."""
        return dataclasses.asdict(self)


class RewardEnsemble(nn.Module):
    """`r_i(s, a) = (f_i(s, a) - offset_i) / scale_i`, each f_i a network on standardised states.

    Comparisons of segments of equal length say nothing of what all rewards have in common, and their
    unit is that of the annotator's doubt. So each member is standardised over the log that it was fitted to:
    mean 0, deviation 1 (as in Christiano et al. 2017, section 2.2). Of a success classifier f_i are logits,
    offset and scale recalibrate them (Platt 1999), and r_i may be their sigmoid.

    Args:
        spec: sizes.
        normaliser: of observations.
        generator: source of the initial weights.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, spec: RewardSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        self.body = CriticEnsemble(
            spec.members,
            spec.space,
            spec.hidden,
            copy.deepcopy(normaliser),
            generator=generator,
            activation=spec.activation,
            layer_norm=spec.layer_norm,
        )
        self.register_buffer("offset", torch.zeros(spec.members, device=generator.device))
        self.register_buffer("scale", torch.ones(spec.members, device=generator.device))

    @staticmethod
    def tensor_shapes(spec: RewardSpec) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict of a model of this description, by name, without making it."""
        body = CriticEnsemble.tensor_shapes(spec.members, spec.space, spec.hidden, layer_norm=spec.layer_norm)
        named = {f"body.{name}": shape for name, shape in body.items()}
        return {**named, "offset": (spec.members,), "scale": (spec.members,)}

    @classmethod
    def from_tensors(cls, spec: RewardSpec, tensors: Mapping[str, Tensor]) -> "RewardEnsemble":
        """The model that a file describes, without gradients."""
        generator = torch.Generator().manual_seed(0)  # every weight is the file's to replace
        model = cls(spec, Normaliser.identity(spec.space.obs_dim), generator)
        model.load_state_dict(dict(tensors))
        return model.requires_grad_(requires_grad=False)

    def raw(
        self, obs: Float[Tensor, "*b obs_dim"], action: Float[Tensor, "*b act_dim"]
    ) -> Float[Tensor, "e *b"]:
        """`f_i(s, a)`, differentiable; leading axes as they come."""
        shape = obs.shape[:-1]
        inputs = self._inputs(obs, action)
        return self.body.net(inputs.reshape(-1, inputs.shape[-1]))[..., 0].reshape(-1, *shape)

    def member_raw(
        self, obs: Float[Tensor, "e b obs_dim"], action: Float[Tensor, "e b act_dim"]
    ) -> Float[Tensor, "e b"]:
        """`f_i(s, a)` with steps of its own for each member, differentiable."""
        return self.body.net(self._inputs(obs, action))[..., 0]

    def _inputs(self, obs: Tensor, action: Tensor) -> Tensor:
        scaled = self.body.scale(action)
        # What is 0 throughout teaches its weights nothing, and whatever they are, they add nothing.
        scaled = torch.zeros_like(scaled) if self.spec.reads == "states" else scaled
        return torch.cat([self.body.normaliser(obs), scaled], -1)

    @torch.no_grad()
    def members(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "e b"]:
        """Every member's reward of every step, in the unit of the model."""
        found = self.log_odds(obs, action)
        return torch.sigmoid(found) if self.spec.unit == "probability" else found

    @torch.no_grad()
    def log_odds(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "e b"]:
        """`(f_i(s, a) - offset_i) / scale_i`: of success, where the model is a classifier."""
        starts = range(0, len(obs), _CHUNK_ROWS)
        parts = [self.raw(obs[k : k + _CHUNK_ROWS], action[k : k + _CHUNK_ROWS]) for k in starts]
        raw = torch.cat(parts, 1) if parts else obs.new_empty(self.spec.members, 0)
        return (raw - self.offset[:, None]) / self.scale[:, None]

    def reward(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        *,
        pessimism: float = 0.0,
    ) -> Float[Tensor, "b"]:
        """`mean_i r_i - pessimism std_i r_i`: what members dispute is worth less.

        Args:
            obs: raw units.
            action: environment units.
            pessimism: k, deviations over members that are taken off.
        """
        return lower_bound(self.members(obs, action), pessimism)

    @torch.no_grad()
    def standardise(self, obs: Float[Tensor, "n obs_dim"], action: Float[Tensor, "n act_dim"]) -> None:
        """Gives every member mean 0 and deviation 1 over these steps; a constant member keeps its unit."""
        self.offset.zero_()
        self.scale.fill_(1.0)
        found = self.members(obs, action).double()
        deviation = found.std(1, correction=0)
        self.offset.copy_(found.mean(1))
        self.scale.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))


@dataclasses.dataclass(frozen=True, slots=True)
class ModelReward:
    """A reward model as the `RewardFn` of imagined steps.

    Attributes:
        model: the ensemble.
        pessimism: deviations over members that are taken off its mean.
        offset: that every step earns besides.
    """

    model: RewardEnsemble
    pessimism: float = 0.0
    offset: float = 0.0

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]`, in the unit of the model; the successor is not read."""
        del next_obs
        return self.model.reward(obs, action, pessimism=self.pessimism) + self.offset
