"""Our own flat layout in one `.npz` file, for logs that were made without any library.

With E episodes of T_0 ... T_{E-1} steps and N = sum(T_i), all episodes one after the other:

| key | shape | meaning |
|---|---|---|
| `lengths` | `[E]` integer | T_i, steps of each episode |
| `observations` | `[N + E, obs_dim]` | T_i + 1 rows per episode, the last being the final observation |
| `actions` | `[N, act_dim]` | environment units |
| `rewards` | `[N]` | |
| `terminated`, `truncated` | `[E]` flags | how each episode ended |
| `act_low`, `act_high` | `[act_dim]` | optional: action bounds; the range of the data without them |
| `behaviour_log_prob` | `[N]` | optional: log-density of the logged action scaled to [-1, 1] |
| `timestamps` | `[N + E]` | optional: seconds |
| `is_final_observation_known` | `[E]` flags | optional: False where the last one repeats the one before |
| `infos/<name>` | `[N, ...]` or `[N + E, ...]` | optional: anything else |
| `info` | text | optional: JSON of `DatasetInfo` |
"""

import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.checks import flag_array
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS, Format, behaviour_log_probs, common_infos, only_file
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

_SIGNATURE: Final = b"PK\x03\x04"
_INFO_PREFIX: Final = "infos/"
_REQUIRED: Final = ("lengths", "observations", "actions", "rewards", "terminated", "truncated")


class NpzFormat(Format):
    """NumPy archive: flat arrays and the length of each episode (see `mbrl.data.formats.npz`)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts a zip archive of NumPy arrays with at least one of the prescribed keys."""
        file = only_file(path, (".npz",))
        if file is None:
            return "not a file, nor a folder with exactly one .npz file"
        with file.open("rb") as stream:
            if stream.read(len(_SIGNATURE)) != _SIGNATURE:
                return "does not start as a NumPy archive does"
        return None

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads all keys; nothing is unpickled."""
        file = only_file(path, (".npz",)) or path
        arrays = load_archive(file)
        for key in _REQUIRED:
            if key not in arrays:
                raise DataError(
                    f"the key is missing; present: {', '.join(sorted(arrays)) or 'nothing'}",
                    file=file,
                    field=key,
                    remedy="Write the key; the module mbrl.data.formats.npz documents the layout.",
                )
        text = arrays.get("info")
        default = DatasetInfo(name=file.stem, max_episode_steps=options.max_episode_steps)
        return RawLog(
            file=file,
            episodes=_cut(arrays, file),
            info=default if text is None else DatasetInfo.from_json(str(text), file=file),
            act_low=_bounds(arrays, "act_low"),
            act_high=_bounds(arrays, "act_high"),
        )

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes one compressed archive; infos that some episode lacks are left out."""
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **_flatten(dataset))
        os.replace(partial, path)
        return path


def load_archive(file: Path) -> dict[str, AnyArray]:
    """All arrays of an archive, without unpickling anything.

    Raises:
        DataError: the archive is a folder, truncated or otherwise damaged, or holds pickled objects.
    """
    arrays: dict[str, AnyArray] = {}
    key = ""
    if file.is_dir():
        raise DataError("it is a folder", file=file, remedy="Name the .npz file in it.")
    try:
        # np.load would leave the file open if it found the archive damaged
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            for key in archive.files:
                arrays[key] = archive[key]
    except ValueError as error:
        raise DataError(
            f"the array is of dtype object or damaged ({error})",
            file=file,
            field=key or None,
            remedy="Store plain numeric arrays; ragged episodes go one after the other, with their lengths.",
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"the archive cannot be read ({error})",
            file=file,
            field=key or None,
            remedy="The file is truncated or damaged: copy or write it again.",
        ) from error
    return arrays


def _bounds(arrays: Mapping[str, AnyArray], key: str) -> tuple[float, ...] | None:
    values = arrays.get(key)
    return None if values is None else tuple(float(value) for value in np.atleast_1d(values))


def _cut(arrays: Mapping[str, AnyArray], file: Path) -> tuple[RawEpisode, ...]:
    lengths = arrays["lengths"]
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise DataError(
            f"shape {lengths.shape}, dtype {lengths.dtype}",
            file=file,
            field="lengths",
            remedy="Store one integer per episode.",
        )
    steps, count = int(lengths.sum()), len(lengths)
    allowed = {key: (steps,) for key in ("actions", "rewards", "behaviour_log_prob")}
    allowed |= {key: (count,) for key in ("terminated", "truncated", "is_final_observation_known")}
    allowed |= {"observations": (steps + count, steps), "timestamps": (steps + count,)}
    allowed |= {key: (steps, steps + count) for key in arrays if key.startswith(_INFO_PREFIX)}
    for key, rows in allowed.items():
        if key in arrays and arrays[key].shape[:1] not in {(number,) for number in rows}:
            found = arrays[key].shape[0] if arrays[key].ndim else "no"
            raise DataError(
                f"{found} rows where the lengths of {count} episodes ask for {rows[0]}",
                file=file,
                field=key,
                remedy="Store T + 1 observations and T of everything else per episode of T steps.",
            )
    stops = np.cumsum(lengths)
    return tuple(
        _episode(arrays, index, int(stop) - int(length), int(stop))
        for index, (length, stop) in enumerate(zip(lengths, stops, strict=True))
    )


def _episode(arrays: Mapping[str, AnyArray], index: int, start: int, stop: int) -> RawEpisode:
    steps = int(arrays["lengths"].sum())

    def rows(key: str) -> AnyArray:
        """The rows of this episode, T or T + 1 of them by the size of the array."""
        values = arrays[key]
        if len(values) == steps:
            return values[start:stop]
        return values[start + index : stop + index + 1]

    known = arrays.get("is_final_observation_known")
    return RawEpisode(
        name=str(index),
        observations=rows("observations"),
        actions=rows("actions"),
        rewards=rows("rewards"),
        terminations=flag_array(stop - start, last=bool(arrays["terminated"][index])),
        truncations=flag_array(stop - start, last=bool(arrays["truncated"][index])),
        final_observation="logged" if known is None or bool(known[index]) else "unknown",
        behaviour_log_prob=rows("behaviour_log_prob") if "behaviour_log_prob" in arrays else None,
        timestamps=rows("timestamps") if "timestamps" in arrays else None,
        infos={key.removeprefix(_INFO_PREFIX): rows(key) for key in arrays if key.startswith(_INFO_PREFIX)},
    )


def _flatten(dataset: Dataset) -> dict[str, Any]:
    episodes = dataset.episodes
    arrays: dict[str, Any] = {
        "lengths": dataset.episode_lengths,
        "observations": np.concatenate([episode.observations for episode in episodes]),
        "actions": np.concatenate([episode.actions for episode in episodes]),
        "rewards": np.concatenate([episode.rewards for episode in episodes]),
        "terminated": np.array([episode.terminated for episode in episodes]),
        "truncated": np.array([episode.truncated for episode in episodes]),
        "is_final_observation_known": np.array([e.is_final_observation_known for e in episodes]),
        "act_low": np.array(dataset.spec.act_low),
        "act_high": np.array(dataset.spec.act_high),
        "info": np.array(dataset.info.to_json()),
    }
    log_probs = behaviour_log_probs(dataset)
    if log_probs is not None:
        arrays["behaviour_log_prob"] = log_probs
    times = [episode.timestamps for episode in episodes if episode.timestamps is not None]
    if len(times) == len(episodes):
        arrays["timestamps"] = np.concatenate(times)
    for name in common_infos(dataset):
        arrays[_INFO_PREFIX + name] = np.concatenate([episode.infos[name] for episode in episodes])
    return arrays


FORMATS.register("npz")(NpzFormat())
