"""robomimic's HDF5 files (Mandlekar et al., 2021): one group per demonstration.

`data/demo_<i>/{actions,rewards,dones,obs/<key>,next_obs/<key>}` `[T, ...]`, the attribute `env_args` of
`data` (JSON), and filter keys `mask/<name>` that list demonstrations. Vectors of `obs` are put side by side
in the order of their names (`obs_keys` chooses), as robomimic's low-dimensional observations are; images are
left out by name. `next_obs` gives the observation after the last action; where it is missing, or repeats the
last `obs` (as the library's own D4RL converter writes it), the last step is dropped or its successor is
unknown.

`dones` marks successes, ends of demonstrations, or both, by how the file was made: the option `dones` says
what that of a last step means. All of them are kept as the info `dones`, and filter keys as infos
`mask/<name>`.
"""

import functools
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.core.names import listed, suggest
from mbrl.data.flags import flag_array, read_flags, settle_dones
from mbrl.data.formats.base import FORMATS, SPLIT, ReadOnlyFormat
from mbrl.data.formats.hdf5 import StoredGroup, hdf5_at, open_hdf5, refuse_hdf5
from mbrl.data.formats.metadata import Metadata
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog, absent_rewards

_DEMO: Final = re.compile(r"demo_(\d+)")
_OBS: Final = "obs"
_NEXT: Final = "next_obs"


class RobomimicFormat(ReadOnlyFormat):
    """robomimic HDF5 file: demonstrations with named parts of observations (read only)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts an HDF5 file with `data/demo_<number>`."""
        return refuse_hdf5(path, _refuse)

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads every demonstration, in the order of their numbers."""
        file = hdf5_at(path)
        counts: Counter[str] = Counter()
        with open_hdf5(file) as content:
            data = content.subgroup("data")
            if data is None:
                raise DataError("the group is missing", file=file, field="data", remedy="Check the file.")
            names = sorted(filter(_DEMO.fullmatch, data.names()), key=lambda name: int(name[5:]))
            demos = [_Demo.read(data, name, file, options) for name in names]
            keys = _same_keys(demos, file)
            masks = _read_masks(content, file)
            info = _read_info(data, file, demos[0], keys, options)
        for left_out in sorted({key for demo in demos for key in demo.left_out}):
            counts[f"unsupported column left out: {left_out}"] += 1
        terminated = _terminated(demos, options, file)
        episodes = tuple(
            demo.episode(masks, counts, terminated=ends) for demo, ends in zip(demos, terminated, strict=True)
        )
        return RawLog(file=file, episodes=episodes, info=info, counts=counts)


def _refuse(content: StoredGroup) -> str | None:
    group = content.subgroup("data")
    if group is None or not any(_DEMO.fullmatch(name) for name in group.names()):
        return "no groups named data/demo_<number>"
    return None


class _Demo:
    """One demonstration as it stands.

    Attributes:
        name: of its group.
        parts: vectors of `obs` by key, `[T, d]`.
        successor: the last row of `next_obs`, as `parts`; None where it is not there.
        actions: `[T, ...]`.
        rewards: `[T]`, or None.
        dones: `[T]` flags, or None.
        left_out: keys of `obs` that are no vectors, and what they look like.
    """

    def __init__(self, name: str, parts: dict[str, AnyArray], actions: AnyArray, left_out: set[str]) -> None:
        self.name, self.parts, self.actions, self.left_out = name, parts, actions, left_out
        self.successor: AnyArray | None = None
        self.rewards: AnyArray | None = None
        self.dones: AnyArray | None = None

    @classmethod
    def read(cls, data: StoredGroup, name: str, file: Path, options: LoadOptions) -> "_Demo":
        """Reads the group of a demonstration.

        Raises:
            DataError: there are no actions or no vectors of observations, or sizes disagree.
        """
        group = data.subgroup(name)
        if group is None:
            raise DataError(
                "not a group", file=file, episode=name, remedy="Write one group per demonstration."
            )
        obs = group.subgroup(_OBS)
        if obs is None:
            raise DataError(
                "there is no group obs: the file holds simulator states alone",
                file=file,
                episode=name,
                field=_OBS,
                remedy="Make observations of the states with robomimic's dataset_states_to_obs.py.",
            )
        actions = group.require("actions", episode=name)
        parts, left_out = _read_parts(obs, (file, name), options)
        demo = cls(name, parts, actions, left_out)
        steps = len(actions) if actions.ndim else 0
        demo.rewards, dones = group.optional("rewards"), group.optional("dones")
        report = functools.partial(DataError, file=file, episode=name)
        for key, values in {**parts, "rewards": demo.rewards}.items():
            if values is not None and values.shape[:1] != (steps,):
                raise report(
                    f"shape {values.shape}, where there are {steps} actions",
                    field=key,
                    remedy="Write one row per action.",
                )
        demo.dones = None if dones is None else read_flags(dones, report, field="dones", count=steps)
        demo.successor = _read_successor(group.subgroup(_NEXT), parts)
        return demo

    def episode(
        self, masks: Mapping[str, frozenset[str]], counts: Counter[str], *, terminated: bool
    ) -> RawEpisode:
        """The demonstration as an episode."""
        steps = len(self.actions)
        observations = np.concatenate(list(self.parts.values()), axis=1)
        is_copy = self.successor is not None and bool(np.array_equal(self.successor, observations[-1:]))
        if is_copy:
            counts["last successors that repeat the observation, not believed"] += 1
        infos: dict[str, AnyArray] = {
            f"{SPLIT}{key}": np.full(steps, self.name in members) for key, members in masks.items()
        }
        if self.dones is not None:
            infos["dones"] = self.dones
        is_logged = self.successor is not None and not is_copy
        if self.successor is not None and is_logged:
            observations = np.concatenate([observations, self.successor])
        return RawEpisode(
            name=self.name,
            observations=observations,
            actions=self.actions,
            rewards=absent_rewards(steps) if self.rewards is None else self.rewards,
            terminations=flag_array(steps, last=terminated),
            truncations=flag_array(steps, last=not terminated),
            final_observation="logged" if is_logged else "absent",
            infos=infos,
            has_rewards=self.rewards is not None,
        )


def _read_parts(
    obs: StoredGroup, place: tuple[Path, str], options: LoadOptions
) -> tuple[dict[str, AnyArray], set[str]]:
    """Vectors by key, and what else there is."""
    file, episode = place
    present = obs.names()
    for key in options.obs_keys or ():
        if key not in present:
            raise DataError(
                f"no {key!r} among the observations. {suggest(key, present)}There are {listed(present)}",
                file=file,
                episode=episode,
                field="obs_keys",
                remedy="Name keys of the file.",
            )
    parts: dict[str, AnyArray] = {}
    left_out: set[str] = set()
    for key in options.obs_keys or present:
        values = obs.require(key, episode=episode)
        if values.ndim in {1, 2} and values.dtype.kind in "fiub":
            parts[key] = values.reshape(len(values), -1)
        else:
            kind = "images" if values.ndim >= 3 else f"dtype {values.dtype}"
            left_out.add(f"{_OBS}/{key} ({kind})")
    if not parts:
        raise DataError(
            f"no vectors of numbers among the observations: {', '.join(sorted(left_out))[:300] or 'nothing'}",
            file=file,
            episode=episode,
            field=_OBS,
            remedy="Images are unsupported: make low-dimensional observations with robomimic's "
            "dataset_states_to_obs.py.",
        )
    return parts, left_out


def _read_successor(group: StoredGroup | None, parts: Mapping[str, AnyArray]) -> AnyArray | None:
    """`[1, d]`, the last row of `next_obs`; None where it has not all parts."""
    if group is None:
        return None
    rows: list[AnyArray] = []
    for key, values in parts.items():
        after = group.optional(key)
        if after is None or after.shape[:1] != values.shape[:1] or after.dtype.kind not in "fiub":
            return None
        rows.append(after.reshape(len(after), -1)[-1:])
    if any(row.shape[1] != values.shape[1] for row, values in zip(rows, parts.values(), strict=True)):
        return None
    return np.concatenate(rows, axis=1)


def _same_keys(demos: list[_Demo], file: Path) -> tuple[str, ...]:
    keys = tuple(demos[0].parts)
    for demo in demos[1:]:
        if tuple(demo.parts) != keys:
            raise DataError(
                f"its observations are {listed(demo.parts)}, where {demos[0].name} has {listed(keys)}",
                file=file,
                episode=demo.name,
                field=_OBS,
                remedy="Choose what all have with obs_keys.",
            )
    return keys


def _terminated(demos: list[_Demo], options: LoadOptions, file: Path) -> list[bool]:
    """Whether each demonstration terminated: by its last flag, if the options say what that means."""
    marked = [demo.dones is not None and len(demo.dones) > 0 and bool(demo.dones[-1]) for demo in demos]
    lengths = np.array([len(demo.actions) for demo in demos], dtype=np.int64)
    report = functools.partial(DataError, file=file)
    return settle_dones(np.array(marked), lengths, options, report, field="dones").tolist()


def _read_masks(content: StoredGroup, file: Path) -> dict[str, frozenset[str]]:
    """Names of the demonstrations of each filter key."""
    group = content.subgroup("mask")
    masks: dict[str, frozenset[str]] = {}
    if group is None:
        return masks
    for key in group.names():
        values = group.require(key)
        if values.ndim != 1 or values.dtype.kind not in "OSU":
            raise DataError(
                f"shape {values.shape}, dtype {values.dtype}, where names of demonstrations are needed",
                file=file,
                field=f"mask/{key}",
                remedy="Write the names of the demonstrations, or leave the filter key out.",
            )
        masks[key] = frozenset(
            name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
            for name in values.tolist()
        )
    return masks


def _read_info(
    data: StoredGroup, file: Path, first: _Demo, keys: tuple[str, ...], options: LoadOptions
) -> DatasetInfo:
    env = Metadata(data.attribute("env_args"), file).part("env_args")
    names = [
        key if first.parts[key].shape[1] == 1 else f"{key}[{index}]"
        for key in keys
        for index in range(first.parts[key].shape[1])
    ]
    provenance = {"layout": "robomimic"}
    env_name = None if env is None else env.text("env_name")
    if env_name is not None:
        provenance["env_name"] = env_name
    return DatasetInfo(
        name=file.stem,
        max_episode_steps=options.max_episode_steps,
        obs_names=tuple(names),
        provenance=provenance,
    )


FORMATS.register("robomimic")(RobomimicFormat())
