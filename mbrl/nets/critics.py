"""Action-value networks, stacked, of actions in a box and of choices, and a state-value network."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.core.types import SpaceSpec
from mbrl.nets.action_box import ActionBox
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import ActivationName, StackedMLP


class CriticEnsemble(nn.Module):
    """N action-value functions Q_i(s, a) on normalised observations and actions scaled to [-1, 1].

    Args:
        count: N.
        space: sizes and bounds.
        hidden: widths of the hidden layers.
        normaliser: of observations.
        generator: source of the initial weights.
        activation: hidden activation.
        layer_norm: LayerNorm in the hidden layers; it bounds extrapolation (Ball et al. 2023).
    """

    def __init__(
        self,
        count: int,
        space: SpaceSpec,
        hidden: Sequence[int],
        normaliser: Normaliser,
        *,
        generator: torch.Generator,
        activation: ActivationName = "relu",
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.net = StackedMLP(
            count,
            space.obs_dim + space.act_dim,
            hidden,
            1,
            generator=generator,
            activation=activation,
            layer_norm=layer_norm,
        )
        self.action_box = ActionBox(space, generator.device)

    @staticmethod
    def tensor_shapes(
        count: int, space: SpaceSpec, hidden: Sequence[int], *, layer_norm: bool = False
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict of an ensemble of these sizes, by name, without making it."""
        sizes = (count, space.obs_dim + space.act_dim, hidden, 1)
        normaliser = Normaliser.tensor_shapes(space.obs_dim)
        return {
            **{f"normaliser.{name}": shape for name, shape in normaliser.items()},
            "net.flat": StackedMLP.flat_shape(*sizes, layer_norm=layer_norm),
        }

    def scale(self, action: Float[Tensor, "*b act_dim"]) -> Float[Tensor, "*b act_dim"]:
        """Environment units to [-1, 1]."""
        return self.action_box.scale(action)

    def forward(
        self,
        obs: Float[Tensor, "b obs_dim"],
        scaled_action: Float[Tensor, "b act_dim"],
        *,
        frozen: bool = False,
        first: int | None = None,
    ) -> Float[Tensor, "n b"]:
        """`[n, b]` values; `frozen` differentiates with respect to the action only; `first` critics alone."""
        inputs = torch.cat([self.normaliser(obs), scaled_action], -1)
        return self.net(inputs, frozen=frozen, first=first).squeeze(-1)

    def at_actions(
        self, obs: Float[Tensor, "b obs_dim"], scaled_actions: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "n k b"]:
        """`[n, k, b]` values of k actions for each observation."""
        count, rows = scaled_actions.shape[:2]
        # [k b] rows in one pass: many small ones would not fill the processor.
        obs = obs.expand(count, *obs.shape).flatten(0, 1)
        return self(obs, scaled_actions.flatten(0, 1)).unflatten(1, (count, rows))

    def action_gradients(
        self, obs: Float[Tensor, "b obs_dim"], scaled_action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "n b act_dim"]:
        """dQ_i/da, `[n, b, act_dim]`, differentiable in the parameters (a gradient of a gradient follows)."""
        inputs = torch.cat([self.normaliser(obs), scaled_action], -1)
        # With respect to the whole input; the action's part stands behind the observation's.
        return self.net.first_output_gradient(inputs)[..., obs.shape[-1] :]


class StateValue(nn.Module):
    """V(s) on normalised observations.

    Args:
        space: sizes.
        hidden: widths of the hidden layers.
        normaliser: of observations.
        generator: source of the initial weights.
    """

    def __init__(
        self, space: SpaceSpec, hidden: Sequence[int], normaliser: Normaliser, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.net = StackedMLP(1, space.obs_dim, hidden, 1, generator=generator)

    def forward(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """`[b]`, return units."""
        # [1, b, 1] to [b].
        return self.net(self.normaliser(obs))[0, :, 0]


class ChoiceCritics(nn.Module):
    """`e` networks from a normalised observation to a value of each of `n` choices.

    A dueling network puts a value and advantages together, `Q(a) = V + A(a) - mean_a' A(a')` (Wang et al.
    2016, eq. 9); both come from one last hidden layer. With quantiles each value is a distribution of equally
    likely returns, and what `forward` tells is its mean (Dabney et al. 2018).

    Args:
        members: e.
        obs_dim: size of an observation.
        choices: n.
        hidden: widths of the hidden layers.
        generator: source of the initial weights.
        layer_norm: LayerNorm in the hidden layers.
        dueling: whether value and advantages are told apart.
        quantiles: q; 1 is a plain value.
    """

    def __init__(
        self,
        members: int,
        obs_dim: int,
        choices: int,
        hidden: Sequence[int],
        *,
        generator: torch.Generator,
        layer_norm: bool = False,
        dueling: bool = False,
        quantiles: int = 1,
    ) -> None:
        super().__init__()
        self.choices, self.dueling, self.quantile_count = choices, dueling, quantiles
        outputs = _outputs(choices, dueling=dueling, quantiles=quantiles)
        self.net = StackedMLP(members, obs_dim, hidden, outputs, generator=generator, layer_norm=layer_norm)

    @staticmethod
    def tensor_shapes(
        members: int,
        obs_dim: int,
        choices: int,
        hidden: Sequence[int],
        *,
        layer_norm: bool = False,
        dueling: bool = False,
        quantiles: int = 1,
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of the state dict of networks of these sizes, by name, without making them."""
        outputs = _outputs(choices, dueling=dueling, quantiles=quantiles)
        return {"net.flat": StackedMLP.flat_shape(members, obs_dim, hidden, outputs, layer_norm=layer_norm)}

    def forward(self, obs_n: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "e b n"]:
        """`[e, b, n]`, return units."""
        return self.quantiles(obs_n).mean(-1)

    def quantiles(self, obs_n: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "e b n q"]:
        """`[e, b, n, q]`, the returns that are equally likely, in no order."""
        heads = self.net(obs_n).unflatten(-1, (-1, self.quantile_count))
        if not self.dueling:
            return heads
        value, advantage = heads[..., :1, :], heads[..., 1:, :]
        # The mean is taken out: V and A are else known up to a constant only, and learn against each other.
        return value + advantage - advantage.mean(-2, keepdim=True)


def _outputs(choices: int, *, dueling: bool, quantiles: int) -> int:
    return (choices + dueling) * quantiles
