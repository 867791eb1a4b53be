"""An ensemble of action-value functions of one policy, in the units of the log."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.estimates import Estimand
from mbrl.core.types import SpaceSpec
from mbrl.nets.action_box import ActionBox
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.off_policy.log.policies import CHUNK
from mbrl.off_policy.value.fqe_config import FQEConfig


@dataclasses.dataclass(frozen=True, slots=True)
class RewardScale:
    """Affine scale of rewards inside the networks.

    Attributes:
        mean: subtracted; 0 where an episode can end, since the subtraction would then change the ranking.
        std: divisor, > 0.
    """

    mean: float
    std: float


def _sizes(space: SpaceSpec, *, is_discrete: bool) -> tuple[int, int]:
    """Inputs and outputs of a network without a horizon."""
    return space.obs_dim + (0 if is_discrete else space.act_dim), space.act_dim if is_discrete else 1


class QEnsemble:
    """K functions `Q_m(s, a)`, or `Q_m(s, a, steps to go)` for a finite horizon.

    Continuous actions enter the network; finitely many (one-hot) are its outputs.

    Args:
        members: K.
        space: sizes and bounds.
        hidden: widths of the hidden layers.
        normaliser: of observations.
        scale: of rewards.
        estimand: what is valued; with a horizon the steps to go are an input.
        is_discrete: actions are one-hot vectors.
        layer_norm: LayerNorm in the hidden layers.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        members: int,
        space: SpaceSpec,
        hidden: Sequence[int],
        *,
        normaliser: Normaliser,
        scale: RewardScale,
        estimand: Estimand,
        is_discrete: bool,
        layer_norm: bool,
        generator: torch.Generator,
    ) -> None:
        self.space, self.normaliser, self.scale, self.estimand = space, normaliser, scale, estimand
        self.is_discrete, self.action_box = is_discrete, ActionBox(space)
        inputs, outputs = _sizes(space, is_discrete=is_discrete)
        inputs += estimand.horizon is not None
        self.net = StackedMLP(members, inputs, hidden, outputs, generator=generator, layer_norm=layer_norm)

    @staticmethod
    def tensor_shapes(
        config: FQEConfig, space: SpaceSpec, *, is_discrete: bool
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of `flat` and of the normaliser, by name, of values without a horizon that are not made."""
        inputs, outputs = _sizes(space, is_discrete=is_discrete)
        flat = StackedMLP.flat_shape(
            config.members, inputs, config.hidden, outputs, layer_norm=config.layer_norm
        )
        normaliser = Normaliser.tensor_shapes(space.obs_dim)
        return {"flat": flat, **{f"normaliser.{name}": shape for name, shape in normaliser.items()}}

    @property
    def members(self) -> int:
        """K."""
        return self.net.members

    def features(self, obs: Tensor, action: Tensor) -> Tensor:
        """Network inputs of states and actions, without the clock; for discrete actions the state alone."""
        obs_n = self.normaliser(obs)
        return obs_n if self.is_discrete else torch.cat([obs_n, self.action_box.scale(action)], -1)

    def with_clock(self, features: Tensor, to_go: Tensor | None) -> Tensor:
        """The inputs with the share of the horizon that is to go, where there is one."""
        if to_go is None or self.estimand.horizon is None:
            return features
        return torch.cat([features, (to_go / self.estimand.horizon)[..., None].to(features.dtype)], -1)

    def unit(self, to_go: Tensor | None) -> Tensor | float:
        """What one of a network's output is worth, `sum_{t < to go} discount^t` scaled rewards; else 1.

        With a horizon the network says the mean reward of the steps to go, whose size does not depend on how
        many they are; at 0 steps every value is 0.
        """
        if to_go is None or self.estimand.horizon is None:
            return 1.0
        return discounted_steps(to_go, self.estimand.discount).float()

    def offset(self, to_go: Tensor | None) -> Tensor | float:
        """What the subtracted mean reward is worth, `mean * sum_{t < to go} discount^t`."""
        if self.scale.mean == 0.0:
            return 0.0
        if to_go is None:
            return self.scale.mean * self.estimand.weight_sum
        return self.scale.mean * discounted_steps(to_go, self.estimand.discount)

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "n obs_dim"], action: Float[Tensor, "n act_dim"], to_go: Tensor | None = None
    ) -> Float[Tensor, "k n"]:
        """`[k, n]`, each member's Q, reward units; in chunks."""
        parts: list[Tensor] = []
        for rows in _slices(obs.shape[0]):
            clock = None if to_go is None else to_go[rows]
            # Discrete actions choose one of the outputs; the scale of rewards is undone, in float64.
            out = self.net(self.with_clock(self.features(obs[rows], action[rows]), clock))
            value = (out * action[rows]).sum(-1) if self.is_discrete else out.squeeze(-1)
            parts.append(value.double() * self.unit(clock) * self.scale.std + self.offset(clock))
        return torch.cat(parts, 1)

    @torch.no_grad()
    def value(
        self,
        obs: Float[Tensor, "n obs_dim"],
        choices: Tensor,
        to_go: Int[Tensor, "n"] | None = None,
    ) -> Float[Tensor, "k n"]:
        """`[k, n]`, each member's `V(s) = E_{a~pi} Q(s, a)`.

        Args:
            obs: states.
            choices: draws of the policy `[j, n, act_dim]`, or for discrete actions its probabilities
                `[n, act_dim]`.
            to_go: steps to go; values at 0 steps are 0.
        """
        # E_{a~pi} Q: for finitely many actions Q is linear in their probabilities, else a mean over draws.
        if self.is_discrete:
            mean = self.action_value(obs, choices, to_go)
        else:
            mean = torch.stack([self.action_value(obs, draw, to_go) for draw in choices]).mean(0)
        return mean if to_go is None else mean.masked_fill(to_go <= 0, 0.0)


def discounted_steps(steps: Tensor, discount: float) -> Tensor:
    """`sum_{t < steps} discount^t`, float64."""
    steps = steps.double()
    return steps if discount == 1.0 else (1.0 - discount**steps) / (1.0 - discount)


def _slices(rows: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, rows, CHUNK)]
