"""Minari's HDF5 layout (Younis et al., 2024).

`<id>/data/metadata.json` describes spaces and origin; `<id>/data/main_data.hdf5` holds one group per episode:
observations `[T + 1, ...]`, actions, rewards, terminations, truncations `[T]` and optionally infos `[T + 1]`.
Our own additions, ignored by the `minari` library: `infos/behaviour_log_prob` (log-density of the logged
action scaled to [-1, 1]; last row padding), `infos/timestamps`, and the metadata keys `task`, `time_step`,
`obs_names`, `act_names`.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS, Format
from mbrl.data.formats.hdf5 import (
    Group,
    attributes,
    create_hdf5,
    is_hdf5,
    load_json,
    names,
    numeric_leaves,
    open_hdf5,
    optional,
    require,
    set_attribute,
    store,
    subgroup,
)
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

MAIN_FILE: Final = "main_data.hdf5"
METADATA_FILE: Final = "metadata.json"
LOG_PROB_KEY: Final = "behaviour_log_prob"
TIME_KEY: Final = "timestamps"
LOG_END_ATTRIBUTE: Final = "is_final_observation_known"
_LAYOUT_VERSION: Final = "0.5.3"
_EPISODE: Final = re.compile(r"episode_(\d+)")
_STRUCTURE_KEYS: Final = frozenset(
    {
        "total_episodes", "total_steps", "data_format", "observation_space", "action_space",
        "dataset_id", "ref_min_score", "ref_max_score", "task", "time_step", "obs_names", "act_names",
        "jpeg_encoding", "dataset_size",
    }
)  # fmt: skip


class MinariFormat(Format):
    """Minari HDF5 dataset: a folder with metadata.json and main_data.hdf5."""

    def sniff(self, path: Path) -> str | None:
        """Accepts the dataset's folder, its `data` folder, or the HDF5 file."""
        file = _main_file(path)
        if file is None:
            return f"no {MAIN_FILE} in it" if path.is_dir() else "not a folder, nor an HDF5 file"
        if not is_hdf5(file):
            return f"{file.name} does not start as HDF5 files do"
        if file.name == MAIN_FILE or _has_episodes(file):
            return None
        return "no groups named episode_<number>"

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads every episode; the last info row beyond T steps is padding for the log-probability."""
        file = _main_file(path)
        if file is None:
            raise DataError(f"no {MAIN_FILE} found", file=path, remedy="Give the folder of a Minari dataset.")
        with open_hdf5(file) as content:
            metadata_file = file.with_name(METADATA_FILE)
            metadata = load_json(metadata_file) if metadata_file.is_file() else attributes(content)
            found = sorted((key for key in names(content) if _EPISODE.fullmatch(key)), key=_episode_number)
            episodes = tuple(_parse_episode(content, name, file, options) for name in found)
        _refuse_missing_episodes(metadata, len(episodes), file)
        low, high = _action_bounds(metadata, file)
        return RawLog(
            file=file, episodes=episodes, info=_parse_info(metadata, file), act_low=low, act_high=high
        )

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes the folder `path/data`; readable by the `minari` library."""
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        folder = partial / "data"
        folder.mkdir(parents=True)
        with create_hdf5(folder / MAIN_FILE) as file:
            for index, episode in enumerate(dataset.episodes):
                _write_episode(file.create_group(f"episode_{index}"), index, episode)
        size = (folder / MAIN_FILE).stat().st_size / 1e6
        metadata = {**_metadata(dataset), "dataset_size": round(size, 1)}
        (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=1), encoding="utf-8")
        os.replace(partial, path)
        return path


def _has_episodes(file: Path) -> bool:
    with open_hdf5(file) as content:
        return any(_EPISODE.fullmatch(key) for key in names(content))


def _main_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((file for file in (path / MAIN_FILE, path / "data" / MAIN_FILE) if file.is_file()), None)


def _episode_number(name: str) -> int:
    return int(name.removeprefix("episode_"))


def _parse_episode(content: Group, name: str, file: Path, options: LoadOptions) -> RawEpisode:
    group = subgroup(content, name)
    if group is None:
        raise DataError("not a group", file=file, episode=name, remedy="Write one group per episode.")
    infos_group = subgroup(group, "infos")
    infos = _parse_infos(infos_group, options)
    log_prob = infos.pop(LOG_PROB_KEY, None)
    final_known = bool(attributes(group).get(LOG_END_ATTRIBUTE, True))
    return RawEpisode(
        name=name,
        observations=_stacked(group, "observations", file, name),
        actions=_stacked(group, "actions", file, name),
        rewards=require(group, "rewards", file=file, episode=name),
        terminations=require(group, "terminations", file=file, episode=name),
        truncations=require(group, "truncations", file=file, episode=name),
        final_observation="logged" if final_known else "unknown",
        behaviour_log_prob=log_prob,
        timestamps=infos.pop(TIME_KEY, None),
        infos=infos,
    )


def _parse_infos(group: Group | None, options: LoadOptions) -> dict[str, AnyArray]:
    if group is None:
        return {}
    if options.infos == "all":
        return numeric_leaves(group)
    wanted = ((key, optional(group, key)) for key in (LOG_PROB_KEY, TIME_KEY))
    return {key: values for key, values in wanted if values is not None}


def _stacked(group: Group, key: str, file: Path, episode: str) -> AnyArray:
    """An array, or the arrays of a dictionary space side by side in the order of their names."""
    parts = subgroup(group, key)
    if parts is None:
        return require(group, key, file=file, episode=episode)
    leaves = numeric_leaves(parts)
    columns = [leaf.reshape(leaf.shape[0], -1) for _, leaf in sorted(leaves.items())]
    if not columns or len({column.shape[0] for column in columns}) > 1:
        shapes = {name: leaf.shape for name, leaf in leaves.items()}
        raise DataError(
            f"the parts of the dictionary do not line up: {shapes}",
            file=file,
            episode=episode,
            field=key,
            remedy="Store equally long numeric arrays, or flatten the dictionary to one vector.",
        )
    return np.concatenate(columns, axis=1)


def _refuse_missing_episodes(metadata: Mapping[str, Any], found: int, file: Path) -> None:
    expected = metadata.get("total_episodes")
    if expected is not None and int(expected) != found:
        raise DataError(
            f"{found} episodes, but the metadata counts {expected}",
            file=file,
            remedy="The file is incomplete, or the metadata belong to another one: fetch both again.",
        )


def _space(metadata: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    text = metadata.get(key)
    space: Any = json.loads(text) if isinstance(text, str) else text
    return cast("dict[str, Any]", space) if isinstance(space, dict) else None


def _leaf_spaces(space: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Boxes of a space in the order in which `_stacked` joins them."""
    if space.get("type") == "Dict":
        for name in sorted(space["subspaces"]):
            yield from _leaf_spaces(space["subspaces"][name], f"{prefix}{name}/")
    else:
        yield prefix.rstrip("/"), space


def _action_bounds(
    metadata: Mapping[str, Any], file: Path
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    space = _space(metadata, "action_space")
    if space is None:
        return None, None
    low: list[float] = []
    high: list[float] = []
    for _, leaf in _leaf_spaces(space):
        if leaf.get("type") != "Box":
            raise DataError(
                f"the action space is {leaf.get('type')}; only continuous (Box) actions are supported yet",
                file=file,
                field="actions",
                remedy="Use a dataset with continuous actions.",
            )
        size = math.prod(leaf["shape"])
        low.extend(_bound_values(leaf["low"], size))
        high.extend(_bound_values(leaf["high"], size))
    return tuple(low), tuple(high)


def _bound_values(bound: Any, size: int) -> list[float]:
    values = np.asarray(bound, dtype=np.float64).ravel()
    return [float(value) for value in np.broadcast_to(values, (size,))]


def _parse_info(metadata: Mapping[str, Any], file: Path) -> DatasetInfo:
    env_spec = _space(metadata, "env_spec") or {}
    obs_names = _names(metadata.get("obs_names")) or _dict_names(_space(metadata, "observation_space"))
    folder = file.parent.parent if file.parent.name == "data" else file.parent
    return DatasetInfo(
        name=str(metadata.get("dataset_id", folder.name)),
        task=metadata.get("task"),
        env_id=env_spec.get("id"),
        max_episode_steps=env_spec.get("max_episode_steps"),
        ref_min_score=_number(metadata.get("ref_min_score")),
        ref_max_score=_number(metadata.get("ref_max_score")),
        time_step=_number(metadata.get("time_step")),
        obs_names=obs_names,
        act_names=_names(metadata.get("act_names")),
        provenance={
            key: value if isinstance(value, str) else json.dumps(value, default=str)
            for key, value in metadata.items()
            if key not in _STRUCTURE_KEYS
        },
    )


def _dict_names(space: dict[str, Any] | None) -> tuple[str, ...] | None:
    if space is None or space.get("type") != "Dict":
        return None
    leaves = _leaf_spaces(space)
    return tuple(f"{name}[{i}]" for name, leaf in leaves for i in range(math.prod(leaf.get("shape", [1]))))


def _names(value: Any) -> tuple[str, ...] | None:
    return tuple(str(name) for name in cast("list[object]", value)) if isinstance(value, list) else None


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _write_episode(group: Group, index: int, episode: Episode) -> None:
    steps = len(episode)
    set_attribute(group, "id", index)
    set_attribute(group, "total_steps", steps)
    if not episode.is_final_observation_known:
        set_attribute(group, LOG_END_ATTRIBUTE, value=False)
    ends = np.arange(steps) == steps - 1
    store(group, "observations", episode.observations)
    store(group, "actions", episode.actions)
    store(group, "rewards", episode.rewards.astype(np.float64))
    store(group, "terminations", ends & episode.terminated)
    store(group, "truncations", ends & episode.truncated)
    infos = dict(episode.infos)
    if episode.behaviour_log_prob is not None:
        infos[LOG_PROB_KEY] = np.append(episode.behaviour_log_prob, np.float32(0.0))
    if episode.timestamps is not None:
        infos[TIME_KEY] = episode.timestamps
    if infos:
        target = group.create_group("infos")
        for key, values in infos.items():
            store(target, key, values)


def _box(low: list[float], high: list[float]) -> str:
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [len(low)], "low": low, "high": high})


def _env_spec(env_id: str, max_episode_steps: int | None) -> str:
    """Gymnasium's `EnvSpec` as JSON, as far as a log knows it: no entry point."""
    spec = {"id": env_id, "entry_point": None, "reward_threshold": None, "nondeterministic": False}
    spec |= {"max_episode_steps": max_episode_steps, "order_enforce": True, "disable_env_checker": False}
    return json.dumps(spec | {"kwargs": {}, "additional_wrappers": [], "vector_entry_point": None})


def _metadata(dataset: Dataset) -> dict[str, Any]:
    spec, info = dataset.spec, dataset.info
    infinite = [math.inf] * spec.obs_dim
    metadata: dict[str, Any] = {
        **info.provenance,
        "total_episodes": len(dataset),
        "total_steps": dataset.num_transitions,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": _box([-v for v in infinite], infinite),
        "action_space": _box(list(spec.act_low), list(spec.act_high)),
        "dataset_id": info.name,
        "minari_version": info.provenance.get("minari_version", _LAYOUT_VERSION),
    }
    if info.env_id is not None and "env_spec" not in info.provenance:
        metadata["env_spec"] = _env_spec(info.env_id, info.max_episode_steps)
    optional = {
        "ref_min_score": info.ref_min_score,
        "ref_max_score": info.ref_max_score,
        "task": info.task,
        "time_step": info.time_step,
        "obs_names": info.obs_names,
        "act_names": info.act_names,
    }
    return metadata | {key: value for key, value in optional.items() if value is not None}


FORMATS.register("minari")(MinariFormat())
