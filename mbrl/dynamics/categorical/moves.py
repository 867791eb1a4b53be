"""The moves of a log: changes that many steps make, from whatever state."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.data.choices.states import StateIndex
from mbrl.data.dataset import Transitions

MOST_MOVES: Final = 64
"""The most common ones are kept; grids and queues have fewer, ids have no common ones."""

_GRAIN: Final = 1e-3  # deviations of a change within which two are one: differences are rounded in float32


def find_moves(
    index: StateIndex, entered: NDArray[np.int64], rows: Transitions, scale: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where each move leads from each state, and how common it is.

    Args:
        index: the states.
        entered: `[S']`, those that any step enters, ascending.
        rows: training steps, whose successors are known.
        scale: `[obs_dim]`, deviations of the change, raw units.

    Returns:
        `[S, D]` indices into `entered`, -1 where a move leads to none of them; `[D]` logarithms of shares.
    """
    codes = index.codes.astype(np.float64)
    change = codes[index.find(rows.next_observation)] - codes[index.find(rows.observation)]
    grid = np.round(change / (_GRAIN * scale)).astype(np.int64)
    _, first, count = np.unique(grid, axis=0, return_index=True, return_counts=True)
    common = np.argsort(-count, kind="stable")[:MOST_MOVES]
    # States are found again on the same grid: s + move is a state up to rounding.
    place = {_key(code, scale): number for number, code in enumerate(codes)}
    into = np.full(len(codes), -1, dtype=np.int64)
    into[entered] = np.arange(len(entered))
    follows = np.full((len(codes), len(common)), -1, dtype=np.int64)
    for column, move in enumerate(change[first[common]]):
        found = np.array([place.get(_key(code, scale), -1) for code in codes + move])
        follows[:, column] = np.where(found >= 0, into[found], -1)
    return follows, np.log(count[common] / len(rows)).astype(np.float32)


def _key(code: NDArray[np.float64], scale: NDArray[np.float64]) -> bytes:
    return np.round(code / (_GRAIN * scale)).astype(np.int64).tobytes()
