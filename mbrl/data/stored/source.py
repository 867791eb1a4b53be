"""Batches of steps that stay on disk."""

import numpy as np
import torch

from mbrl.core.types import StateDict, TransitionBatch
from mbrl.data.merging.mixture import MixedDraws, SourceMixture, draw_rows
from mbrl.data.transitions import Transitions


class StoredSource:
    """The batches of a `DatasetSource` on the same steps, bit for bit, read from the mapped file.

    A step and its successor are two rows of the file that lie one behind the other, so a batch is one
    `index_select` here as well. Rewards, flags and places of rows are kept in memory, 16 bytes a step.

    Args:
        steps: whose observations and actions are on disk.
        mixture: see `DatasetSource`.

    Raises:
        ValueError: they are in memory, there are masks of choices, or more states than an int32 counts.
    """

    def __init__(self, steps: Transitions, mixture: SourceMixture | None = None) -> None:
        stored = steps.stored
        if stored is None or steps.action_mask is not None or len(stored.rows) >= 2**31:
            raise ValueError("a stored source needs less than 2^31 states on disk, without masks of choices")
        self._rows, self._obs_dim = torch.from_numpy(stored.rows), stored.obs_dim
        table = np.empty((len(steps), 4), dtype=np.int32)
        table[:, 0], table[:, 1] = stored.slots, steps.reward.view(np.int32)
        table[:, 2], table[:, 3] = steps.terminated, steps.has_next_action
        self._table = torch.from_numpy(table)
        last = stored.slots[~stored.has_next] + 1
        # Behind a whole episode the file holds zeros; behind one that was cut, the action that came next.
        self._hides_next = bool(stored.rows[:, self._obs_dim :][last].any())
        self._mixed = None if mixture is None else MixedDraws(mixture)

    def __len__(self) -> int:
        return self._table.shape[0]

    def sample(self, batch_size: int, generator: torch.Generator) -> TransitionBatch:
        """Draws `batch_size` transitions."""
        index = draw_rows(len(self), batch_size, generator, self._mixed)
        states, width = self._rows.shape
        place, reward, terminated, has_next = self._table.index_select(0, index).unbind(-1)
        terminated, has_next = terminated.bool(), has_next.bool()
        # Every two rows of the file that follow each other, without a copy: they overlap.
        pairs = self._rows.as_strided((states - 1, 2 * width), (width, 1))
        o, a = self._obs_dim, width - self._obs_dim
        found = pairs.index_select(0, place)
        obs, action, next_obs, next_action = torch.split(found, [o, a, o, a], -1)
        if self._hides_next:
            next_action = torch.where(has_next[:, None], next_action, 0.0)
        return TransitionBatch(
            observation=obs,
            action=action,
            reward=reward.contiguous().view(torch.float32),
            next_observation=next_obs,
            terminated=terminated,
            from_model=torch.zeros_like(terminated),
            next_action=next_action,
            has_next_action=has_next,
        )

    def state_dict(self) -> StateDict:
        """Nothing: the data never change."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Accepts what `state_dict` gave."""
        if state:
            raise ValueError(f"a stored source has no state, got {sorted(state)}")
