"""Rewards of a model in the place of a log's own, and in imagination."""

import re
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.relabel import relabel_dataset
from mbrl.preferences.reward_model import ModelReward
from mbrl.run.preferences.reward import StoredReward, open_reward

_NUMBER: Final = r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)"
_TEXT: Final = re.compile(rf"reward model ([0-9a-f]{{32}}), mean - {_NUMBER} std \+ {_NUMBER}")


def describe(reward: StoredReward, *, pessimism: float, offset: float) -> str:
    """What a relabelled log says of its rewards; `model_of` reads it back."""
    return f"reward model {reward.content}, mean - {float(pessimism)!r} std + {float(offset)!r}"


def relabel_by_model(
    dataset: Dataset,
    reward: StoredReward,
    *,
    pessimism: float = 0.0,
    offset: float = 0.0,
    termination: str | None = None,
) -> Dataset:
    """The same log with the rewards of a model: `mean_i r_i - pessimism std_i r_i + offset`.

    The new log names the old one's hash, the model's, and how its members were joined.

    Args:
        dataset: the log.
        reward: the model.
        pessimism: deviations over members that are taken off.
        offset: that every step earns besides, in deviations of the model's rewards over its log.
        termination: condition that ends episodes; see `relabel_dataset`.

    Raises:
        ConfigError: the model is of a log of other sizes, or a number is out of range.
    """
    check_sizes(dataset, reward)
    if not (0 <= pessimism <= 1000 and abs(offset) <= 1e6):
        raise ConfigError(f"pessimism={pessimism} and offset={offset}: 0 to 1000 and -1e6 to 1e6 are legal.")

    def function(
        obs: NDArray[np.float32], action: NDArray[np.float32], _: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        found = reward.model.reward(torch.tensor(obs), torch.tensor(action), pessimism=pessimism)
        return found.numpy() + np.float32(offset)

    name = describe(reward, pessimism=pessimism, offset=offset)
    return relabel_dataset(
        dataset, termination=termination, function=function, function_name=name, reads_next=False
    )


def check_sizes(dataset: Dataset, reward: StoredReward) -> None:
    """Refuses a model of a log of other sizes.

    Raises:
        ConfigError: it is.
    """
    space, found = reward.model.spec.space, dataset.spec
    if (space.obs_dim, space.act_dim) != (found.obs_dim, found.act_dim):
        raise ConfigError(
            f"The reward model {reward.path} reads {space.obs_dim} observations and {space.act_dim} actions, "
            f"the log {dataset.info.name!r} has {found.obs_dim} and {found.act_dim}. Remedy: name the model "
            "that was fitted to this log."
        )


def reward_of_log(path: Path, dataset: Dataset) -> ModelReward:
    """The reward of imagined steps on a log that was relabelled by the same model: pessimism goes along.

    Args:
        path: of the model's file or fit.
        dataset: the relabelled log.

    Raises:
        ConfigError: the log's rewards are not those of this model.
    """
    reward = open_reward(path)
    check_sizes(dataset, reward)
    told = _TEXT.fullmatch(str(dataset.info.provenance.get("reward", "")))
    if told is None or told[1] != reward.content:
        raise ConfigError(
            f"reward={path}: the rewards of the log {dataset.info.name!r} are not those of this model, and "
            "logged and imagined steps must earn alike. Remedy: mbrl relabel LOG --reward-model "
            f"{path} --out NEW, and train on NEW."
        )
    return ModelReward(reward.model, float(told[2]), float(told[3]))
