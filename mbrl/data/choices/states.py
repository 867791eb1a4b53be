"""Discrete states of a log: its distinct observations, numbered, whatever their numbers mean."""

import functools

import numpy as np
from numpy.typing import NDArray

from mbrl.data.dataset import Dataset


class StateIndex:
    """The states of a log, and which of them an observation is.

    Args:
        codes: `[S, obs_dim]` float32, distinct, raw units; no -0.0.
    """

    def __init__(self, codes: NDArray[np.float32]) -> None:
        self.codes = np.ascontiguousarray(codes)

    def __len__(self) -> int:
        return len(self.codes)

    @classmethod
    def of(cls, dataset: Dataset) -> "StateIndex":
        """All distinct observations and successors, in ascending order."""
        every = dataset.transitions()
        both = [np.unique(every.observation, axis=0), every.next_observation]
        found = np.unique(np.concatenate(both), axis=0)
        # -0.0 and 0.0 are one number and two strings of bytes.
        return cls((found + np.float32(0.0)).astype(np.float32))

    def find(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """`[n]`, the state of each row; -1 for what is none."""
        rows = np.ascontiguousarray(observations + np.float32(0.0))
        return np.array([self._place.get(row.tobytes(), -1) for row in rows], dtype=np.int64)

    @functools.cached_property
    def _place(self) -> dict[bytes, int]:
        return {code.tobytes(): index for index, code in enumerate(self.codes)}


def are_one_hot(dataset: Dataset) -> bool:
    """Whether every action of a log is one of its choices."""
    action = dataset.transitions().action
    return bool(((action == 0) | (action == 1)).all() and (action.sum(1) == 1).all())
