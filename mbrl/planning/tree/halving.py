"""Sequential halving at a root: who is visited when (Karnin, Koren & Somekh 2013; Danihelka et al. 2022)."""

import functools
import math
from typing import NamedTuple


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
        sequence.extend([visits] * size)
    return tuple(sequence)
