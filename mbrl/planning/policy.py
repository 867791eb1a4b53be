"""A planner as a policy: evaluated, compared and estimated like any other."""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.nets.action_box import ActionBox
from mbrl.planning.base import Budget, Hints, Planner, PlanResult
from mbrl.planning.noise import RowNoise, splitmix64

PlanHook: TypeAlias = Callable[[PlanResult], None]
"""Told of every plan."""

_CHUNK_ROWS: Final = 256
"""States planned together in `act`; bounds memory, as a search keeps trees for all of them."""


class _Memory(NamedTuple):
    """What is left of an episode's last plan, shifted by one step."""

    plan: Float[Tensor, "l act_dim"]
    elites: Float[Tensor, "m k act_dim"] | None


class PlannerPolicy:
    """Acts by planning anew at every state; an `EpisodicPolicy` that offers the plan of the step before.

    It has no density: estimators that need ratios refuse it as they refuse any deterministic policy.

    The planner's own draws are a function of the row. With noise, their seed is a hash of the row's noise;
    without, of the observation, so that the evaluation action is a function of the state. `act` remembers
    nothing; `act_in_episodes` hands the planner the previous plan, shifted by one step, until `reset`.

    Args:
        planner: plans.
        box: maps [-1, 1] to the task's actions; None for one-hot actions.
        budget: of every call, for all rows of it together.
        is_warm: whether `act_in_episodes` offers the previous plan.
        on_plan: told of every plan, in order.
    """

    def __init__(
        self,
        planner: Planner,
        box: ActionBox | None,
        budget: Budget,
        *,
        is_warm: bool = True,
        on_plan: PlanHook | None = None,
    ) -> None:
        self.planner, self.box, self.budget = planner, box, budget
        self.is_warm, self._on_plan = is_warm, on_plan
        self._memory: dict[int, _Memory] = {}

    @property
    def act_dim(self) -> int:
        """Size of an action, and of the noise vector."""
        return self.planner.problem.prior.act_dim

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """Plans for every row, 256 at a time."""
        parts = [
            self._raw(self._plan(obs[rows], None if noise is None else noise[rows], None).action)
            for rows in (slice(k, k + _CHUNK_ROWS) for k in range(0, len(obs), _CHUNK_ROWS))
        ]
        return torch.cat(parts) if parts else obs.new_empty(0, self.act_dim)

    def act_in_episodes(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b act_dim"] | None = None,
        *,
        episodes: Sequence[int],
    ) -> Float[Tensor, "b act_dim"]:
        """Plans for every row from where its episode's last plan left off."""
        result = self._plan(obs, noise, self._hints(episodes))
        if self.is_warm:
            for row, episode in enumerate(episodes):
                self._remember(episode, result, row)
        return self._raw(result.action)

    def reset(self, episodes: Sequence[int] | None = None) -> None:
        """Forgets the plans of episodes that are over; None forgets all."""
        if episodes is None:
            self._memory.clear()
        else:
            for episode in episodes:
                self._memory.pop(episode, None)

    def _plan(self, obs: Tensor, noise: Tensor | None, hints: Hints | None) -> PlanResult:
        seeds = hash_rows(obs if noise is None else noise)
        result = self.planner.plan(
            obs.to(self.planner.problem.dtype), budget=self.budget, noise=RowNoise(seeds), hints=hints
        )
        if self._on_plan is not None:
            self._on_plan(result)
        return result

    def _raw(self, action: Tensor) -> Tensor:
        action = action.float()
        return action if self.box is None else self.box.unscale(action)

    def _remember(self, episode: int, result: PlanResult, row: int) -> None:
        rest = result.plan[row, 1 : int(result.plan_length[row])]
        if len(rest) == 0:
            self._memory.pop(episode, None)
            return
        elites = None if result.elites is None else result.elites[row, :, 1:].clone()
        self._memory[episode] = _Memory(rest.clone(), elites)

    def _hints(self, episodes: Sequence[int]) -> Hints | None:
        """What is left of the previous plans; a shorter one repeats its last action."""
        known = [self._memory.get(episode) for episode in episodes]
        memories = [memory for memory in known if memory is not None]
        if not memories:
            return None
        longest = max(len(memory.plan) for memory in memories)
        warm = memories[0].plan.new_zeros(len(known), longest, self.act_dim)
        for row, memory in enumerate(known):
            if memory is not None:
                warm[row, : len(memory.plan)] = memory.plan
                warm[row, len(memory.plan) :] = memory.plan[-1]
        return Hints(
            warm=warm,
            has_warm=torch.tensor([memory is not None for memory in known]),
            elites=_stack_elites([None if memory is None else memory.elites for memory in known]),
        )


def _stack_elites(parts: Sequence[Tensor | None]) -> Tensor | None:
    """`[b, m, l, act_dim]` with zeros where an episode has none; None if their sizes differ or all lack."""
    given = [part for part in parts if part is not None]
    if not given or 0 in given[0].shape or any(part.shape != given[0].shape for part in given):
        return None
    return torch.stack([torch.zeros_like(given[0]) if part is None else part for part in parts])


def hash_rows(rows: Float[Tensor, "b d"]) -> Int[Tensor, "b"]:
    """`[b]` int64, a hash of the bits of each row's float32 values; equal rows have equal hashes."""
    bits = rows.float().contiguous().view(torch.int32).long()
    seed = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for column in bits.unbind(1):
        seed = splitmix64(seed ^ column)
    return seed
