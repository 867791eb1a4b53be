"""Minari's HDF5 layout (Younis et al., 2024).

`<id>/data/metadata.json` describes spaces and origin; `<id>/data/main_data.hdf5` holds one group per episode:
observations `[T + 1, ...]`, actions, rewards, terminations, truncations `[T]` and optionally infos `[T + 1]`.
Our own additions, ignored by the `minari` library: `has_rewards` in an episode's attributes, False where all
its rewards are NaN because there are none; `infos/behaviour_log_prob` (log-density of the logged
action scaled to [-1, 1]; last row padding), `infos/timestamps`, and the metadata keys `task`, `time_step`,
`obs_names`, `act_names`, `choices` (names that
the space of actions does not tell), `schema`, `reward_rule`, `termination_rule`, `derived_from`, `history`.
"""

import functools
import json
import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.choices import choice_ids
from mbrl.core.errors import DataError
from mbrl.core.history import History
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.checks import image_error, is_image
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS, Format, stored_actions
from mbrl.data.formats.hdf5 import Group, StoredGroup, is_hdf5, make_hdf5, open_hdf5, set_attribute, store
from mbrl.data.formats.metadata import Metadata
from mbrl.data.formats.output import write_folder
from mbrl.data.info import MAKING, DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

MAIN_FILE: Final = "main_data.hdf5"
METADATA_FILE: Final = "metadata.json"
LOG_PROB_KEY: Final = "behaviour_log_prob"
TIME_KEY: Final = "timestamps"
HAS_REWARDS_ATTRIBUTE: Final = "has_rewards"
LOG_END_ATTRIBUTE: Final = "is_final_observation_known"
_LAYOUT_VERSION: Final = "0.5.3"
_EPISODE: Final = re.compile(r"episode_(\d+)")
_STRUCTURE_KEYS: Final = frozenset(
    {
        "total_episodes", "total_steps", "data_format", "observation_space", "action_space",
        "dataset_id", "ref_min_score", "ref_max_score", "task", "time_step", "obs_names", "act_names",
        "choices", "jpeg_encoding", "dataset_size", *MAKING,
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
            is_apart = metadata_file.is_file()
            metadata = Metadata.load(metadata_file) if is_apart else Metadata(content.attributes(), file)
            found = sorted((key for key in content.names() if _EPISODE.fullmatch(key)), key=_episode_number)
            episodes = tuple(_parse_episode(content, name, file, options) for name in found)
            refuse_other_sizes(metadata, episodes, metadata_file if is_apart else file)
            low, high = action_bounds(metadata)
            info, choices = parse_info(metadata, file), action_choices(metadata)
        return RawLog(file=file, episodes=episodes, info=info, act_low=low, act_high=high, choices=choices)

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes the folder `path/data`; readable by the `minari` library."""

        def fill(file: Group) -> None:
            for index, episode in enumerate(dataset.episodes):
                _write_episode(file.create_group(f"episode_{index}"), index, episode, dataset.spec)

        content = make_hdf5(fill)
        metadata = {**_metadata(dataset), "dataset_size": round(len(content) / 1e6, 1)}
        text = json.dumps(metadata, indent=1).encode()
        return write_folder(path, {f"data/{MAIN_FILE}": content, f"data/{METADATA_FILE}": text})


def _has_episodes(file: Path) -> bool:
    with open_hdf5(file) as content:
        return any(_EPISODE.fullmatch(key) for key in content.names())


def _main_file(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((file for file in (path / MAIN_FILE, path / "data" / MAIN_FILE) if file.is_file()), None)


def _episode_number(name: str) -> int:
    return int(name.removeprefix("episode_"))


def _parse_episode(content: StoredGroup, name: str, file: Path, options: LoadOptions) -> RawEpisode:
    group = content.subgroup(name)
    if group is None:
        raise DataError("not a group", file=file, episode=name, remedy="Write one group per episode.")
    infos = _parse_infos(group.subgroup("infos"), options)
    log_prob = infos.pop(LOG_PROB_KEY, None)
    final_known, has_rewards = (
        Metadata(group.attribute(name), file).flag(name, default=True)
        for name in (LOG_END_ATTRIBUTE, HAS_REWARDS_ATTRIBUTE)
    )
    return RawEpisode(
        name=name,
        observations=_stacked(group, "observations", file, name),
        actions=_stacked(group, "actions", file, name),
        rewards=group.require("rewards", episode=name),
        terminations=group.require("terminations", episode=name),
        truncations=group.require("truncations", episode=name),
        final_observation="logged" if final_known else "unknown",
        behaviour_log_prob=log_prob,
        timestamps=infos.pop(TIME_KEY, None),
        infos=infos,
        has_rewards=has_rewards,
    )


def _parse_infos(group: StoredGroup | None, options: LoadOptions) -> dict[str, AnyArray]:
    if group is None:
        return {}
    if options.infos == "all":
        return group.numeric_leaves()
    wanted = ((key, group.optional(key)) for key in (LOG_PROB_KEY, TIME_KEY))
    return {key: values for key, values in wanted if values is not None}


def _stacked(group: StoredGroup, key: str, file: Path, episode: str) -> AnyArray:
    """An array, or the arrays of a dictionary space side by side in the order of their names."""
    values = group.optional(key)
    parts = group.subgroup(key) if values is None else None
    if parts is None:
        return group.require(key, episode=episode) if values is None else values
    leaves = parts.numeric_leaves()
    report = functools.partial(DataError, file=file, episode=episode)
    for name, leaf in leaves.items():
        if is_image(leaf):
            raise image_error(leaf, report, field=f"{key}/{name}")
    columns = [leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:])) for _, leaf in sorted(leaves.items())]
    if not columns or len({column.shape[0] for column in columns}) > 1:
        shapes = {name: leaf.shape for name, leaf in leaves.items()}
        raise report(
            f"the parts of the dictionary do not line up: {str(shapes)[:200]}",
            field=key,
            remedy="Store equally long numeric arrays, or flatten the dictionary to one vector.",
        )
    return np.concatenate(columns, axis=1)


def refuse_other_sizes(metadata: Metadata, episodes: tuple[RawEpisode, ...], file: Path) -> None:
    """Refuses a dataset that holds another number of episodes or steps than it says.

    Raises:
        DataError: it does.
    """
    steps = sum(raw.rewards.shape[0] for raw in episodes if raw.rewards.ndim)
    for key, found in (("total_episodes", len(episodes)), ("total_steps", steps)):
        expected = metadata.count(key)
        if expected is not None and expected != found:
            raise DataError(
                f"{found} {key.removeprefix('total_')}, but the metadata counts {expected}",
                file=file,
                field=key,
                remedy="The data are incomplete, or the metadata belong to other ones: fetch both again.",
            )


def action_choices(metadata: Metadata) -> tuple[str, ...] | None:
    """Names of the choices, our own key `choices` before the values of the space; None for vectors.

    Raises:
        DataError: see `Metadata`.
    """
    return metadata.choice_names("choices") or metadata.choices("action_space")


def action_bounds(metadata: Metadata) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Lower and upper bounds of the space of actions, None where it is not described or one of choices.

    Raises:
        DataError: it is no space of vectors or choices.
    """
    boxes = None if metadata.choices("action_space") else metadata.boxes("action_space")
    if boxes is None:
        return None, None
    low, high = ([bound for box in boxes for bound in box.bound(end)] for end in ("low", "high"))
    return tuple(low), tuple(high)


def parse_info(metadata: Metadata, file: Path) -> DatasetInfo:
    """What the metadata in the folder of `file` say of a dataset.

    Raises:
        DataError: an entry is of another type.
    """
    env_spec = metadata.part("env_spec")
    folder = file.parent.parent if file.parent.name == "data" else file.parent
    return DatasetInfo(
        name=metadata.text("dataset_id") or folder.name or file.stem,
        task=metadata.text("task"),
        env_id=None if env_spec is None else env_spec.text("id"),
        max_episode_steps=None if env_spec is None else env_spec.count("max_episode_steps"),
        ref_min_score=metadata.number("ref_min_score"),
        ref_max_score=metadata.number("ref_max_score"),
        time_step=metadata.number("time_step"),
        obs_names=metadata.names("obs_names") or _dict_names(metadata),
        act_names=metadata.names("act_names"),
        schema=metadata.text("schema"),
        reward_rule=metadata.text("reward_rule"),
        termination_rule=metadata.text("termination_rule"),
        derived_from=metadata.text("derived_from"),
        history=_history(metadata, file),
        provenance={
            key: value if isinstance(value, str) else json.dumps(value, default=str)
            for key, value in metadata.values.items()
            if key not in _STRUCTURE_KEYS
        },
    )


def _history(metadata: Metadata, file: Path) -> History | None:
    part = metadata.part("history")
    if part is None:
        return None
    try:
        return History(part.count("frames") or 0, part.count("actions") or 0)
    except ValueError as error:
        remedy = "Store the frames and past actions that an observation holds, or leave it out."
        raise DataError(str(error), file=file, field="history", remedy=remedy) from error


def _dict_names(metadata: Metadata) -> tuple[str, ...] | None:
    """`part[index]` for the parts of a dictionary of observations."""
    space = metadata.part("observation_space")
    if space is None or space.values.get("type") != "Dict":
        return None
    boxes = metadata.boxes("observation_space") or []
    return tuple(f"{box.name}[{index}]" for box in boxes for index in range(box.size))


def _write_episode(group: Group, index: int, episode: Episode, spec: SpaceSpec) -> None:
    steps = len(episode)
    set_attribute(group, "id", index)
    set_attribute(group, "total_steps", steps)
    if not episode.is_final_observation_known:
        set_attribute(group, LOG_END_ATTRIBUTE, value=False)
    if not episode.has_rewards:
        set_attribute(group, HAS_REWARDS_ATTRIBUTE, value=False)
    ends = np.arange(steps) == steps - 1
    store(group, "observations", episode.observations)
    store(group, "actions", stored_actions(episode.actions, spec))
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


def _action_space(spec: SpaceSpec) -> str:
    """A box, or the least space of integers that holds the ids of all choices."""
    if spec.choices is None:
        return _box(list(spec.act_low), list(spec.act_high))
    ids = choice_ids(spec.choices)
    start, sizes = ids.min(0).tolist(), (np.ptp(ids, axis=0) + 1).tolist()
    if len(sizes) == 1:
        return json.dumps({"type": "Discrete", "dtype": "int64", "start": start[0], "n": sizes[0]})
    space: dict[str, Any] = {"type": "MultiDiscrete", "dtype": "int64", "nvec": sizes}
    return json.dumps(space | ({"start": start} if any(start) else {}))


def _choice_names(spec: SpaceSpec) -> tuple[str, ...] | None:
    """Names that the space does not tell: labels, and choices with gaps between them."""
    space = Metadata({"action_space": _action_space(spec)}, Path()).choices("action_space")
    return None if space == spec.choices else spec.choices


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
        "action_space": _action_space(spec),
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
        "choices": _choice_names(spec),
        **info.making,
    }
    return metadata | {key: value for key, value in optional.items() if value is not None}


FORMATS.register("minari")(MinariFormat())
