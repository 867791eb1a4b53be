"""Fits a reward ensemble to preferences: Bradley-Terry on sums over segments, members side by side.

Source: Christiano et al. 2017 (arXiv:1706.03741), section 2.2.

Departures: members stop by the pairs that their own resampling left out, not by a share that is kept for
that: the pairs that are held out judge a model that they did not shape.
"""

from typing import Annotated, Final, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.preferences import bradley_terry_loss
from mbrl.preferences.ensemble_fit import (
    EnsembleConfig,
    EnsembleFit,
    RewardFitState,
    left_out_means,
    resample,
)
from mbrl.preferences.reward_model import RewardEnsemble
from mbrl.preferences.segments import SegmentPairs

LEAST_PAIRS: Final = 4
"""Answered pairs that a fit needs: some to learn from, some to judge by."""

_WATCHED: Final = 512
"""Most pairs behind a look at the pairs that members left out."""

_CHUNK_PAIRS: Final = 64


class RewardConfig(EnsembleConfig):
    """How a reward model is fitted to preferences.

    Attributes:
        lapse: probability that an annotator answers at random; 0.1 in the paper, 0 where answers are clean.
    """

    lapse: Annotated[float, Field(ge=0, lt=1)] = 0.0


class RewardFit(EnsembleFit):
    """The fit to answered pairs.

    Args:
        pairs: that were answered, those that are held out included.
        config: of the fit.
        space: sizes and bounds of the log.
        normaliser: of its observations.
        rng: streams of the fit.

    Raises:
        DataError: there are too few pairs.
    """

    def __init__(
        self,
        pairs: SegmentPairs,
        config: RewardConfig,
        space: SpaceSpec,
        normaliser: Normaliser,
        rng: RngStreams,
    ) -> None:
        if len(pairs) < LEAST_PAIRS:
            raise DataError(
                f"{len(pairs)} pairs were answered, and a fit needs {LEAST_PAIRS} at least",
                remedy="Label more pairs: mbrl label LOG.",
            )
        super().__init__(config, space, normaliser, rng)
        self.config = config
        train, holdout = split_pairs(pairs, config.holdout, rng.at("holdout"))
        self.train, self.holdout = pairs.take(train), pairs.take(holdout)
        self._draws, self._left_out = resample(len(self.train), config.members, rng.at("bootstrap"))

    def losses(self, model: RewardEnsemble, generator: torch.Generator) -> Float[Tensor, "e"]:
        """Bradley-Terry's on pairs of each member's resample."""
        members, size = self.config.members, self.config.batch_size
        drawn = torch.randint(len(self.train), (members, size), generator=generator)
        pairs = self._draws.gather(1, drawn)
        batch = self.train.batch(pairs.reshape(-1))
        steps = batch.valid[0].numel() * size
        rewards = model.member_raw(
            batch.observation.reshape(members, steps, -1), batch.action.reshape(members, steps, -1)
        )
        valid = batch.valid.view(members, size, *batch.valid.shape[1:])
        sums: Tensor = (rewards.view(valid.shape) * valid).sum(-1)
        target = batch.target.view(members, size)
        return bradley_terry_loss(sums[..., 0], sums[..., 1], target, lapse=self.config.lapse).mean(1)

    def left_out_losses(self, model: RewardEnsemble) -> Float[Tensor, "e"]:
        """The same on pairs that each member never saw, of the first few hundred."""
        watched = torch.arange(min(len(self.train), _WATCHED))
        sums = segment_sums(model, self.train.take(watched))
        target = self.train.target[watched].expand(len(sums), -1)
        losses = bradley_terry_loss(sums[..., 0], sums[..., 1], target, lapse=self.config.lapse)
        return left_out_means(losses, self._left_out[:, watched])

    def finish(self, state: RewardFitState) -> RewardEnsemble:
        """The model of each member's best look, standardised over the log."""
        model = self.best(state)
        model.standardise(self.train.observation, self.train.action)
        return model


def split_pairs(
    pairs: SegmentPairs, share: float, generator: torch.Generator
) -> tuple[Int[Tensor, "n"], Int[Tensor, "m"]]:
    """Indices to learn from and to judge by; the same two segments, asked twice, stay on one side."""
    keys = _pair_keys(pairs)
    count = int(keys.max()) + 1
    order = torch.randperm(count, generator=generator, device=generator.device)
    held = max(1, round(share * count)) if count > 1 else 0
    is_held = torch.zeros(count, dtype=torch.bool)
    is_held[order[:held]] = True
    return (~is_held[keys]).nonzero()[:, 0], is_held[keys].nonzero()[:, 0]


def _pair_keys(pairs: SegmentPairs) -> Int[Tensor, "n"]:
    """A number for each pair of segments, whichever side they were shown on."""
    sides = torch.stack([pairs.rows[..., 0], pairs.valid.sum(-1)], -1)  # [n, 2, (first row, length)]
    listed = cast("list[list[list[int]]]", sides.tolist())
    ordered = np.array([sorted(pair) for pair in listed], dtype=np.int64).reshape(len(pairs), -1)
    return torch.from_numpy(np.unique(ordered, axis=0, return_inverse=True)[1].reshape(-1))


@torch.no_grad()
def segment_sums(model: RewardEnsemble, pairs: SegmentPairs) -> Float[Tensor, "e n 2"]:
    """Each member's sums of `f_i` over left and right, in the units in which it was fitted."""
    parts: list[Tensor] = []
    for start in range(0, len(pairs), _CHUNK_PAIRS):
        batch = pairs.batch(torch.arange(start, min(start + _CHUNK_PAIRS, len(pairs))))
        parts.append((model.raw(batch.observation, batch.action) * batch.valid).sum(-1))
    return torch.cat(parts, 1)
