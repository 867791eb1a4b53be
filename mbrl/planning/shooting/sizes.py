"""How many plans each iteration scores within a budget."""

import itertools
from typing import Final

_LEAST_PLANS: Final = 8
"""Of an iteration: with fewer, half of which are elites, a mean and a deviation say nothing."""


def share_out(sizes: tuple[int, ...], sims: int | None) -> tuple[int, ...]:
    """Sizes of iterations that add up to `sims`, in proportion; few sims make few iterations of 8 or more."""
    if sims is None:
        return sizes
    rounds = min(len(sizes), max(1, sims // _LEAST_PLANS))
    # Cumulated shares, rounded down, then their differences: sizes add up to `sims` exactly.
    ends = [sims * sum(sizes[: k + 1]) // sum(sizes[:rounds]) for k in range(rounds)]
    return tuple(end - start for start, end in itertools.pairwise((0, *ends)))
