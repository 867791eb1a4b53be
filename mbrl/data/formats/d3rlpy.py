"""d3rlpy's HDF5 files (Seno and Imai, 2022): `ReplayBuffer.dump` (2), `MDPDataset.dump` (1).

Version 2: `observations_<i>`, `actions_<i>`, `rewards_<i>` `[T, ...]` and `terminated_<i>` for each episode
i, `columns`, `num_episodes`, `version`. Version 1: flat `observations`, `actions`, `rewards`, `terminals` and
`episode_terminals` (ends of either kind), `discrete_action`. Neither holds the observation after the last
action: of an episode that was cut the last row is dropped, which d3rlpy does too.
Integer actions are choices; neither version says how many there are, so the ones taken are the ones there are
unless `choices` states others.
"""

import dataclasses
import functools
import re
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.flags import flag_array, read_flags
from mbrl.data.flat import cut_flat, read_flat
from mbrl.data.formats.base import FORMATS, ReadOnlyFormat
from mbrl.data.formats.hdf5 import StoredGroup, hdf5_at, open_hdf5, refuse_hdf5
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

_ACTIONS: Final = re.compile(r"actions_(\d+)")
_VERSION_1: Final = ("observations", "actions", "rewards", "terminals", "episode_terminals")


class D3rlpyFormat(ReadOnlyFormat):
    """d3rlpy HDF5 file: ReplayBuffer.dump (version 2) or MDPDataset.dump (version 1) (read only)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts an HDF5 file with arrays for each episode, or with version 1's flags."""
        return refuse_hdf5(path, _refuse)

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads either version."""
        file = hdf5_at(path)
        counts: Counter[str] = Counter()
        with open_hdf5(file) as content:
            if "actions_0" in content.names():
                version, episodes = "2", _parse_episodes(content, file)
            else:
                version, episodes = "1", _parse_flat(content, file, counts)
        return RawLog(
            file=file,
            episodes=episodes,
            info=DatasetInfo(
                name=file.stem,
                max_episode_steps=options.max_episode_steps,
                provenance={"layout": f"d3rlpy, version {version}"},
            ),
            counts=counts,
        )


def _refuse(content: StoredGroup) -> str | None:
    names = set(content.names())
    if "actions_0" in names or {"episode_terminals", "discrete_action"} <= names:
        return None
    return "no actions_0, nor episode_terminals with discrete_action"


def _parse_episodes(content: StoredGroup, file: Path) -> tuple[RawEpisode, ...]:
    numbers = sorted(int(match[1]) for name in content.names() if (match := _ACTIONS.fullmatch(name)))
    expected = content.optional("num_episodes")
    if expected is not None and (
        expected.ndim or expected.dtype.kind not in "iu" or expected != len(numbers)
    ):
        raise DataError(
            f"{len(numbers)} episodes, but the file counts {str(expected)[:40]}",
            file=file,
            field="num_episodes",
            remedy="The file is not whole: dump it again.",
        )
    return tuple(_parse_episode(content, number, file) for number in numbers)


def _parse_episode(content: StoredGroup, number: int, file: Path) -> RawEpisode:
    name = str(number)
    actions = content.require(f"actions_{name}", episode=name)
    rewards = content.require(f"rewards_{name}", episode=name)
    steps = len(rewards) if rewards.ndim else 0
    stored = content.require(f"terminated_{name}", episode=name)
    report = functools.partial(DataError, file=file, episode=name)
    ends = bool(read_flags(stored.reshape(-1)[:1], report, field=f"terminated_{name}", count=1)[0])
    return RawEpisode(
        name=name,
        observations=_observations(content, name),
        actions=actions,
        rewards=rewards,
        terminations=flag_array(steps, last=ends),
        truncations=flag_array(steps, last=not ends),
        final_observation="absent",
    )


def _observations(content: StoredGroup, name: str) -> AnyArray:
    """The array of an episode, or the arrays of a tuple of observations side by side."""
    parts: list[AnyArray] = []
    while (part := content.optional(f"observations_{name}_{len(parts)}")) is not None:
        parts.append(part)
    rows = {part.shape[:1] for part in parts}
    if not parts or len(rows) > 1 or any(part.ndim != 2 for part in parts):
        return content.require(f"observations_{name}", episode=name)
    return np.concatenate(parts, axis=1)


def _parse_flat(content: StoredGroup, file: Path, counts: Counter[str]) -> tuple[RawEpisode, ...]:
    arrays = {key: content.require(key) for key in _VERSION_1}
    discrete = content.optional("discrete_action")
    if discrete is not None and discrete.size == 1 and bool(discrete.reshape(-1)[0]):
        arrays["actions"] = _ids(arrays["actions"], file)
    arrays["timeouts"] = arrays.pop("episode_terminals")
    flat = read_flat(arrays, {}, counts, file=file, names={"timeouts": "episode_terminals"})
    ends = np.zeros_like(flat.terminals) if flat.timeouts is None else flat.timeouts
    cuts = ends & ~flat.terminals  # the flag marks ends of either kind
    return cut_flat(dataclasses.replace(flat, timeouts=cuts), counts, max_episode_steps=None)


def _ids(actions: AnyArray, file: Path) -> AnyArray:
    """Choices as integers, where a file of discrete actions holds them as floats."""
    if actions.dtype.kind in "iu":
        return actions
    if actions.dtype.kind != "f" or not bool((actions == np.floor(actions)).all()):
        raise DataError(
            f"discrete actions of dtype {actions.dtype} that are no integers",
            file=file,
            field="actions",
            remedy="Set discrete_action to 0 if they are a continuous command.",
        )
    return actions.astype(np.int64)


FORMATS.register("d3rlpy")(D3rlpyFormat())
