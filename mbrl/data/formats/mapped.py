"""Our own format for logs that need not fit into memory: arrays that are mapped, not read.

A folder:

- `mapped.json`: version, sizes, bounds, the `DatasetInfo`, names of infos;
- `states.npy` `[states, obs_dim + act_dim]` float32: for every state, T + 1 of an episode, the observation
  and the action that was taken there; zeros in place of an action after the last step;
- `rewards.npy` `[steps]` float32; `log_prob.npy` `[steps]` float32 and `timestamps.npy` `[states]` float64
  where every episode has them;
- `episodes.npy` `[episodes, 4]` int64: lengths and flags;
- `infos/<k>.npy`: further arrays that every episode has, of `steps` or `states` rows.

Observation and action lie beside each other because a step is then one stretch of the file, two rows long.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.data.flags import flag_array
from mbrl.data.formats.base import FORMATS, Format, common_infos
from mbrl.data.formats.output import partial_path
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

HEADER: Final = "mapped.json"
EPISODES: Final = "episodes.npy"
_FLAGS: Final = ("terminated", "truncated", "is_final_observation_known")


class MappedHeader(BaseModel):
    """`mapped.json`.

    Attributes:
        version: of the layout.
        obs_dim: size of an observation.
        act_low: bounds of the actions; their number is the size of an action.
        act_high: likewise.
        choices: names of the choices, which are one-hot in the file; None for others.
        has_rewards: whether the rewards are any.
        infos: name of each further array, in the order of their files, and whether it has a row for each
            state (True) or step.
        info: JSON of the `DatasetInfo`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    obs_dim: int
    act_low: tuple[float, ...]
    act_high: tuple[float, ...]
    choices: tuple[str, ...] | None
    has_rewards: bool
    infos: tuple[tuple[str, bool], ...]
    info: str


class MappedFormat(Format):
    """Our own folder of mapped arrays, for logs that need not fit into memory."""

    def sniff(self, path: Path) -> str | None:
        """Accepts the folder."""
        return (
            None if (path / HEADER).is_file() else f"no {HEADER} in it" if path.is_dir() else "not a folder"
        )

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Views of the files; what is read of them is read by whoever looks at it."""
        header = _read_header(path / HEADER)
        lengths, flags = _read_episodes(path / EPISODES)
        steps, states = int(lengths.sum()), int(lengths.sum() + len(lengths))
        width = header.obs_dim + len(header.act_low)
        columns = {
            "states": _map(path / "states.npy", (states, width), np.float32),
            "rewards": _map(path / "rewards.npy", (steps,), np.float32),
            "log_prob": _map_optional(path / "log_prob.npy", (steps,), np.float32),
            "timestamps": _map_optional(path / "timestamps.npy", (states,), np.float64),
        }
        infos: dict[str, AnyArray] = {}
        for number, (name, has_states) in enumerate(header.infos if options.infos == "all" else ()):
            infos[name] = _map(path / "infos" / f"{number}.npy", (states if has_states else steps,), None)
        return RawLog(
            file=path,
            episodes=tuple(_cut(header, lengths, flags, columns, infos)),
            info=DatasetInfo.from_json(header.info, file=path / HEADER),
            act_low=None if header.choices else header.act_low,
            act_high=None if header.choices else header.act_high,
            choices=header.choices,
        )

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes the folder episode by episode: no more than one of them is in memory besides the dataset."""
        spec, steps = dataset.spec, dataset.num_transitions
        states, width = steps + len(dataset), spec.obs_dim + spec.act_dim
        with partial_path(path, 4 * (states * width + steps)) as folder:
            (folder / "infos").mkdir(parents=True)
            _write_rows(folder / "states.npy", (states, width), map(_states, dataset.episodes), np.float32)
            rewards = (episode.rewards for episode in dataset.episodes)
            _write_rows(folder / "rewards.npy", (steps,), rewards, np.float32)
            known = [e.behaviour_log_prob for e in dataset.episodes if e.behaviour_log_prob is not None]
            if len(known) == len(dataset):
                _write_rows(folder / "log_prob.npy", (steps,), known, np.float32)
            times = [e.timestamps for e in dataset.episodes if e.timestamps is not None]
            if len(times) == len(dataset):
                _write_rows(folder / "timestamps.npy", (states,), times, np.float64)
            flags = [[getattr(episode, name) for name in _FLAGS] for episode in dataset.episodes]
            np.save(folder / EPISODES, np.column_stack((dataset.episode_lengths, flags)).astype(np.int64))
            header = MappedHeader(
                obs_dim=spec.obs_dim,
                act_low=spec.act_low,
                act_high=spec.act_high,
                choices=spec.choices,
                has_rewards=dataset.has_rewards,
                infos=tuple(_write_infos(dataset, folder / "infos")),
                info=dataset.info.to_json(),
            )
            (folder / HEADER).write_text(json.dumps(header.model_dump(mode="json"), indent=1))
        return path


def _read_header(file: Path) -> MappedHeader:
    try:
        return MappedHeader.model_validate_json(file.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"not the header of a mapped dataset ({first['msg']})",
            file=file,
            field=".".join(map(str, first["loc"])) or None,
            remedy="Write the dataset again: mbrl import SOURCE --to mapped --out FOLDER.",
        ) from error


def _read_episodes(file: Path) -> tuple[AnyArray, dict[str, AnyArray]]:
    """`[episodes]` lengths, and each of the flags."""
    table: AnyArray = np.asarray(np.load(file, allow_pickle=False))
    is_table = table.dtype == np.int64 and table.ndim == 2 and table.shape[1] == 1 + len(_FLAGS)
    if not is_table or bool((table[:, 0] < 1).any()) or bool(((table[:, 1:] | 1) != 1).any()):
        raise DataError(
            f"{table.dtype} of shape {list(table.shape)} are no lengths of episodes and their flags",
            file=file,
            remedy="Write the dataset again.",
        )
    return table[:, 0], {name: table[:, 1 + k] != 0 for k, name in enumerate(_FLAGS)}


def _map(file: Path, shape: tuple[int, ...], dtype: Any) -> AnyArray:
    """The array of a file, private to this process: nothing that is done to it reaches the file."""
    found: AnyArray = np.asarray(np.load(file, mmap_mode="c", allow_pickle=False))
    is_right = found.shape == shape if dtype is not None else found.shape[:1] == shape
    if not is_right or (dtype is not None and found.dtype != dtype):
        raise DataError(
            f"{found.dtype} of shape {list(found.shape)}, where the episodes ask for {list(shape)} rows",
            file=file,
            remedy="The files of the folder belong to different datasets: write it again.",
        )
    return found


def _map_optional(file: Path, shape: tuple[int, ...], dtype: Any) -> AnyArray | None:
    return _map(file, shape, dtype) if file.is_file() else None


def _cut(
    header: MappedHeader,
    lengths: AnyArray,
    flags: dict[str, AnyArray],
    columns: dict[str, AnyArray | None],
    infos: dict[str, AnyArray],
) -> Iterator[RawEpisode]:
    """The episodes, each of views of the files."""
    states, rewards, log_prob, times = (columns[k] for k in ("states", "rewards", "log_prob", "timestamps"))
    assert states is not None
    assert rewards is not None
    has_states, size, step = dict(header.infos), header.obs_dim, 0
    for number, length in enumerate(lengths.tolist()):
        state = step + number  # an episode has one state more than steps
        own, after = slice(step, step + length), slice(state, state + length + 1)
        yield RawEpisode(
            name=str(number),
            observations=states[after, :size],
            actions=states[after, size:][:-1],
            rewards=rewards[own],
            terminations=flag_array(length, last=bool(flags["terminated"][number])),
            truncations=flag_array(length, last=bool(flags["truncated"][number])),
            final_observation="logged" if flags["is_final_observation_known"][number] else "unknown",
            behaviour_log_prob=None if log_prob is None else log_prob[own],
            timestamps=None if times is None else times[after],
            infos={name: values[after if has_states[name] else own] for name, values in infos.items()},
            has_rewards=header.has_rewards,
        )
        step += length


def _states(episode: Episode) -> AnyArray:
    """`[T + 1, obs_dim + act_dim]`."""
    actions = np.concatenate([episode.actions, np.zeros_like(episode.actions[:1])])
    return np.concatenate([episode.observations, actions], axis=1)


def _write_rows(file: Path, shape: tuple[int, ...], parts: Any, dtype: Any) -> None:
    """An array of `.npy`, part by part: through a file and not a map, whose pages would count as used."""
    with file.open("wb") as stream:
        description = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_2_0(
            stream, {"descr": description, "fortran_order": False, "shape": shape}
        )
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype=dtype).data)


def _write_infos(dataset: Dataset, folder: Path) -> Iterator[tuple[str, bool]]:
    """Writes the infos that all episodes have in one shape; name of each, and whether it is of states."""
    first, number = dataset.episodes[0], 0
    for name in common_infos(dataset):
        arrays = [episode.infos[name] for episode in dataset.episodes]
        extra = {len(a) - len(e) for a, e in zip(arrays, dataset.episodes, strict=True)}
        kinds = {(a.shape[1:], a.dtype) for a in arrays}
        if len(extra) > 1 or len(kinds) > 1 or first.infos[name].dtype.kind not in "fiub":
            continue
        shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
        _write_rows(folder / f"{number}.npy", shape, arrays, arrays[0].dtype)
        number += 1
        yield name, extra == {1}


FORMATS.register("mapped")(MappedFormat())
