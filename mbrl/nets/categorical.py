"""Policies over finitely many choices: softmax and greedy forms, with masks. Actions are one-hot vectors."""

import abc
import dataclasses
from typing import Annotated, Literal, TypeAlias

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.nets.critics import ChoiceCritics
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork, PolicySpec
from mbrl.nets.stack import StackedMLP
from mbrl.nets.widths import Layers
from mbrl.ops.choices import (
    draw_choice,
    greedy_choice,
    log_probabilities,
    one_hot,
    refuse_empty_masks,
    soft_greedy,
)

CategoricalKind: TypeAlias = Literal["softmax", "greedy", "filtered_greedy"]
Members: TypeAlias = Annotated[int, Ge(1), Le(1000)]
Share: TypeAlias = Annotated[float, Ge(0), Le(1)]


@dataclasses.dataclass(frozen=True, slots=True)
class CategoricalSpec(PolicySpec):
    """Everything but the weights.

    Attributes:
        kind: which class of this module.
        space: sizes and the names of the choices.
        hidden: widths of the hidden layers.
        layer_norm: LayerNorm in the hidden layers.
        members: value networks, of which the least counts (greedy forms only).
        dueling: whether these tell value and advantage apart.
        quantiles: of each value.
        threshold: least probability of a choice under the clone, as a share of the likeliest one's
            (`filtered_greedy` only).
    """

    kind: CategoricalKind
    hidden: Layers = (256, 256)
    layer_norm: bool = False
    members: Members = 1
    dueling: bool = False
    quantiles: Members = 1
    threshold: Share = 0.0


class CategoricalPolicy(PolicyNetwork, abc.ABC):
    """A policy over the choices of a task; `mbrl.core.protocols.DiscretePolicy`.

    Args:
        spec: sizes and kind.
        normaliser: of observations.
        generator: source of the initial weights.

    Raises:
        ValueError: the space is continuous.
    """

    spec: CategoricalSpec

    def __init__(self, spec: CategoricalSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        if not spec.space.is_discrete:
            raise ValueError(
                f"a {spec.kind} policy takes choices, and the actions of the space are continuous"
            )
        super().__init__(spec, normaliser, generator.device)

    @abc.abstractmethod
    def preferences(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b n"]:
        """What the evaluation action has the most of, of each choice."""

    @abc.abstractmethod
    def exact_probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """Probabilities in float64; masks are not checked."""

    @torch.no_grad()
    def probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """Probability of every choice; rows sum to 1.

        Args:
            obs: `[b, obs_dim]`, raw units.
            mask: `[b, n]`, True for the allowed choices, the others have probability 0; None for all.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        refuse_empty_masks(mask)
        # Normalised in float64 and rounded once: also a thousand choices sum to 1 within a float32 digit.
        return self.exact_probs(obs, mask).float()

    @torch.no_grad()
    def act(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b n"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n"]:
        """A draw, or without noise the likeliest allowed choice, of equal ones the lowest; one-hot.

        Args:
            obs: `[b, obs_dim]`, raw units.
            noise: `[b, n]` standard normal draws, or None.
            mask: `[b, n]`, True for the choices that are allowed; None for all.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        refuse_empty_masks(mask)
        if noise is None:
            return one_hot(self.best(obs, mask), self.act_dim)
        return one_hot(draw_choice(self.exact_probs(obs, mask).log(), noise), self.act_dim)

    def best(self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None) -> Tensor:
        """`[b]` int64, the choice without noise."""
        return greedy_choice(self.preferences(obs), mask)


class SoftmaxPolicy(CategoricalPolicy):
    """`pi(a|s) = softmax f(s)` over the allowed choices."""

    def __init__(self, spec: CategoricalSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator)
        self.net = StackedMLP(
            1,
            spec.space.obs_dim,
            spec.hidden,
            spec.space.act_dim,
            generator=generator,
            layer_norm=spec.layer_norm,
        )

    @classmethod
    def tensor_shapes(cls, spec: CategoricalSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        sizes = (1, spec.space.obs_dim, spec.hidden, spec.space.act_dim)
        flat = StackedMLP.flat_shape(*sizes, layer_norm=spec.layer_norm)
        return {**super().tensor_shapes(spec), "net.flat": flat}

    def preferences(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b n"]:
        """Logits, differentiable."""
        return self.net(self.normaliser(obs))[0]

    def log_probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """`log pi(a|s)` of every choice, differentiable; minus infinity where forbidden."""
        return log_probabilities(self.preferences(obs), mask)

    def exact_probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """See `CategoricalPolicy.exact_probs`."""
        return log_probabilities(self.preferences(obs).double(), mask).exp()


class GreedyPolicy(CategoricalPolicy):
    """The choice of the greatest value, `argmax_a min_i Q_i(s, a)`; epsilon-soft where `epsilon` is above 0.

    Then each allowed choice has probability `epsilon / (number allowed)` at least. The evaluation action is
    the greedy one whatever epsilon is.
    """

    epsilon: Tensor
    """`[]`, share of choices that are drawn evenly."""

    def __init__(self, spec: CategoricalSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator)
        self.critic = ChoiceCritics(
            spec.members,
            spec.space.obs_dim,
            spec.space.act_dim,
            spec.hidden,
            generator=generator,
            layer_norm=spec.layer_norm,
            dueling=spec.dueling,
            quantiles=spec.quantiles,
        )
        # A buffer: a schedule of exploration is part of what a checkpoint holds.
        self.register_buffer("epsilon", torch.zeros((), device=generator.device))

    @classmethod
    def tensor_shapes(cls, spec: CategoricalSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        critic = ChoiceCritics.tensor_shapes(
            spec.members,
            spec.space.obs_dim,
            spec.space.act_dim,
            spec.hidden,
            layer_norm=spec.layer_norm,
            dueling=spec.dueling,
            quantiles=spec.quantiles,
        )
        critics = {f"critic.{name}": shape for name, shape in critic.items()}
        return {**super().tensor_shapes(spec), **critics, "epsilon": ()}

    def preferences(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b n"]:
        """`min_i Q_i(s, a)`."""
        return self.critic(self.normaliser(obs)).amin(0)

    def supported(
        self, obs_n: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Bool[Tensor, "b n"]:
        """Choices among which the best is taken: the allowed ones; `obs_n` is normalised."""
        return obs_n.new_ones((len(obs_n), self.act_dim), dtype=torch.bool) if mask is None else mask

    def best(self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None) -> Tensor:
        """`[b]` int64, the best of the supported choices."""
        return greedy_choice(self.preferences(obs), self.supported(self.normaliser(obs), mask))

    def exact_probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """See `CategoricalPolicy.exact_probs`."""
        support = self.supported(self.normaliser(obs), mask)
        return soft_greedy(greedy_choice(self.preferences(obs), support), support, self.epsilon.double())


class FilteredGreedyPolicy(GreedyPolicy):
    """The best of the choices that a clone of the log makes often enough (Fujimoto et al. 2019b, eq. 7).

    A choice counts where `clone(a|s) >= threshold * max_a' clone(a'|s)`, both over the allowed choices.
    """

    def __init__(self, spec: CategoricalSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator)
        sizes = (1, spec.space.obs_dim, spec.hidden, spec.space.act_dim)
        self.clone = StackedMLP(*sizes, generator=generator, layer_norm=spec.layer_norm)

    @classmethod
    def tensor_shapes(cls, spec: CategoricalSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        sizes = (1, spec.space.obs_dim, spec.hidden, spec.space.act_dim)
        flat = StackedMLP.flat_shape(*sizes, layer_norm=spec.layer_norm)
        return {**super().tensor_shapes(spec), "clone.flat": flat}

    def supported(
        self, obs_n: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Bool[Tensor, "b n"]:
        """The allowed choices that the clone makes often enough; `obs_n` is normalised."""
        log_probs = log_probabilities(self.clone(obs_n)[0], mask)
        # Shares as they are, not their logarithms: a threshold of 0 then lets every allowed choice pass.
        share = (log_probs - log_probs.amax(-1, keepdim=True)).exp()
        return (share >= self.spec.threshold) & (log_probs > -torch.inf)


def categorical_class(kind: CategoricalKind) -> type[CategoricalPolicy]:
    """The class that `CategoricalSpec.kind` names."""
    kinds: dict[CategoricalKind, type[CategoricalPolicy]] = {
        "softmax": SoftmaxPolicy,
        "greedy": GreedyPolicy,
        "filtered_greedy": FilteredGreedyPolicy,
    }
    return kinds[kind]
