"""LeRobot datasets (Cadene et al., 2024), versions 2.0 to 3.0: Parquet files beside `meta/info.json`.

Files hold one episode (version 2) or many (version 3); rows are told apart by `episode_index`, never by their
place. `observation.*` vectors are put side by side, `observation.state` first (`obs_keys` chooses), and their
names become those of the channels; videos and images are left out by name. An episode of T frames has T
actions and no observation after the last: T - 1 transitions. Stamps are `frame_index / fps` in float32, and
are taken in float64 where they are no more than that. `next.reward` is usually absent; `next.done` marks ends
of either kind (option `dones`), unless `next.truncated` tells them apart.
"""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.names import listed, suggest
from mbrl.data.flags import flag_array, read_flags, settle_dones
from mbrl.data.formats.base import FORMATS, SPLIT, ReadOnlyFormat
from mbrl.data.formats.metadata import Metadata
from mbrl.data.formats.parquet import StoredTable, read_columns
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog, absent_rewards

_INFO_FILE: Final = Path("meta", "info.json")
_VERSIONS: Final = ("v2.0", "v2.1", "v3.0")
_OBS: Final = "observation"
_ACTION: Final = "action"
_REWARD: Final = "next.reward"
_DONE: Final = "next.done"
_CUT: Final = "next.truncated"
_EPISODE: Final = "episode_index"
_FRAME: Final = "frame_index"
_TIME: Final = "timestamp"
_STRUCTURE: Final = frozenset({_EPISODE, _FRAME, _TIME, "index", _REWARD, _DONE, _CUT})
_STAMP_ERROR: Final = 2e-4  # seconds and relative: float32 stamps of a day have steps of 8 ms


class LerobotFormat(ReadOnlyFormat):
    """LeRobot dataset: a folder with meta/info.json and Parquet files, version 2 or 3 (read only)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts a folder with `meta/info.json`."""
        return None if (path / _INFO_FILE).is_file() else "no folder with meta/info.json"

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads the columns of numbers of every episode."""
        described = _Description.load(path)
        columns = described.columns(options)
        counts: Counter[str] = Counter()
        for left_out in described.left_out(columns):
            counts[f"unsupported column left out: {left_out}"] += 1
        episodes = _read_episodes(path, columns, described)
        terminated = _terminated(episodes, options, path)
        return RawLog(
            file=path,
            episodes=tuple(
                episode.raw(columns, described, options, terminated=ends)
                for episode, ends in zip(episodes, terminated, strict=True)
            ),
            info=described.info(columns, path),
            counts=counts,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Columns:
    """Names of the columns that are read: of observations, of actions, and what else is kept."""

    obs: tuple[str, ...]
    act: tuple[str, ...]
    further: tuple[str, ...]

    def all(self) -> tuple[str, ...]:
        return (*self.obs, *self.act, *self.further, *sorted(_STRUCTURE))


class _Description:
    """`meta/info.json`.

    Attributes:
        fps: frames in a second.
        features: what each column is.
    """

    def __init__(self, metadata: Metadata, file: Path) -> None:
        self._metadata, self._file = metadata, file
        version = metadata.text("codebase_version")
        if version not in _VERSIONS:
            raise self._error(
                "codebase_version",
                f"version {version!r}",
                f"Versions {', '.join(_VERSIONS)} are read: convert the dataset with the scripts of lerobot "
                "(lerobot/scripts, lerobot/datasets).",
            )
        fps = metadata.number("fps")
        if fps is None or not 0 < fps < 1e6:
            raise self._error("fps", f"{fps} frames in a second", "Write how many frames a second has.")
        self.fps = fps
        features = metadata.part("features")
        if features is None:
            raise self._error("features", "the columns are not described", "Restore the file.")
        self.features = {name: part for name in features.values if (part := features.part(name)) is not None}

    @classmethod
    def load(cls, path: Path) -> "_Description":
        file = path / _INFO_FILE
        return cls(Metadata.load(file), file)

    def columns(self, options: LoadOptions) -> _Columns:
        """What is read as what.

        Raises:
            DataError: there is no vector of observations or of actions, or no feature of a chosen name.
        """
        numeric = [name for name in self.features if self._is_vector(name)]
        obs = [name for name in numeric if name == _OBS or name.startswith(f"{_OBS}.")]
        obs.sort(key=lambda name: (name != f"{_OBS}.state", name))
        act = [name for name in numeric if name == _ACTION]
        act = act or sorted(name for name in numeric if name.startswith(f"{_ACTION}."))
        if options.obs_keys is not None:
            obs = [self._chosen(key, numeric) for key in options.obs_keys]
        for kind, found in ((_OBS, obs), (_ACTION, act)):
            if not found:
                others = [f"{name} ({self._dtype(name)})" for name in self.features if name.startswith(kind)]
                raise self._error(
                    "features",
                    f"there is no vector of numbers for the {kind}; there are {listed(others)[:300]}",
                    "Images are unsupported: use a dataset that logs joint positions or the like.",
                )
        rest = [name for name in numeric if name not in {*obs, *act, *_STRUCTURE}]
        further = () if options.infos == "none" else tuple(rest)
        return _Columns(tuple(obs), tuple(act), further)

    def left_out(self, columns: _Columns) -> Iterator[str]:
        """Features that are not numbers, with what they are."""
        for name in sorted(self.features):
            if name not in columns.all() and not self._is_vector(name):
                yield f"{name} ({self._dtype(name)})"

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """A name for every number of some columns, each once."""
        plain: list[str] = []
        full: list[str] = []
        for column in columns:
            size = self.size(column)
            found = list(_texts(self.features[column].values.get("names")))
            numbered = [column] if size == 1 else [f"{column}[{index}]" for index in range(size)]
            is_named = len(found) == size and len(set(found)) == size
            plain += found if is_named else numbered
            full += [f"{column}.{name}" for name in found] if is_named else numbered
        return tuple(plain if len(set(plain)) == len(plain) else full)

    def size(self, name: str) -> int:
        """How many numbers a feature has."""
        shape: Any = self.features[name].values.get("shape")
        sizes = cast("list[Any]", shape) if isinstance(shape, list) else []
        return int(sizes[0]) if sizes else 1

    def splits(self) -> dict[str, range]:
        """Episodes of each split, if there are several."""
        part = self._metadata.part("splits")
        found: dict[str, range] = {}
        for name in part.values if part is not None else ():
            start, _, stop = str(part.values[name] if part is not None else "").partition(":")
            if start.isdecimal() and stop.isdecimal() and len(start + stop) < 20:
                found[name] = range(int(start), int(stop))
        return found if len(found) > 1 else {}

    def check_totals(self, episodes: int, frames: int) -> None:
        """Refuses a dataset some files of which are missing."""
        for key, count in (("total_episodes", episodes), ("total_frames", frames)):
            expected = self._metadata.count(key)
            if expected is not None and expected != count:
                raise self._error(
                    key,
                    f"{count} {key.removeprefix('total_')} are there, and {expected} are stated",
                    "Download the files that are missing from data/.",
                )

    def info(self, columns: _Columns, path: Path) -> DatasetInfo:
        """The description of the dataset."""
        facts = ("robot_type", "codebase_version")
        texts = {key: text for key in facts if (text := self._metadata.text(key)) is not None}
        return DatasetInfo(
            name=path.resolve().name,
            time_step=1.0 / self.fps,
            obs_names=self.names(columns.obs),
            act_names=self.names(columns.act),
            provenance={"layout": "LeRobot", **texts},
        )

    def _dtype(self, name: str) -> str:
        return str(self.features[name].values.get("dtype"))[:20]

    def _is_vector(self, name: str) -> bool:
        shape: Any = self.features[name].values.get("shape")
        if not isinstance(shape, list):
            return False
        sizes = cast("list[Any]", shape)
        is_flat = len(sizes) <= 1 and all(isinstance(size, int) and 0 < size <= 10**5 for size in sizes)
        return is_flat and self._dtype(name).startswith(("float", "int", "uint", "bool"))

    def _chosen(self, key: str, numeric: Sequence[str]) -> str:
        for name in (key, f"{_OBS}.{key}"):
            if name in numeric:
                return name
        kind = f" ({self._dtype(key)} is none)" if key in self.features else ""
        raise self._error(
            "obs_keys",
            f"no vector of numbers named {key!r}{kind}. {suggest(key, numeric)}There are {listed(numeric)}",
            "Name features of the dataset.",
        )

    def _error(self, field: str, problem: str, remedy: str) -> DataError:
        return DataError(problem, file=self._file, field=field, remedy=remedy)


@dataclasses.dataclass(slots=True)
class _Episode:
    """Frames of one episode, `[T, ...]` by column."""

    number: int
    frames: dict[str, AnyArray]

    def raw(
        self, columns: _Columns, described: _Description, options: LoadOptions, *, terminated: bool
    ) -> RawEpisode:
        steps = len(self.frames[_EPISODE])
        infos = {name: self.frames[name] for name in columns.further if name in self.frames}
        if options.infos == "all":
            for name, members in described.splits().items():
                infos[f"{SPLIT}{name}"] = np.full(steps, self.number in members)
        rewards = self.frames.get(_REWARD)
        return RawEpisode(
            name=str(self.number),
            observations=_side_by_side(self.frames, columns.obs),
            actions=_side_by_side(self.frames, columns.act),
            rewards=absent_rewards(steps) if rewards is None else rewards,
            terminations=flag_array(steps, last=terminated),
            truncations=flag_array(steps, last=not terminated),
            final_observation="absent",
            timestamps=_stamps(self.frames, described.fps),
            infos=infos,
            has_rewards=rewards is not None,
        )


def _read_episodes(path: Path, columns: _Columns, described: _Description) -> list[_Episode]:
    """All episodes, sorted by their numbers; rows of one may lie in several files."""
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise DataError(
            "there are no Parquet files", file=path / "data", remedy="Download the folder data/ too."
        )
    parts: dict[int, list[dict[str, AnyArray]]] = {}
    for file in files:
        table = read_columns(file, columns.all(), purpose="reading LeRobot datasets")
        frames = _read_frames(table, columns, described, file)
        numbers = frames[_EPISODE]
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        edges = [0, *cuts.tolist(), len(numbers)]
        for start, stop in itertools.pairwise(edges):
            if stop > start:
                rows = {name: values[start:stop] for name, values in frames.items()}
                parts.setdefault(int(numbers[start]), []).append(rows)
    episodes = [_join(number, parts[number], path) for number in sorted(parts)]
    described.check_totals(len(episodes), sum(len(episode.frames[_EPISODE]) for episode in episodes))
    return episodes


def _read_frames(
    table: StoredTable, columns: _Columns, described: _Description, file: Path
) -> dict[str, AnyArray]:
    """The columns of a file as they are described."""
    optional = {_TIME, "index", _REWARD, _DONE, _CUT, *columns.further} - set(table.names())
    frames = {name: table.require(name) for name in dict.fromkeys(columns.all()) if name not in optional}
    for name in (_EPISODE, _FRAME):
        values = frames[name]
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise DataError(
                f"shape {values.shape}, dtype {values.dtype}, where one number per frame is needed",
                file=file,
                field=name,
                remedy="The file is damaged: download it again.",
            )
    for name in (*columns.obs, *columns.act):
        found, size = frames[name], described.size(name)
        if found.size != len(found) * size:
            raise DataError(
                f"rows of shape {list(found.shape[1:])}, where meta/info.json describes {size} numbers",
                file=file,
                field=name,
                remedy="The file and its description do not belong together: download both again.",
            )
    return frames


def _join(number: int, parts: Sequence[dict[str, AnyArray]], path: Path) -> _Episode:
    """The frames of an episode in their order, which must be without gaps."""
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    frames = {name: np.concatenate([part[name] for part in parts]) for name in shared}
    order = np.argsort(frames[_FRAME], kind="stable")
    frames = {name: values[order] for name, values in frames.items()}
    jumps = np.flatnonzero(np.diff(frames[_FRAME].astype(np.int64)) != 1)
    if len(jumps):
        row = int(jumps[0])
        raise DataError(
            f"frame {frames[_FRAME][row + 1]} follows frame {frames[_FRAME][row]}",
            file=path,
            episode=number,
            field=_FRAME,
            row=row + 1,
            remedy="Frames are missing or there twice: download the files of data/ again.",
        )
    return _Episode(number, frames)


def _side_by_side(frames: Mapping[str, AnyArray], columns: Sequence[str]) -> AnyArray:
    """`[T, d]`, of vectors and single numbers."""
    return np.concatenate([frames[name].reshape(len(frames[name]), -1) for name in columns], axis=1)


def _stamps(frames: Mapping[str, AnyArray], fps: float) -> NDArray[np.float64] | None:
    """`[T + 1]` seconds; the last is when the frame after the last would have come."""
    stamps = frames.get(_TIME)
    if stamps is None or stamps.dtype.kind not in "fiu":
        return None
    nominal = frames[_FRAME].astype(np.float64) / fps
    logged = stamps.reshape(len(stamps), -1)[:, 0].astype(np.float64)
    is_nominal = np.abs(logged - nominal) <= _STAMP_ERROR * np.maximum(1.0, np.abs(nominal))
    times = nominal if bool(is_nominal.all()) else logged
    return np.append(times, times[-1] + 1.0 / fps)


def _terminated(episodes: Sequence[_Episode], options: LoadOptions, path: Path) -> list[bool]:
    """Whether each episode terminated, by its last flags."""
    report = functools.partial(DataError, file=path)
    marked: list[bool] = []
    for episode in episodes:
        last = {
            name: bool(
                read_flags(episode.frames[name], report, field=name, count=len(episode.frames[_EPISODE]))[-1]
            )
            for name in (_DONE, _CUT)
            if name in episode.frames
        }
        is_done = last.get(_DONE, False) and not last.get(_CUT, False)
        marked.append(is_done)
    if any(_CUT in episode.frames for episode in episodes):
        return marked
    lengths = np.array([len(episode.frames[_EPISODE]) for episode in episodes], dtype=np.int64)
    return settle_dones(np.array(marked), lengths, options, report, field=_DONE).tolist()


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Texts in lists and objects within each other, as `names` has them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)) and depth < 4:
        entries = cast("Any", value.values() if isinstance(value, dict) else value)
        for entry in entries:
            yield from _texts(entry, depth + 1)


FORMATS.register("lerobot")(LerobotFormat())
