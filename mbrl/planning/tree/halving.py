"""Sequential halving at a root: who is visited when (Karnin, Koren & Somekh 2013; Danihelka et al. 2022).

Two ways to run it: in rounds that visit all actions of a phase at once, and one by one, as mctx does.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mbrl.planning.deadline import Rounds
from mbrl.planning.tree.search import RootStats, Search
from mbrl.planning.tree.simulation import Select

Score: TypeAlias = Callable[[RootStats], Tensor]
"""`[b, k]` scores of the candidates by what the trees say of them so far."""


class Round(NamedTuple):
    """One visit of `size` actions at once; at a pick they are chosen anew out of those before."""

    size: int
    is_pick: bool


@functools.cache
def halving_rounds(considered: int, sims: int) -> tuple[Round, ...]:
    """Phases of `max(1, floor(n / (ceil(log2 m) k)))` rounds of k actions; k = m, m/2, ..., 2.

    The last round is cut, and takes the best. One action alone is visited every time.

    Args:
        considered: m, actions to begin with, >= 0.
        sims: n.
    """
    if considered <= 1:
        return tuple(Round(1, sim == 0) for sim in range(sims))
    # Each of the log2(m) phases gets an equal share of n, so later ones visit fewer actions more often.
    halvings = math.ceil(math.log2(considered))
    rounds: list[Round] = []
    left, width = sims, considered
    while left > 0:
        for index in range(max(1, sims // (halvings * width))):
            size = min(width, left)
            if size == 0:
                break
            rounds.append(Round(size, index == 0 or size < width))
            left -= size
        # Two at least: with one the rest of the budget would decide nothing.
        width = max(2, width // 2)
    return tuple(rounds)


@functools.cache
def considered_visits(considered: int, sims: int) -> tuple[int, ...]:
    """How often the action of each simulation has been visited before, when simulations come one by one.

    Args:
        considered: m, actions to begin with, >= 0.
        sims: n.
    """
    if considered <= 1:
        return tuple(range(sims))
    sequence: list[int] = []
    for visits, (size, _) in enumerate(halving_rounds(considered, sims)):
        # In the r-th round each action has r visits, if it is still considered.
        sequence.extend([visits] * size)
    return tuple(sequence)


@runtime_checkable
class Halving(Protocol):
    """Runs sequential halving."""

    def count_rounds(self, sims: int) -> int:
        """Sequential rounds of a number of simulations."""
        ...

    def run(self, search: Search, score: Score, *, select: Select, sims: int, rounds: Rounds) -> int:
        """Searches until simulations or rounds are used up; returns the simulations done for each state.

        Args:
            search: whose roots are halved.
            score: ranks candidates.
            select: what simulations do below the roots.
            sims: of each state.
            rounds: how many there is time for.
        """
        ...


class HalvingByRounds:
    """All actions of a phase are visited at once; the set is chosen when a phase begins.

    Args:
        considered: m, actions to begin with.
        keeps_policy: whether the policy's mode is always among them.
    """

    def __init__(self, considered: int, *, keeps_policy: bool) -> None:
        self._considered, self._keeps_policy = considered, keeps_policy

    def count_rounds(self, sims: int) -> int:
        """Sequential rounds of a number of simulations."""
        return len(halving_rounds(self._considered, sims))

    def run(self, search: Search, score: Score, *, select: Select, sims: int, rounds: Rounds) -> int:
        """See `Halving.run`."""
        schedule = _Schedule(search, self._considered, sims)
        remaining = torch.ones_like(search.valid)
        ranked = done = torch.zeros_like(schedule.of)
        ranked = ranked[:, None]
        for index in rounds(len(schedule)):
            size, is_pick, widest = schedule.round(index)
            # 1. Where a phase begins: rank the remaining actions, keep the best `size` of them.
            if bool(is_pick.any()):
                anew = self._rank(search, score, remaining, size=size, is_first=index == 0)
                ranked = torch.where(is_pick[:, None], anew, ranked)
                remaining = torch.where(is_pick[:, None], _first(anew, size), remaining)
            # 2. One simulation below each kept action of each state; masks may leave a state fewer.
            action, place = ranked[:, :widest], torch.arange(widest, device=size.device)
            active = None if schedule.is_uniform else place < size[:, None]
            if search.may_exclude:
                alive = search.valid.gather(1, action)
                active = alive if active is None else active & alive
                active = None if bool(active.all()) else active
            search.run_round(action, done[:, None] + place, select=select, active=active)
            done = done + size
        # Masks may leave some states fewer simulations: what is told is the number that every state had.
        return int(done.min())

    def _rank(
        self,
        search: Search,
        score: Score,
        remaining: Bool[Tensor, "b k"],
        *,
        size: Int[Tensor, "b"],
        is_first: bool,
    ) -> Int[Tensor, "b k"]:
        """Candidates of the present set, best first; at first the policy's mode is among those taken."""
        remaining = remaining & search.valid
        if search.may_exclude:  # all that were left have gone: begin anew with the others
            remaining = torch.where(remaining.any(-1, keepdim=True), remaining, search.valid)
        # Excluded ones last; `score` itself stays finite for them.
        scored = score(search.stats()).masked_fill(~remaining, -torch.inf)
        # Stable: equal scores keep the order of the candidates, on every device.
        order = torch.sort(scored, dim=-1, descending=True, stable=True).indices
        if not (is_first and self._keeps_policy):
            return order
        # Swap the policy's mode with the last of those taken, if it is not among them.
        mode, last = search.root.policy_slot[:, None], (size - 1)[:, None]
        rank = (order == mode).long().argmax(-1, keepdim=True)
        # Not where one action alone is taken: the policy's mode would replace the best.
        target = torch.where((size[:, None] > 1) & (rank > last), last, rank)
        displaced = order.gather(1, target)
        return order.scatter(1, rank, displaced).scatter(1, target, mode)


class HalvingOneByOne:
    """As in mctx: always the best of the actions that were visited as often as is due.

    Args:
        considered: m, actions to begin with.
    """

    def __init__(self, considered: int) -> None:
        self._considered = considered

    def count_rounds(self, sims: int) -> int:
        """One for each simulation."""
        return sims

    def run(self, search: Search, score: Score, *, select: Select, sims: int, rounds: Rounds) -> int:
        """See `Halving.run`."""
        numbers, of = count_considered(search, self._considered)
        table = torch.tensor([considered_visits(number, sims) for number in numbers], device=of.device)[of]
        done = 0
        for sim in rounds(sims):
            stats = search.stats()
            # As mctx: the action whose count is due, of several the one that leads.
            is_due = search.valid & (stats.visits == table[:, sim, None])
            action = score(stats).masked_fill(~is_due, -torch.inf).argmax(-1, keepdim=True)
            search.run_round(action, torch.full_like(action, sim), select=select)
            done = sim + 1
        return done


def count_considered(search: Search, most: int) -> tuple[list[int], Int[Tensor, "b"]]:
    """How many actions halving begins with, as distinct numbers and which of them is each state's."""
    # Few distinct numbers, so that schedules are made once for each and not for each state.
    count = search.root.valid.sum(-1).clamp(max=most)
    numbers, of = cast(tuple[Tensor, Tensor], torch.unique(count, return_inverse=True))
    return cast(list[int], numbers.tolist()), of


class _Schedule:
    """Rounds of every state: masks leave some of them fewer actions to begin with than others."""

    def __init__(self, search: Search, considered: int, sims: int) -> None:
        numbers, self.of = count_considered(search, considered)
        self._schedules = [halving_rounds(number, sims) for number in numbers]
        self.is_uniform = len(numbers) == 1

    def __len__(self) -> int:
        return max(len(schedule) for schedule in self._schedules)

    def round(self, index: int) -> tuple[Int[Tensor, "b"], Bool[Tensor, "b"], int]:
        """Actions of each state, whether they are chosen anew, and the most of any state."""
        rest = Round(size=0, is_pick=False)  # of states that were done before
        now = [schedule[index] if index < len(schedule) else rest for schedule in self._schedules]
        sizes, picks = zip(*now, strict=True)
        device = self.of.device
        size = torch.tensor(sizes, device=device)[self.of]
        return size, torch.tensor(picks, device=device)[self.of], max(sizes)


def _first(order: Int[Tensor, "b k"], size: Int[Tensor, "b"]) -> Bool[Tensor, "b k"]:
    """Which candidates are the first `size` of an order."""
    rank = torch.arange(order.shape[1], device=order.device)
    # Back from ranks to candidates.
    none = torch.zeros(order.shape, dtype=torch.bool, device=order.device)
    return none.scatter(1, order, rank < size[:, None])
