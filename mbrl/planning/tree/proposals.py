"""The actions that a tree may choose among: at the root with their origin, below it the prior's."""

import dataclasses
from typing import Annotated, Final, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from mbrl.planning.base import SOURCES, Hints, PlannerConfig
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem

MASS_FLOOR: Final = -1.0e9
"""Scores below it do not tell actions apart: mctx's floor, which keeps logits of excluded actions finite."""


@dataclasses.dataclass(frozen=True, slots=True)
class RootSet:
    """Candidates at the roots of `b` states.

    Attributes:
        observation: `[b, obs_dim]`.
        value: `[b]`, V of the pessimistic critic.
        value_spread: `[b]`, deviation of V over critics.
        actions: `[b, k, act_dim]`.
        logits: `[b, k]`, of the prior; the least finite number where invalid.
        valid: `[b, k]`, whether a slot may be chosen.
        provenance: `[b, k]`, index into `SOURCES`.
        policy_slot: `[b]`, where the prior's mode is.
        clipped: actions that left the box before.
    """

    observation: Float[Tensor, "b obs_dim"]
    value: Float[Tensor, "b"]
    value_spread: Float[Tensor, "b"]
    actions: Float[Tensor, "b k act_dim"]
    logits: Float[Tensor, "b k"]
    valid: Bool[Tensor, "b k"]
    provenance: Int[Tensor, "b k"]
    policy_slot: Int[Tensor, "b"]
    clipped: int = 0


@runtime_checkable
class Proposals(Protocol):
    """Gives nodes their actions."""

    @property
    def width(self) -> int:
        """Actions of a node below the root."""
        ...

    @property
    def is_stored(self) -> bool:
        """Whether actions differ from node to node; if not, they are one-hot vectors in order."""
        ...

    def root(self, obs: Float[Tensor, "b obs_dim"], noise: RowNoise, hints: Hints) -> RootSet:
        """The candidates at the roots."""
        ...

    def draw(self, noise: RowNoise, sims: int) -> Float[Tensor, "b sims k act_dim"] | None:
        """Noise for every node that may come; None if none is needed."""
        ...

    def inner(
        self, obs: Float[Tensor, "r obs_dim"], draws: Float[Tensor, "r k act_dim"] | None
    ) -> tuple[Float[Tensor, "r k"], Float[Tensor, "r k act_dim"] | None]:
        """Prior logits and actions of new nodes."""
        ...


def clip_to_box(actions: Float[Tensor, "*k act_dim"]) -> tuple[Float[Tensor, "*k act_dim"], Int[Tensor, ""]]:
    """Actions within [-1, 1], and how many were not."""
    # The model knows no actions outside of the box, and the robot would clip them anyway.
    clipped = actions.clamp(-1.0, 1.0)
    return clipped, (clipped != actions).any(-1).sum()


def mask_logits(logits: Float[Tensor, "b k"], valid: Bool[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """`logits - max`, and the least finite number where invalid: an infinity would make softmax NaN."""
    lowest = torch.finfo(logits.dtype).min
    return (logits - logits.amax(-1, keepdim=True)).masked_fill(~valid, lowest)


class DiscreteProposals:
    """All actions, by the prior's logits; logged actions share a given mass.

    Args:
        problem: whose prior is discrete.
        injected_mass: prior mass of `Hints.candidates`.
        is_sorted: puts likely actions first, for planners that reveal them one by one.
    """

    def __init__(
        self, problem: PlanningProblem, *, injected_mass: float = 0.25, is_sorted: bool = False
    ) -> None:
        self._problem, self._injected_mass, self.is_stored = problem, injected_mass, is_sorted
        self.width = problem.prior.act_dim
        self._one_hot = torch.eye(self.width, dtype=problem.dtype, device=problem.action_spread.device)

    def root(self, obs: Float[Tensor, "b obs_dim"], noise: RowNoise, hints: Hints) -> RootSet:
        """Every action of the task; `noise` is not needed."""
        del noise
        logits = self._problem.prior.logits(obs)
        valid = torch.ones_like(logits, dtype=torch.bool) if hints.mask is None else hints.mask
        logits = mask_logits(logits, valid)
        # Before logged actions are injected: the fallback is the policy's own choice.
        mode = logits.argmax(-1)
        provenance = torch.full(logits.shape, SOURCES.index("policy"), device=logits.device)
        if hints.candidates is not None:
            # pi <- (1 - m) pi + m / |logged| on the logged actions.
            injected = hints.candidates.to(obs.dtype).amax(1) > 0.5
            mass = self._injected_mass * injected / injected.sum(-1, keepdim=True)
            logits = mask_logits(((1.0 - self._injected_mass) * logits.softmax(-1) + mass).log(), valid)
            provenance[injected] = SOURCES.index("dataset")
        actions = self._one_hot.expand(len(obs), -1, -1)
        if self.is_stored:
            logits, order = torch.sort(logits, dim=-1, descending=True, stable=True)
            actions, valid, provenance = (
                self._one_hot[order],
                valid.gather(1, order),
                provenance.gather(1, order),
            )
            mode = (order == mode[:, None]).long().argmax(-1)
        value, spread = _evaluate(self._problem, obs)
        return RootSet(obs, value, spread, actions, logits, valid, provenance, mode)

    def draw(self, noise: RowNoise, sims: int) -> None:
        """Nothing: all actions are there."""
        del noise, sims

    def inner(
        self, obs: Float[Tensor, "r obs_dim"], draws: Float[Tensor, "r k act_dim"] | None
    ) -> tuple[Float[Tensor, "r k"], Float[Tensor, "r k act_dim"] | None]:
        """The prior's logits."""
        del draws
        logits = self._problem.prior.logits(obs)
        if not self.is_stored:
            return logits, None
        logits, order = torch.sort(logits, dim=-1, descending=True, stable=True)
        return logits, self._one_hot[order]


class SampledActions(PlannerConfig):
    """Where the candidates of continuous tasks come from.

    Attributes:
        policy_samples: draws of the policy at the root, its mode first.
        flat_samples: draws of the flattened policy.
        clone_samples: draws of the behaviour's clone where no logged action is given; without a clone, of the
            policy.
        inner_samples: draws of the policy at other nodes.
        spread: deviations of the flattened policy, in those of the policy.
        merge_distance: actions closer than this in every dimension are one.
    """

    policy_samples: Annotated[int, Field(ge=1, le=10_000)] = 8
    flat_samples: Annotated[int, Field(ge=0, le=10_000)] = 4
    clone_samples: Annotated[int, Field(ge=0, le=10_000)] = 4
    inner_samples: Annotated[int, Field(ge=1, le=10_000)] = 4
    spread: Annotated[float, Field(gt=0, le=100)] = 2.0
    merge_distance: Annotated[float, Field(ge=0, le=1)] = 1e-3


class SampledProposals:
    """Candidates from several sources, merged where they coincide; the prior's draws below the root.

    The logit of a candidate is `log(K * its weight)`: 0 for a draw of the prior, which carries the prior in
    how often it is drawn (sampled MuZero with `beta = pi`).

    Args:
        problem: whose prior is continuous.
        sampled: how many from where.
        injected_mass: prior mass that `Hints.candidates` share.
    """

    is_stored = True

    def __init__(
        self, problem: PlanningProblem, sampled: SampledActions, *, injected_mass: float = 0.25
    ) -> None:
        self._problem, self._sampled, self._injected_mass = problem, sampled, injected_mass
        self.width = sampled.inner_samples

    def root(self, obs: Float[Tensor, "b obs_dim"], noise: RowNoise, hints: Hints) -> RootSet:
        """Logged actions, clone, prior, flattened prior, the plan before: the earlier of two equals stays."""
        # 1. Gather the sources in order of precedence.
        names, pieces, usable = zip(*self._gather(obs, noise, hints), strict=True)
        actions, clipped = clip_to_box(torch.cat(pieces, 1).to(obs.dtype))
        source = torch.cat([torch.full((piece.shape[1],), SOURCES.index(name)) for name, piece in
                            zip(names, pieces, strict=True)]).to(obs.device)  # fmt: skip
        # 2. Weigh: logged actions share a fixed mass of the prior, all others the rest.
        valid = torch.cat(usable, 1)
        weight = self._weigh(source, valid, obs.dtype)
        # 3. Merge actions that coincide; the first of them keeps the weight of all.
        weight, survivor = merge_close(actions, weight, distance=self._sampled.merge_distance)
        # Merged slots and unusable ones have none.
        valid = weight > 0
        # log(K w): a draw of the prior has the logit 0, n draws merged to one have log n.
        logits = (weight * weight.shape[1]).log().nan_to_num(neginf=0.0)
        # The first slot of the policy holds its mode; where it was merged, its survivor stands for it.
        mode = int((source == SOURCES.index("policy")).nonzero()[0])
        value, spread = _evaluate(self._problem, obs)
        return RootSet(
            observation=obs,
            value=value,
            value_spread=spread,
            actions=actions,
            logits=logits.masked_fill(~valid, torch.finfo(obs.dtype).min),
            valid=valid,
            provenance=source.expand(len(obs), -1),
            policy_slot=survivor[:, mode],
            clipped=int(clipped),
        )

    def draw(self, noise: RowNoise, sims: int) -> Float[Tensor, "b sims k act_dim"]:
        """Noise for the draws of every node that may come."""
        shape = (sims, self.width, self._problem.prior.act_dim)
        return noise.normal("tree/actions", shape).to(self._problem.dtype)

    def inner(
        self, obs: Float[Tensor, "r obs_dim"], draws: Float[Tensor, "r k act_dim"] | None
    ) -> tuple[Float[Tensor, "r k"], Float[Tensor, "r k act_dim"] | None]:
        """Draws of the prior, equally weighted."""
        assert draws is not None
        actions = self._problem.prior.sample(obs, draws.transpose(0, 1)).transpose(0, 1)
        # Draws carry the prior in how often they are drawn: log(K / K) = 0 for each.
        return actions.new_zeros(actions.shape[:2]), actions

    def _gather(
        self, obs: Tensor, noise: RowNoise, hints: Hints
    ) -> list[tuple[str, Tensor, Bool[Tensor, "b k"]]]:
        """Name, actions and usable slots of each source, in order."""
        problem, sampled = self._problem, self._sampled
        prior, rows = problem.prior, len(obs)
        groups: list[tuple[str, Tensor, Tensor | None]] = []
        # The mode is one of them.
        draws = sampled.policy_samples - 1
        if hints.candidates is not None:
            groups.append(("dataset", hints.candidates, None))
        elif problem.clone is not None and sampled.clone_samples:
            drawn = noise.normal("root/clone", (sampled.clone_samples, prior.act_dim)).to(problem.dtype)
            groups.append(("clone", problem.clone.sample(obs, drawn.transpose(0, 1)).transpose(0, 1), None))
        else:
            # Nobody stands for the behaviour: the policy gets its share, so
            # that the number of candidates stays the same.
            draws += sampled.clone_samples
        groups.append(("policy", prior.act(obs)[:, None], None))
        flat = ("flat_policy", sampled.flat_samples, sampled.spread)
        for name, count, spread in (("policy", draws, 1.0), flat):
            if count:
                drawn = noise.normal(f"root/{name}", (count, prior.act_dim)).to(problem.dtype)
                action = prior.sample(obs, drawn.transpose(0, 1), spread=spread).transpose(0, 1)
                groups.append((name, action, None))
        if hints.warm is not None:
            # Only the first step of the plan before: a candidate is an action.
            groups.append(("warm", hints.warm[:, :1], hints.has_warm))
        every = torch.ones(rows, 1, dtype=torch.bool, device=obs.device)
        return [
            (name, action, (every if usable is None else usable[:, None]).expand(-1, action.shape[1]))
            for name, action, usable in groups
        ]

    def _weigh(self, source: Tensor, valid: Tensor, dtype: torch.dtype) -> Float[Tensor, "b k"]:
        """Prior weight of each slot: logged actions share their mass, the others the rest, in equal parts."""
        is_logged = valid & (source == SOURCES.index("dataset"))
        is_other = valid & ~is_logged
        # 0 in states without a logged action, whose other candidates then share all of it.
        mass = self._injected_mass * is_logged.any(-1, keepdim=True)
        share = is_logged * mass / is_logged.sum(-1, keepdim=True).clamp_min(1)
        return (share + is_other * (1.0 - mass) / is_other.sum(-1, keepdim=True).clamp_min(1)).to(dtype)


def merge_close(
    actions: Float[Tensor, "b k act_dim"], weight: Float[Tensor, "b k"], *, distance: float
) -> tuple[Float[Tensor, "b k"], Int[Tensor, "b k"]]:
    """Gives the weight of actions that coincide to the first of them.

    Args:
        actions: `[b, k, act_dim]`.
        weight: `[b, k]`, 0 for slots that do not count.
        distance: in the maximum norm; chains of close actions are one.

    Returns:
        The weights, 0 for merged slots, and which slot each was merged into.
    """
    # Which pairs coincide; every action does with itself.
    apart = (actions[:, :, None] - actions[:, None]).abs().amax(-1)
    close = (apart < distance) & (weight[:, None] > 0) & (weight[:, :, None] > 0)
    close = close | torch.eye(actions.shape[1], dtype=torch.bool, device=actions.device)
    survivor = close.long().argmax(-1)  # the first that is close
    # a ~ b ~ c is one chain: follow survivors to their own, twice as far each time.
    for _ in range(max(1, actions.shape[1] - 1).bit_length()):
        survivor = survivor.gather(1, survivor)
    # Weights add up, so merging changes no probability.
    return torch.zeros_like(weight).scatter_add(1, survivor, weight), survivor


def _evaluate(problem: PlanningProblem, obs: Tensor) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"]]:
    """V(s), and its deviation over critics."""
    values = problem.leaf.value(obs)
    # Population deviation: 0 for a single critic.
    return problem.pessimism.leaf(values), values.std(0, correction=0)
