"""What lies behind an edge of a tree: the model's step, the critic's value, the prior's proposals."""

from typing import Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import (
    PlanningProblem,
    StepOut,
    has_ended,
    mean_step,
    pessimistic_edge,
)
from mbrl.planning.tree.proposals import Proposals, clip_to_box
from mbrl.planning.tree.tree import Leaf

Transition: TypeAlias = Literal["mean", "ts1", "ts_inf", "member_forest"]
_SAMPLED: Final = ("ts1", "ts_inf")
"""Beliefs that draw outcomes from the Gaussians; the others follow their means."""


class Rows(NamedTuple):
    """Whose edges are expanded.

    Attributes:
        state: `[r]`, index of the state planned for.
        sim: `[r]`, which simulation of that state.
        copy: `[r]`, which of the state's trees.
        shared: k, if rows are `[b, copies, k]` and the copies of a state ask for the same edges; else 0.
    """

    state: Int[Tensor, "r"]
    sim: Int[Tensor, "r"]
    copy: Int[Tensor, "r"]
    shared: int = 0

    def take(self, index: Int[Tensor, "k"]) -> "Rows":
        """Some of them, which share nothing."""
        state, sim, copy = (part.index_select(0, index) for part in (self.state, self.sim, self.copy))
        return Rows(state, sim, copy)


@runtime_checkable
class Evaluate(Protocol):
    """Expands edges."""

    def __call__(
        self, observation: Float[Tensor, "r obs_dim"], action: Float[Tensor, "r act_dim"], rows: Rows
    ) -> Leaf:
        """What lies behind each edge; NaN where the model gave no number."""
        ...


class ModelEvaluation:
    """Expands edges in the model of a problem.

    All that is random is drawn before the search, by state and simulation, so it depends neither on the batch
    nor on the order of things; the trees of one state share it.

    Args:
        problem: model, critic, the cost of uncertainty.
        proposals: gives new nodes their actions.
        transition: which belief a step follows.
        noise: one stream a state.
        sims: simulations of a state at most.
        is_end_final: False gives ended nodes actions too.
    """

    def __init__(
        self,
        problem: PlanningProblem,
        proposals: Proposals,
        *,
        transition: Transition,
        noise: RowNoise,
        sims: int,
        is_end_final: bool = True,
    ) -> None:
        self._problem, self._proposals, self._transition = problem, proposals, transition
        self._is_end_final = is_end_final
        self._members = problem.step.ensemble_size
        # Indexed by state and simulation below: what a node is given does not
        # depend on when, or beside which others, it is made.
        self._draws = proposals.draw(noise, sims)
        self._outcome = self._member = None
        if transition in _SAMPLED:
            self._outcome = noise.normal("tree/outcome", (sims, problem.obs_dim + 1)).to(problem.dtype)
        if transition == "ts1":
            # One member for a simulation: an edge keeps the outcome that its first visit drew.
            self._member = (noise.uniform("tree/member", (sims,)) * self._members).long()
        self.model_rows = self.model_calls = 0
        self.clipped: Tensor | int = 0

    def __call__(
        self, observation: Float[Tensor, "r obs_dim"], action: Float[Tensor, "r act_dim"], rows: Rows
    ) -> Leaf:
        """Steps, then asks critic and prior about the states that did not end."""
        problem = self._problem
        # 1. The model's step; what is not finite counts as ended.
        out = _mark_bad(self._step(observation, action, rows))
        following, ended = out.next_observation, has_ended(out, problem.pessimism)
        alive = (~ended).nonzero().squeeze(1)
        # None for all rows spares the copies that indexing makes.
        some = None if len(alive) == len(ended) else alive
        # 2. The critic's value of where it leads, read by the soft horizon as well; 0 beyond an end.
        value = out.reward.new_zeros(len(ended))
        if len(alive):
            value = _spread(problem.leaf_value(_take(following, some)), some, len(ended))
        # What uncertainty costs is booked on the edge, before any value is scaled for selection.
        edge = pessimistic_edge(out, value, discount=problem.discount, pessimism=problem.pessimism)
        # 3. The prior's proposals there; mctx wants them below ends, too.
        logits, actions = self._propose(following, rows, some if self._is_end_final else None)
        limited = None
        if problem.limits is not None:
            none = torch.zeros_like(value)
            limited = torch.stack([none if part is None else part for part in (out.broken, out.cost)], -1)
        return Leaf(following, edge, out.uncertainty, value, logits, actions, limited)

    def _propose(
        self, following: Tensor, rows: Rows, some: Tensor | None
    ) -> tuple[Float[Tensor, "r a"], Float[Tensor, "r a act_dim"] | None]:
        """The prior's proposals at new states; zeros where none are asked for."""
        if some is not None and len(some) == 0:
            logits = following.new_zeros(len(following), self._proposals.width)
            if not self._proposals.is_stored:
                return logits, None
            return logits, following.new_zeros(*logits.shape, self._problem.prior.act_dim)
        draws = None
        if self._draws is not None:
            draws = self._draws[_take(rows.state, some), _take(rows.sim, some)]
        logits, actions = self._proposals.inner(_take(following, some), draws)
        logits = _spread(logits, some, len(following))
        if actions is not None:
            actions, clipped = clip_to_box(actions)
            self.clipped = self.clipped + clipped
            actions = _spread(actions, some, len(following))
        return logits, actions

    def _step(self, observation: Tensor, action: Tensor, rows: Rows) -> StepOut:
        step, members = self._problem.step, self._members
        noise = None if self._outcome is None else self._outcome[rows.state, rows.sim]
        self.model_calls += 1
        if rows.shared:
            return self._step_shared(observation, action, rows.shared)
        self.model_rows += len(observation)
        if self._transition == "mean":  # the mean of the members' means; it ends where more than half do
            return mean_step(step(observation, action, noise=noise))
        # ts1: the drawn one; else the tree's own, tree p follows member p mod E.
        member = rows.copy % members if self._member is None else self._member[rows.state, rows.sim]
        return step(observation, action, member=member, noise=noise)

    def _step_shared(self, observation: Tensor, action: Tensor, width: int) -> StepOut:
        """Every member's step of edges that the trees of a state share: asked once, not `e` times."""
        members = self._members

        def first(rows: Tensor) -> Tensor:
            return rows.view(-1, members, width, rows.shape[-1])[:, 0].flatten(0, 1)

        def by_tree(rows: Tensor) -> Tensor:
            return rows.view(members, -1, width, *rows.shape[2:]).transpose(0, 1).flatten(0, 2)

        # Distinct edges `[b k]` are asked once, and all members answer, `[e, b k]`: a row for each tree.
        out = self._problem.step(first(observation), first(action))
        self.model_rows += len(out.uncertainty)
        uncertainty = out.uncertainty.expand(members, -1)
        following, reward, ended, unsure = (by_tree(part) for part in (*out[:3], uncertainty))
        limited = (None if part is None else by_tree(part) for part in (out.broken, out.cost))
        return StepOut(following, reward, ended, unsure, *limited)


def _take(rows: Tensor, index: Tensor | None) -> Tensor:
    return rows if index is None else rows.index_select(0, index)


def _spread(rows: Tensor, index: Tensor | None, count: int) -> Tensor:
    """Puts rows in their places among `count`, zeros elsewhere."""
    if index is None:
        return rows
    return rows.new_zeros(count, *rows.shape[1:]).index_copy(0, index, rows)


def _mark_bad(out: StepOut) -> StepOut:
    """Ends rows that are not finite and makes their reward NaN, so that nothing else is asked about them."""
    # NaN and infinity survive a sum: one look at the host tells that all is well, as it nearly always is.
    total = out.next_observation.sum() + out.reward.sum() + out.uncertainty.sum()
    if bool(total.isfinite()):
        return out
    finite = out.next_observation.isfinite().all(-1) & out.reward.isfinite() & out.uncertainty.isfinite()
    return out._replace(
        # Finite again, since the prior and the critic see all rows; the NaN reward keeps the mark.
        next_observation=out.next_observation.masked_fill(~finite[:, None], 0.0),
        reward=out.reward.masked_fill(~finite, torch.nan),
        terminated=out.terminated | ~finite,
        uncertainty=out.uncertainty.masked_fill(~finite, 0.0),
    )
