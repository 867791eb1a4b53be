"""A planner as a policy: evaluated, compared and estimated like any other."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.nets.action_box import ActionBox
from mbrl.planning.base import Budget, Hints, Planner, PlanResult
from mbrl.planning.noise import RowNoise, splitmix64

PlanHook: TypeAlias = Callable[[PlanResult], None]
"""Told of every plan."""

_CHUNK_ROWS = 256


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
        self._plans: dict[int, Tensor] = {}

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
                rest = result.plan[row, 1 : int(result.plan_length[row])]
                if len(rest):
                    self._plans[episode] = rest.clone()
                else:
                    self._plans.pop(episode, None)
        return self._raw(result.action)

    def reset(self, episodes: Sequence[int] | None = None) -> None:
        """Forgets the plans of episodes that are over; None forgets all."""
        if episodes is None:
            self._plans.clear()
        else:
            for episode in episodes:
                self._plans.pop(episode, None)

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

    def _hints(self, episodes: Sequence[int]) -> Hints | None:
        """The rest of the previous plans; a shorter one repeats its last action."""
        known = [self._plans.get(episode) for episode in episodes]
        longest = max((len(plan) for plan in known if plan is not None), default=0)
        if longest == 0:
            return None
        first = next(plan for plan in known if plan is not None)
        warm = first.new_zeros(len(known), longest, first.shape[-1])
        for row, plan in enumerate(known):
            if plan is not None:
                warm[row, : len(plan)] = plan
                warm[row, len(plan) :] = plan[-1]
        return Hints(warm=warm, has_warm=torch.tensor([plan is not None for plan in known]))


def hash_rows(rows: Float[Tensor, "b d"]) -> Int[Tensor, "b"]:
    """`[b]` int64, a hash of the bits of each row's float32 values; equal rows have equal hashes."""
    bits = rows.float().contiguous().view(torch.int32).long()
    seed = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for column in bits.unbind(1):
        seed = splitmix64(seed ^ column)
    return seed
