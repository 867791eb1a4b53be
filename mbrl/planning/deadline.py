"""Whether there is time for one more piece of work: a clock from outside, and what such work took before."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, MutableMapping, Sequence
from typing import Final, TypeAlias, TypeVar

from mbrl.planning.base import Budget
from mbrl.planning.problem.problem import Clock

T = TypeVar("T")

_TRIALS: Final = 2
"""Runs after which a cost is believed. The first run of anything is slow (memory, threads, choice of
kernels); were it a measure, work that fits well would be refused from the second call on."""

_MARGIN: Final = 1.3
"""Share of the usual cost that must be left: with none, every last round that takes longer than usual would
end late; a larger one leaves time unused."""

_WEIGHT: Final = 0.3
"""Of a new run in the smoothed cost, which so remembers three or four: a planner follows a machine that gets
busy within as many calls. 1 would follow every outlier; 0.03 would be late some thirty times first."""

_MOST: Final = 2.0
"""A run counts as at most so many times the smoothed cost, which it so raises by 0.3 of it. Without the cap
a pause of the operating system of a hundred rounds would raise it thirty times, and end planning for long."""

_RESTED: Final = 0.9
"""Belief below which work is new again, after six refusals in a row (0.98^6 < 0.9). What did not run for a
while runs slowly at first; were that run a measure, it would be refused again at once."""

_STEADY: Final = 20
"""Runs in a row after which refusals are short again. At 1, work that gets through now and then would be
retried as often as work that fits."""

_MOST_PATIENCE: Final = 32.0
"""Longest refusal, in units of the first. Work that takes twice its budget is then late in two calls of
1,500; without a bound it would never be tried again, even on a machine that became free."""

_FORGET: Final = 0.98
"""Share of a cost that is still believed after a refusal. At 1 a single slow run would end planning for good;
at 0.9 work that takes twice its budget would be tried after nine refusals, with 0.98 after 47."""


@dataclasses.dataclass(slots=True)
class Cost:
    """What a kind of work takes.

    Attributes:
        seconds: smoothed over its runs, without the first one once there is a second.
        runs: how often it was timed since it was last new.
        belief: share of these seconds that is still believed; refusals wear it down, a run restores it.
        patience: factor on the refusals that this takes; every rest doubles it, steady runs make it 1 again.
    """

    seconds: float
    runs: int
    belief: float = 1.0
    patience: float = 1.0

    def note(self, seconds: float) -> None:
        """Adds a run. A slow one counts as twice what runs take; after a rest nothing is known."""
        # What rested is new: its next runs are trials, and later refusals take longer to wear off.
        if self.belief < _RESTED:
            self.runs, self.patience = 0, min(2.0 * self.patience, _MOST_PATIENCE)
        self.runs += 1
        if self.runs > _STEADY:
            self.patience = 1.0
        # The second trial replaces the first; later runs are smoothed, outliers cut.
        if self.runs <= _TRIALS:
            self.seconds = seconds
        else:
            self.seconds += _WEIGHT * (min(seconds, _MOST * self.seconds) - self.seconds)
        self.belief = 1.0

    def refuse(self) -> None:
        """It was not begun for want of time."""
        self.belief *= _FORGET ** (1.0 / self.patience)


Costs: TypeAlias = MutableMapping[Hashable, Cost]
"""By kind of work; a planner keeps one table for all its calls."""

Rounds: TypeAlias = Callable[[int], Iterable[int]]
"""At most so many rounds, numbered; fewer where a deadline ends them. `range` ends none."""


class Deadline:
    """The end of one call.

    Work that never ran is taken to be free: only trying tells. So is what ran once, for the first run of
    anything is slow (memory, threads, choice of kernels) and no measure. What is refused is believed to cost
    0.98 of what it was, until it runs again, so that one slow call does not end it for good; after a handful
    of refusals in a row it is new again, for what did not run for a while runs slowly. Each such attempt can
    make two calls late; work that does not fit a budget at all is attempted ever more rarely, at last once in
    a thousand calls or so.

    Args:
        budget: of the call.
        clock: seconds; None where the budget has no milliseconds.
        costs: what work took before; updated by `timed` and by refusals.

    Raises:
        ValueError: a budget of milliseconds without a clock.
    """

    def __init__(self, budget: Budget, clock: Clock | None, costs: Costs) -> None:
        if budget.milliseconds is not None and clock is None:
            raise ValueError("a budget of milliseconds needs a clock; build the planner with one")
        self._clock, self._costs = clock, costs
        self._start = 0.0 if clock is None else clock()
        limit = math.inf if budget.milliseconds is None else budget.milliseconds / 1000.0
        self._end = self._start + limit
        self.is_hit = False

    @property
    def milliseconds(self) -> float:
        """Since the start; NaN without a clock."""
        return math.nan if self._clock is None else 1000.0 * (self._clock() - self._start)

    def cost(self, work: Hashable) -> float | None:
        """Seconds that such work usually takes; None if it did not run twice."""
        known = self._costs.get(work)
        return None if known is None or known.runs < _TRIALS else known.belief * known.seconds

    def fits(self, seconds: float) -> bool:
        """Whether 1.3 times so much is left."""
        return self._clock is None or self._clock() + _MARGIN * seconds <= self._end

    def permits(self, *works: Hashable) -> bool:
        """Whether work and what must follow it fit; if not, they are refused and the end is hit."""
        if self.fits(sum(self.cost(work) or 0.0 for work in works)):
            return True
        for work in works:
            self.refuse(work)
        self.is_hit = True
        return False

    def refuse(self, work: Hashable) -> None:
        """Remembers work as a little cheaper."""
        if work in self._costs:
            self._costs[work].refuse()

    def most_affordable(self, options: Sequence[tuple[T, Hashable, int]], *, then: float = 0.0) -> T:
        """The largest option that should fit, looked for from the smallest upwards.

        What was never tried is taken to cost twice as much as the option before it, which is half as large;
        so work of a new kind begins small. The smallest is returned even where it does not fit.

        Args:
            options: each with the work of a round and the number of rounds, in doubling sizes.
            then: seconds of what follows.
        """
        if math.isinf(self._end):
            return options[-1][0]  # no limit of time: results may not depend on what a clock said
        chosen, first, _ = options[0]
        expected = self.cost(first)
        for option, work, rounds in options[1:]:
            known = self.cost(work)
            expected = known if known is not None or expected is None else 2.0 * expected
            if expected is None or not self.fits(rounds * expected + then):
                self.refuse(work)
                break
            chosen = option
        return chosen

    @contextlib.contextmanager
    def timed(self, work: Hashable) -> Generator[None]:
        """Notes what the body takes, which is such work."""
        if self._clock is None:
            yield
            return
        start = self._clock()
        yield
        self._costs.setdefault(work, Cost(0.0, 0)).note(self._clock() - start)

    def repeat(self, work: Hashable, most: int, *, then: Hashable) -> Iterator[int]:
        """Counts rounds of work, the body of the loop, while another and what must follow fit.

        Args:
            work: one round.
            most: rounds.
            then: what follows the last of them.
        """
        for index in range(most):
            if not self.permits(work, then):
                return
            with self.timed(work):
                yield index


def halve(most: int, least: int) -> list[int]:
    """`most, most // 2, most // 4, ...` down to `least`; `most` whatever it is."""
    sizes = [most]
    while sizes[-1] // 2 >= least:
        sizes.append(sizes[-1] // 2)
    return sizes
