"""Best of N: draws of a policy, ranked by an ensemble of rewards or values."""

import copy
import dataclasses
import math
from typing import Annotated, Any, Final, Literal, TypeAlias

import torch
from annotated_types import Ge, Le
from jaxtyping import Float
from torch import Tensor

from mbrl.nets.actors import (
    Actor,
    ActorSpec,
    ClippedGaussianActor,
    MixtureActor,
    TanhGaussianActor,
    actor_class,
)
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.generative.flow import FlowPolicy, FlowSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork, PolicySpec
from mbrl.nets.stack import ActivationName
from mbrl.nets.widths import Candidates, Layers
from mbrl.ops.spread import lower_bound

BestOfKind: TypeAlias = Literal["best_of_n"]
BEST_OF: Final[BestOfKind] = "best_of_n"

Rankers: TypeAlias = Annotated[int, Ge(1), Le(1000)]
"""Members of what ranks."""

Pessimism: TypeAlias = Annotated[float, Ge(0), Le(1000)]
"""Deviations over members that are taken off their mean."""

Drawing: TypeAlias = TanhGaussianActor | ClippedGaussianActor | MixtureActor | FlowPolicy
DRAWING: Final = ("tanh_gaussian", "clipped_gaussian", "mixture", "flow")
"""Kinds of policies that draw."""

_CHUNK_ROWS: Final = 4096
"""Candidates ranked at once when acting: the memory of a pass does not grow with the batch."""

_CANDIDATE_SEED: Final = 0
_EDGE: Final = 1e-6
"""Points are kept this far from the faces of the unit cube, where normal quantiles are infinite."""


@dataclasses.dataclass(frozen=True, slots=True)
class BestOfSpec(PolicySpec):
    """Everything but the weights.

    Attributes:
        kind: `best_of_n`.
        space: sizes and bounds.
        behaviour: of the policy that draws.
        candidates: N.
        rankers: members of what ranks.
        rank_hidden: widths of their hidden layers.
        rank_activation: of the hidden layers.
        rank_layer_norm: LayerNorm in the hidden layers.
        pessimism: k of the rank `mean_i f_i - k std_i f_i`; with two critics 1 is their minimum.
    """

    kind: BestOfKind
    behaviour: ActorSpec | FlowSpec
    candidates: Candidates
    rankers: Rankers
    rank_hidden: Layers
    rank_activation: ActivationName = "relu"
    rank_layer_norm: bool = False
    pessimism: Pessimism = 0.0


class BestOfPolicy(PolicyNetwork):
    """`argmax_j [mean_i f_i(s, a_j) - k std_i f_i(s, a_j)]` over N draws `a_j` of a policy.

    The draws of the deterministic action are the same points of the behaviour's noise for every state:
    normal quantiles of fixed points in the unit cube, which are stored with the weights. Noise shifts all
    points, modulo 1, by its normal distribution function (a Cranley-Patterson rotation): each candidate is
    then a draw of the behaviour, and the action a function of the noise alone. The policy has a density that
    nobody can write down, so it offers none.

    Args:
        spec: sizes.
        normaliser: of observations; behaviour and rankers hold copies of their own.
        generator: source of the initial weights.

    Raises:
        ValueError: the behaviour is a policy without draws.
    """

    spec: BestOfSpec
    candidate_points: Tensor
    rank_offset: Tensor
    rank_scale: Tensor

    def __init__(self, spec: BestOfSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator.device)
        if spec.behaviour.kind not in DRAWING:
            raise ValueError(f"a policy of kind {spec.behaviour.kind!r} draws nothing to choose from")
        self.behaviour: Actor | FlowPolicy = _behaviour_class(spec.behaviour)(
            spec.behaviour, copy.deepcopy(normaliser), generator
        )
        self.ranker = CriticEnsemble(
            spec.rankers,
            spec.space,
            spec.rank_hidden,
            copy.deepcopy(normaliser),
            generator=generator,
            activation=spec.rank_activation,
            layer_norm=spec.rank_layer_norm,
        )
        # A seed of its own: which candidates a policy ranks does not change with the draws of its weights.
        draws = torch.Generator(generator.device).manual_seed(_CANDIDATE_SEED)
        points = torch.rand(spec.candidates, spec.space.act_dim, generator=draws, device=draws.device)
        self.register_buffer("candidate_points", points)
        self.register_buffer("rank_offset", torch.zeros(spec.rankers, device=generator.device))
        self.register_buffer("rank_scale", torch.ones(spec.rankers, device=generator.device))

    @classmethod
    def of(
        cls,
        behaviour: Actor | FlowPolicy,
        ranker: CriticEnsemble,
        *,
        candidates: int,
        pessimism: float = 0.0,
        offset: Float[Tensor, "n"] | None = None,
        scale: Float[Tensor, "n"] | None = None,
    ) -> "BestOfPolicy":
        """The policy of a behaviour and of what ranks, copies of both.

        Args:
            behaviour: draws.
            ranker: ranks; any functions of states and actions.
            candidates: N.
            pessimism: see `BestOfSpec`.
            offset: of each member, taken off before members are joined; 0 when None.
            scale: of each member, divided by then; 1 when None.

        Raises:
            ValueError: the behaviour is a policy without draws.
        """
        net = ranker.net
        spec = BestOfSpec(
            BEST_OF,
            behaviour.spec.space,
            behaviour.spec,
            candidates,
            net.members,
            net.hidden,
            net.activation,
            net.layer_norm,
            pessimism,
        )
        policy = cls(spec, behaviour.normaliser, torch.Generator().manual_seed(0))
        policy.behaviour.load_state_dict(behaviour.state_dict())
        policy.ranker.load_state_dict(ranker.state_dict())
        if offset is not None:
            policy.rank_offset.copy_(offset)
        if scale is not None:
            policy.rank_scale.copy_(scale)
        return policy.requires_grad_(requires_grad=False)

    @classmethod
    def tensor_shapes(cls, spec: BestOfSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        behaviour = _behaviour_class(spec.behaviour).tensor_shapes(spec.behaviour)
        ranker = CriticEnsemble.tensor_shapes(
            spec.rankers, spec.space, spec.rank_hidden, layer_norm=spec.rank_layer_norm
        )
        return {
            **super().tensor_shapes(spec),
            **{f"behaviour.{name}": shape for name, shape in behaviour.items()},
            **{f"ranker.{name}": shape for name, shape in ranker.items()},
            "candidate_points": (spec.candidates, spec.space.act_dim),
            "rank_offset": (spec.rankers,),
            "rank_scale": (spec.rankers,),
        }

    def candidate_noise(
        self, noise: Float[Tensor, "b act_dim"] | None, rows: int
    ) -> Float[Tensor, "k b act_dim"]:
        """The behaviour's noise of every candidate, standard normal."""
        points = self.candidate_points[:, None]
        if noise is not None:
            points = torch.frac(points + 0.5 * (1 + torch.erf(noise / math.sqrt(2))))
        quantile = math.sqrt(2) * torch.erfinv(2 * points.clamp(_EDGE, 1 - _EDGE) - 1)
        return quantile.expand(-1, rows, -1)

    @torch.no_grad()
    def rank(
        self, obs: Float[Tensor, "b obs_dim"], actions: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b"]:
        """The lower bound of the members at actions in environment units."""
        values = self.ranker.at_actions(obs, self.scale(actions))
        return lower_bound(
            (values - self.rank_offset[:, None, None]) / self.rank_scale[:, None, None], self.spec.pessimism
        )

    @torch.no_grad()
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """The candidate of the highest rank; noise moves the candidates, not the chosen action."""
        rows = max(1, _CHUNK_ROWS // self.spec.candidates)
        parts = [
            self._best(obs[k : k + rows], None if noise is None else noise[k : k + rows])
            for k in range(0, len(obs), rows)
        ]
        return torch.cat(parts) if parts else obs.new_empty(0, self.act_dim)

    def _best(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None
    ) -> Float[Tensor, "b act_dim"]:
        behaviour = self.behaviour
        assert isinstance(behaviour, Drawing)
        draws = self.candidate_noise(noise, len(obs))
        actions = behaviour.sample(obs, self.spec.candidates, draws)
        best = self.rank(obs, actions).argmax(0)
        return actions[best, torch.arange(len(obs), device=obs.device)]


def _behaviour_class(spec: ActorSpec | FlowSpec) -> Any:
    return FlowPolicy if isinstance(spec, FlowSpec) else actor_class(spec.kind)
