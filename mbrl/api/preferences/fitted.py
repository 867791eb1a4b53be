"""What all fitted reward models offer."""

from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel

from mbrl.api.result import Result, jsonable
from mbrl.core.errors import ConfigError
from mbrl.run.preferences.reward import open_reward
from mbrl.run.store import RunFolder, find_run

ReportT = TypeVar("ReportT", bound=BaseModel)
ModelT = TypeVar("ModelT", bound="FittedReward[Any]")


class FittedReward(Result, Generic[ReportT]):
    """An ensemble of a finished fit.

    Attributes:
        path: folder of the fit.
        stored: the ensemble and its identity.
        report: what the fit found.
    """

    report: ReportT

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path
        self.stored = open_reward(folder.path)

    @classmethod
    def load(cls: type[ModelT], path: str | Path) -> ModelT:
        """The finished fit in a folder.

        Raises:
            ConfigError: there is none.
        """
        return cls(find_run(Path(path), stage="fit_reward"))

    def to_dict(self) -> dict[str, Any]:
        """The report, and the path."""
        return jsonable({**self.report.model_dump(mode="json"), "path": str(self.path)})

    def reward(
        self, observation: ArrayLike, action: ArrayLike, *, pessimism: float = 0.0
    ) -> NDArray[np.float32]:
        """`mean_i r_i - pessimism std_i r_i`, in the unit of the model.

        Args:
            observation: `[n, obs_dim]`, raw units.
            action: `[n, act_dim]`, environment units.
            pessimism: deviations over members that are taken off.

        Returns:
            `[n]`.

        Raises:
            ConfigError: the arrays are of other sizes.
        """
        obs, act = (np.asarray(values, dtype=np.float32) for values in (observation, action))
        space = self.stored.model.spec.space
        if obs.ndim != 2 or obs.shape[1] != space.obs_dim or act.shape != (len(obs), space.act_dim):
            raise ConfigError(
                f"observation and action have the shapes {list(obs.shape)} and {list(act.shape)}; expected "
                f"[n, {space.obs_dim}] and [n, {space.act_dim}]."
            )
        found = self.stored.model.reward(torch.tensor(obs), torch.tensor(act), pessimism=pessimism)
        return np.asarray(found.numpy())


def with_interval(value: float | None, low: float | None, high: float | None) -> str | None:
    """A number and its interval, as tables show them; None where there is none."""
    if value is None or low is None or high is None:
        return None
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
