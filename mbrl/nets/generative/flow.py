"""A clone of a log of many modes: noise that a learned velocity field carries to actions."""

import dataclasses
from typing import Annotated, Final, Literal, TypeAlias

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork, PolicySpec
from mbrl.nets.stack import ActivationName, StackedMLP
from mbrl.nets.widths import Layers
from mbrl.ops.flow import follow_flow

FlowKind: TypeAlias = Literal["flow"]
FLOW: Final[FlowKind] = "flow"

Steps: TypeAlias = Annotated[int, Ge(1), Le(1000)]
"""Euler steps from noise to action; each is a pass of the network."""


@dataclasses.dataclass(frozen=True, slots=True)
class FlowSpec(PolicySpec):
    """Everything but the weights.

    Attributes:
        kind: `flow`.
        space: sizes and bounds.
        hidden: widths of the hidden layers of the velocity field.
        steps: Euler steps from noise to action.
        activation: hidden activation.
        layer_norm: LayerNorm in the hidden layers.
    """

    kind: FlowKind
    hidden: Layers
    steps: Steps
    activation: ActivationName = "silu"
    layer_norm: bool = False


class FlowPolicy(PolicyNetwork):
    """`a = clip(x_1, +-1)`, x_1 where `dx/dt = v(s, x, t)` leads from `x_0 ~ N(0, I)` (Lipman et al. 2023).

    Any distribution of actions can be drawn from, bounds and several modes among them; its density is not
    known, so the policy offers none. The deterministic action starts at `x_0 = 0`, the middle of the noise.

    Args:
        spec: sizes.
        normaliser: of observations.
        generator: source of the initial weights.
    """

    spec: FlowSpec

    def __init__(self, spec: FlowSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator.device)
        self.field = StackedMLP(
            1,
            _input_size(spec),
            spec.hidden,
            spec.space.act_dim,
            generator=generator,
            activation=spec.activation,
            layer_norm=spec.layer_norm,
        )

    @classmethod
    def tensor_shapes(cls, spec: FlowSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        sizes = (1, _input_size(spec), spec.hidden, spec.space.act_dim)
        flat = StackedMLP.flat_shape(*sizes, layer_norm=spec.layer_norm)
        return {**super().tensor_shapes(spec), "field.flat": flat}

    def velocity(
        self, obs_n: Float[Tensor, "b obs_dim"], x: Float[Tensor, "b act_dim"], time: Float[Tensor, "b"]
    ) -> Float[Tensor, "b act_dim"]:
        """`v(s, x, t)`, scaled action units in the time from 0 to 1; `obs_n` is normalised."""
        return self.field(torch.cat([obs_n, x, time[:, None]], -1))[0]

    @torch.no_grad()
    def scaled_sample(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "*k b act_dim"]
    ) -> Float[Tensor, "*k b act_dim"]:
        """Draws in [-1, 1]; noise with leading axes gives as many for each observation."""
        # [k b] rows in one pass: many small ones would not fill the processor.
        obs_n = self.normaliser(obs).expand(*noise.shape[:-1], -1).flatten(0, -2)

        def velocity(x: Tensor, time: float) -> Tensor:
            return self.velocity(obs_n, x, torch.full_like(x[:, 0], time))

        end = follow_flow(velocity, noise.flatten(0, -2), steps=self.spec.steps)
        # A field that is not yet fitted leads out of the box, where critics were never trained.
        return end.clamp(-1.0, 1.0).view_as(noise)

    @torch.no_grad()
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """A draw, or where the middle of the noise leads."""
        start = obs.new_zeros(len(obs), self.act_dim) if noise is None else noise
        return self.unscale(self.scaled_sample(obs, start))

    @torch.no_grad()
    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        """`count` draws for each observation."""
        if noise.shape[0] != count:
            raise ValueError(f"count is {count}, noise has {noise.shape[0]} rows")
        return self.unscale(self.scaled_sample(obs, noise))


def _input_size(spec: FlowSpec) -> int:
    """An observation, a point on the way, a time."""
    return spec.space.obs_dim + spec.space.act_dim + 1
