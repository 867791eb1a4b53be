"""Rows of a log with the step that led to each: what a guard is fitted to."""

import dataclasses
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset

Floats: TypeAlias = NDArray[np.float64]

LEAST_GROUPS: Final = 10
"""Groups of rows that belong together; fewer episodes are cut into blocks."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """Rows of a log with the step that led to each.

    Attributes:
        obs: `[n, obs_dim]`, raw units.
        action: `[n, act_dim]`, environment units.
        previous_obs: `[n, obs_dim]`, one step before.
        previous_action: `[n, act_dim]`.
        group: `[n]` int64, which rows belong together.
    """

    obs: Floats
    action: Floats
    previous_obs: Floats
    previous_action: Floats
    group: NDArray[np.int64]

    @classmethod
    def of(cls, log: Dataset) -> "Steps":
        """All rows but the first of each episode.

        Raises:
            DataError: no episode has two steps.
        """
        long = [episode for episode in log.episodes if len(episode) > 1]
        if not long:
            raise DataError(
                f"no episode of {log.info.name!r} has two steps, which a guard is made of",
                remedy="Give a log of longer episodes, or export without a guard.",
            )
        parts = [(e.observations[1:-1], e.actions[1:], e.observations[:-2], e.actions[:-1]) for e in long]
        # Few episodes are cut into blocks: rows of a group are never held against one another.
        blocks = -(-LEAST_GROUPS // len(long))
        groups = [k * blocks + np.arange(len(p[0])) * blocks // len(p[0]) for k, p in enumerate(parts)]
        obs, action, before, sent = (
            np.concatenate([part[k] for part in parts]).astype(np.float64) for k in range(4)
        )
        return cls(obs, action, before, sent, np.concatenate(groups).astype(np.int64))

    def __len__(self) -> int:
        return len(self.group)

    def take(self, rows: NDArray[np.int64]) -> "Steps":
        """Some of them."""
        return Steps(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))
