"""Keeping a deadline: how many simulations fit, and whether another round does."""

import math
from collections.abc import Callable
from typing import Final

from mbrl.planning.base import Budget
from mbrl.planning.problem import Clock

_SIZES: Final = (128, 64, 32, 16, 8, 4, 2)
_FIRST_SIZE: Final = 32  # while no round has been timed
_WEIGHT: Final = 0.3
_MARGIN: Final = 1.3
_FORGETTING: Final = 0.9  # of the estimate when not even one round fits, so that one slow round is no verdict


class Pacer:
    """Remembers how long rounds take, by batch size.

    Args:
        clock: seconds; None permits no budget of milliseconds.
    """

    def __init__(self, clock: Clock | None) -> None:
        self.clock = clock
        self.seconds: dict[int, float] = {}

    def begin(self, budget: Budget, states: int) -> "Pace":
        """Starts a plan.

        Raises:
            ValueError: a budget of milliseconds without a clock.
        """
        if budget.milliseconds is not None and self.clock is None:
            raise ValueError("a budget of milliseconds needs a planner that was given a clock")
        return Pace(self, budget, states)


class Pace:
    """The clock of one plan."""

    def __init__(self, pacer: Pacer, budget: Budget, states: int) -> None:
        self._pacer, self._budget, self._states = pacer, budget, states
        self._start = self._last = self._now()
        self.is_deadline_hit = False

    @property
    def milliseconds(self) -> float:
        """Since the plan began; NaN without a clock."""
        return 1000.0 * (self._now() - self._start)

    def sims(self, rounds: Callable[[int], int]) -> int:
        """Simulations to begin with; 0 if there is no time for any.

        Args:
            rounds: of a number of simulations.
        """
        limit = self._budget.sims
        if self._budget.milliseconds is None:
            assert limit is not None
            return limit
        cap = limit or _SIZES[0]
        left, cost = self._left(), self._pacer.seconds.get(self._states)
        if left <= 0.0:
            self.is_deadline_hit = True
            return 0
        if cost is None:
            return min(cap, _FIRST_SIZE)
        for size in _SIZES if limit is None else (limit, *(size for size in _SIZES if size < limit)):
            if rounds(size) * cost <= left:
                return size
        self._pacer.seconds[self._states] = cost * _FORGETTING
        self.is_deadline_hit = True
        return 1 if rounds(1) * cost * _MARGIN <= left else 0

    def begin_rounds(self) -> None:
        """What came before the first round is not counted as part of it."""
        self._last = self._now()

    def finish_round(self) -> bool:
        """Notes how long a round took; False if another would pass the deadline."""
        if self._budget.milliseconds is None:
            return True
        now = self._now()
        cost, self._last = now - self._last, now
        old = self._pacer.seconds.get(self._states, cost)
        self._pacer.seconds[self._states] = old + _WEIGHT * (cost - old)
        if _MARGIN * self._pacer.seconds[self._states] > self._left():
            self.is_deadline_hit = True
            return False
        return True

    def _left(self) -> float:
        assert self._budget.milliseconds is not None
        return self._start + self._budget.milliseconds / 1000.0 - self._now()

    def _now(self) -> float:
        return math.nan if self._pacer.clock is None else self._pacer.clock()
