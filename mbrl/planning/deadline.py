"""Whether there is time for one more piece of work: a clock from outside, and what such work took before."""

import math
from collections.abc import Hashable, MutableMapping
from typing import Final, TypeAlias

from mbrl.planning.base import Budget
from mbrl.planning.problem import Clock

Costs: TypeAlias = MutableMapping[Hashable, float]
"""Seconds that kinds of work take, smoothed; a planner keeps one table for all its calls."""

_MARGIN: Final = 1.3
_WEIGHT: Final = 0.3
_FORGET: Final = 0.98


class Deadline:
    """The end of one call.

    Args:
        budget: of the call.
        clock: seconds; None where the budget has no milliseconds.
        costs: what work took before; updated by `done`.

    Raises:
        ValueError: a budget of milliseconds without a clock.
    """

    def __init__(self, budget: Budget, clock: Clock | None, costs: Costs) -> None:
        if budget.milliseconds is not None and clock is None:
            raise ValueError("a budget of milliseconds needs a clock; build the planner with one")
        self._clock, self._costs = clock, costs
        self._start = self._mark = 0.0 if clock is None else clock()
        limit = math.inf if budget.milliseconds is None else budget.milliseconds / 1000.0
        self._end = self._start + limit
        self.is_hit = False

    def cost(self, work: Hashable) -> float | None:
        """Seconds that such work usually takes; None if it never ran."""
        return self._costs.get(work)

    def fits(self, seconds: float) -> bool:
        """Whether 1.3 times so much is left."""
        return self._clock is None or self._clock() + _MARGIN * seconds <= self._end

    def permits(self, work: Hashable, *, then: Hashable | None = None) -> bool:
        """Whether `work`, and what must follow it, fit. Work that never ran is taken to be free."""
        if self.fits(sum(self._costs.get(kind, 0.0) for kind in (work, then))):
            return True
        self.refuse(work)
        self.is_hit = True
        return False

    def refuse(self, work: Hashable) -> None:
        """What is refused is remembered as a little cheaper: one slow call does not end it for good."""
        if work in self._costs:
            self._costs[work] *= _FORGET

    def begin(self) -> None:
        """Work starts now."""
        if self._clock is not None:
            self._mark = self._clock()

    def done(self, work: Hashable) -> None:
        """The work that began last is done."""
        if self._clock is not None:
            took = self._clock() - self._mark
            known = self._costs.get(work, took)
            self._costs[work] = known + _WEIGHT * (took - known)

    @property
    def milliseconds(self) -> float:
        """Since the start; NaN without a clock."""
        return math.nan if self._clock is None else 1000.0 * (self._clock() - self._start)
