"""What a file holds, before any check: arrays as they were found."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mbrl.data.info import DatasetInfo

AnyArray: TypeAlias = NDArray[Any]


def absent_rewards(steps: int) -> NDArray[np.float32]:
    """`[steps]` NaN: what stands in the place of rewards that nobody logged or defined."""
    return np.full(steps, np.nan, dtype=np.float32)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RawEpisode:
    """One episode as found in a file; nothing about it may be taken for granted.

    Attributes:
        name: the episode's name or index in the file.
        observations: meant to have T + 1 rows; T rows where `final_observation` is `absent`.
        actions: meant to have T rows.
        rewards: meant to be `[T]`; `absent_rewards(T)` where there are none.
        terminations: meant to be `[T]` flags.
        truncations: meant to be `[T]` flags.
        final_observation: `absent` if the format never logs the successor of the last step, `unknown` if the
            last row of `observations` is a copy of the row before.
        behaviour_log_prob: `[T]` or `[T + 1]` (last row padding), or None.
        timestamps: `[T + 1]` seconds, or None.
        infos: further arrays by name.
        has_rewards: False where the log has no rewards.
    """

    name: str
    observations: AnyArray
    actions: AnyArray
    rewards: AnyArray
    terminations: AnyArray
    truncations: AnyArray
    final_observation: Literal["logged", "absent", "unknown"] = "logged"
    behaviour_log_prob: AnyArray | None = None
    timestamps: AnyArray | None = None
    infos: Mapping[str, AnyArray] = dataclasses.field(default_factory=dict[str, AnyArray])
    has_rewards: bool = True

    def __repr__(self) -> str:
        shapes = {"observations": self.observations, "actions": self.actions, "rewards": self.rewards}
        listed = ", ".join(f"{name} {list(values.shape)}" for name, values in shapes.items())
        return f"RawEpisode({self.name!r}, {listed})"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RawLog:
    """A file's episodes and what it says of itself.

    Attributes:
        file: where it was read; None where it was given as arrays.
        episodes: in the order of the file.
        info: the file's own description.
        act_low: lower action bounds, None or infinite where the file does not say.
        act_high: upper action bounds.
        choices: names of the choices, for a file that says that its actions are choices.
        counts: what the format had to drop or repair while reading.
    """

    file: Path | None
    episodes: tuple[RawEpisode, ...]
    info: DatasetInfo
    act_low: tuple[float, ...] | None = None
    act_high: tuple[float, ...] | None = None
    choices: tuple[str, ...] | None = None
    counts: Counter[str] = dataclasses.field(default_factory=Counter[str])

    def __repr__(self) -> str:
        place = "arrays" if self.file is None else str(self.file)
        return f"RawLog({self.info.name!r}, {len(self.episodes)} episodes, from {place})"
