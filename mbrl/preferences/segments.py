"""Pairs of segments as tensors: rows of the log by index, padded to the longest segment."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.data.choices.masks import episode_mask
from mbrl.data.dataset import Dataset
from mbrl.preferences.pairs import Preference, PreferenceSet, Segment


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PairBatch:
    """Some pairs, left at index 0 of the second axis.

    Attributes:
        observation: `[n, 2, length, obs_dim]`, raw units; zeros behind the end of a segment.
        action: `[n, 2, length, act_dim]`, environment units.
        valid: `[n, 2, length]`, False behind the end of a segment.
        target: `[n]`, probability that left is preferred.
        mask: `[n, 2, length, act_dim]`, True for the choices that were allowed; None where all are, and for
            continuous actions.
    """

    observation: Float[Tensor, "n 2 length obs_dim"]
    action: Float[Tensor, "n 2 length act_dim"]
    valid: Bool[Tensor, "n 2 length"]
    target: Float[Tensor, "n"]
    mask: Bool[Tensor, "n 2 length act_dim"] | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SegmentPairs:
    """Answered pairs of a log; steps are shared, a pair is the numbers of its steps.

    Attributes:
        observation: `[steps, obs_dim]`, of all episodes one after the other, raw units.
        action: `[steps, act_dim]`, environment units.
        rows: `[n, 2, length]`, steps of left and right; 0 behind the end of a segment.
        valid: `[n, 2, length]`, False there.
        target: `[n]`, probability that left is preferred.
        mask: `[steps, act_dim]`, True for the choices that were allowed; None as in `PairBatch`.
    """

    observation: Float[Tensor, "steps obs_dim"]
    action: Float[Tensor, "steps act_dim"]
    rows: Int[Tensor, "n 2 length"]
    valid: Bool[Tensor, "n 2 length"]
    target: Float[Tensor, "n"]
    mask: Bool[Tensor, "steps act_dim"] | None = None

    def __len__(self) -> int:
        return self.target.shape[0]

    @classmethod
    def of(cls, dataset: Dataset, preferences: PreferenceSet) -> "SegmentPairs":
        """The pairs that were answered; skipped ones are left out.

        Raises:
            DataError: the answers are about another log, or nothing but skips.
        """
        preferences.require_log(dataset)
        answered = [answer for answer in preferences.answers if answer.target is not None]
        if not answered:
            raise DataError(
                f"none of {len(preferences)} pairs was answered", remedy="Label pairs: mbrl label LOG."
            )
        return cls.of_answers(dataset, answered)

    @classmethod
    def of_answers(cls, dataset: Dataset, answers: list[Preference]) -> "SegmentPairs":
        """The same of answers that have a target and fit the log."""
        starts = np.concatenate([[0], np.cumsum(dataset.episode_lengths)[:-1]])
        longest = max(max(answer.left.length, answer.right.length) for answer in answers)
        steps = np.arange(longest)

        def place(segment: Segment) -> tuple[np.ndarray, np.ndarray]:
            valid = steps < segment.length
            return np.where(valid, starts[segment.episode] + segment.start + steps, 0), valid

        placed = [[place(answer.left), place(answer.right)] for answer in answers]
        rows = np.array([[side[0] for side in pair] for pair in placed], dtype=np.int64)
        valid = np.array([[side[1] for side in pair] for pair in placed], dtype=np.bool_)
        observations, actions = log_steps(dataset)
        target = torch.tensor([answer.target for answer in answers], dtype=torch.float32)
        return cls(
            observations, actions, torch.from_numpy(rows), torch.from_numpy(valid), target, _masks(dataset)
        )

    def take(self, index: Int[Tensor, "k"]) -> "SegmentPairs":
        """Some of the pairs."""
        return dataclasses.replace(
            self, rows=self.rows[index], valid=self.valid[index], target=self.target[index]
        )

    def batch(self, index: Int[Tensor, "n"]) -> PairBatch:
        """States and actions of some of the pairs."""
        rows, valid = self.rows[index], self.valid[index]
        flat = rows.reshape(-1)
        observation = self.observation.index_select(0, flat).view(*rows.shape, -1)
        action = self.action.index_select(0, flat).view(*rows.shape, -1)
        mask = None if self.mask is None else self.mask.index_select(0, flat).view(*rows.shape, -1)
        return PairBatch(observation, action, valid, self.target[index], mask)


def log_steps(
    dataset: Dataset,
) -> tuple[Float[Tensor, "steps obs_dim"], Float[Tensor, "steps act_dim"]]:
    """State and action of every step, episodes one after the other; a copy."""
    observations = np.concatenate([episode.observations[:-1] for episode in dataset.episodes])
    actions = np.concatenate([episode.actions for episode in dataset.episodes])
    return torch.from_numpy(observations), torch.from_numpy(actions)


def _masks(dataset: Dataset) -> Bool[Tensor, "steps act_dim"] | None:
    """What was allowed in every step; an episode without masks allows all. None where none has any."""
    found = [episode_mask(episode) for episode in dataset.episodes]
    if all(mask is None for mask in found):
        return None
    pairs = zip(dataset.episodes, found, strict=True)
    parts = [np.ones_like(e.actions, dtype=np.bool_) if m is None else m[:-1] for e, m in pairs]
    return torch.from_numpy(np.concatenate(parts))
