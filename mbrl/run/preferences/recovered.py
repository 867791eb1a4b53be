"""The reward that a training has recovered from an expert: kept with the run, and held against the log's."""

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.nets.discriminator import Discriminator
from mbrl.preferences.calibration import correlation
from mbrl.preferences.reward_model import RewardEnsemble, RewardSpec
from mbrl.preferences.segments import log_steps
from mbrl.run.preferences.reward import REWARD_FILE, save_reward

_Correlation = Annotated[float, Field(ge=-1.001, le=1.001)] | None


class RecoveredReward(BaseModel):
    """How a recovered reward orders the steps of a log.

    Attributes:
        steps: of the log.
        pearson: correlation with the logged rewards; None where the log has none, or one of both is constant.
        spearman: that of their ranks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int
    pearson: _Correlation
    spearman: _Correlation


def keep_reward(folder: Path, discriminator: Discriminator, dataset: Dataset) -> RecoveredReward:
    """Writes g of a discriminator as a reward model of one member, mean 0 and deviation 1 over the log.

    Args:
        folder: of the training.
        discriminator: as it ended.
        dataset: the log; its rewards are read here for the first time, to be compared with.
    """
    model = as_reward_model(discriminator, dataset.spec)
    obs, action = log_steps(dataset)
    model.standardise(obs, action)
    save_reward(folder / REWARD_FILE, model, dataset)
    if not dataset.has_rewards:
        return RecoveredReward(steps=len(obs), pearson=None, spearman=None)
    found = model.reward(obs, action).double().numpy()
    logged = np.concatenate([episode.rewards for episode in dataset.episodes]).astype(np.float64)
    return RecoveredReward(
        steps=len(obs),
        pearson=_known(correlation(found, logged)),
        spearman=_known(correlation(stats.rankdata(found), stats.rankdata(logged))),
    )


def as_reward_model(discriminator: Discriminator, space: SpaceSpec) -> RewardEnsemble:
    """The discriminator's g with weights of its own; a reward of states reads actions with weight 0."""
    g = discriminator.g
    spec = RewardSpec(space, members=1, hidden=g.net.hidden)
    model = RewardEnsemble(spec, g.normaliser, torch.Generator().manual_seed(0))
    model.body.load_state_dict(g.state_dict())
    return model.requires_grad_(requires_grad=False)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
