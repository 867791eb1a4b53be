"""ROS 1 bags, ROS 2 bags (sqlite3, MCAP) and MCAP files as one table of numbers per topic.

Read with the library `rosbags` (extra `rosbag`); no ROS is needed. Every number of a message becomes a column
named by its path: `pose.position.x`, `position[elbow]` where the message names its entries (`name` or
`joint_names`), `data[0]` where it does not. Stamps are those of the messages' headers, which tell when
something was measured; a topic without them has the time at which the recorder got each message.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.core.names import listed, suggest
from mbrl.data.formats.limits import ReadBudget, reading
from mbrl.data.tables.time_table import NANOSECONDS, TimeTable

MAX_ARRAY: Final = 256
"""Longest array of a message that becomes columns; images, point clouds and maps are longer."""

MAX_COLUMNS: Final = 4096
"""Most columns of one topic."""

_MAX_DEPTH: Final = 16
_ROS1_MAGIC: Final = b"#ROSBAG V2.0"
_MCAP_MAGIC: Final = b"\x89MCAP0\r\n"
_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_NO_SIGNALS: Final = frozenset({"header", "__msgtype__"})
_LABELS: Final = ("name", "joint_names")
_NEXT: Final = "Copy or record the bag again; a bag that was not closed is mended by `ros2 bag reindex`."

_Layout: TypeAlias = tuple[int, ...]
_Numbers: TypeAlias = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Topic:
    """What a bag says of a topic.

    Attributes:
        name: such as `/joint_states`.
        kind: type of its messages.
        messages: how many there are.
    """

    name: str
    kind: str
    messages: int


def is_bag(path: Path) -> bool:
    """Whether there is a bag at `path`: a file that starts as one, or the folder of a ROS 2 bag."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file() and any(
            entry.suffix in {".db3", ".mcap"} or entry.name.endswith((".db3.zstd", ".mcap.zstd"))
            for entry in path.iterdir()
        )
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        start = stream.read(16)
    is_database = path.suffix == ".db3" and start.startswith(_SQLITE_MAGIC)
    return is_database or start.startswith((_ROS1_MAGIC, _MCAP_MAGIC))


def list_topics(path: Path) -> tuple[Topic, ...]:
    """The topics of a bag, sorted.

    Raises:
        DataError: it is damaged, or holds no ROS messages.
        MissingExtraError: the library is not installed.
    """
    with reading(path), _open(path) as bag:
        found = {
            name: Topic(name, str(info.msgtype or "several types"), int(info.msgcount))
            for name, info in bag.topics.items()
        }
    return tuple(found[name] for name in sorted(found))


def read_bag(
    path: Path,
    topics: Sequence[str] | None = None,
    *,
    clock: Literal["header", "log"] = "header",
) -> tuple[TimeTable, ...]:
    """Reads topics as tables, one each, all of which count their stamps from the same start.

    Args:
        path: a `.bag`, `.mcap` or `.db3` file, or the folder of a ROS 2 bag.
        topics: names; None reads every topic that has numbers.
        clock: `header` takes the stamps of the messages' headers where a topic has them, `log` the times at
            which they were recorded.

    Raises:
        DataError: the bag is damaged, holds no ROS messages, lacks a topic, or a topic holds no numbers.
        MissingExtraError: the library is not installed.
    """
    with reading(path), _open(path) as bag:
        wanted = _choose(path, sorted(bag.topics), topics)
        logs = {name: _TopicLog(name, path) for name in wanted}
        budget = ReadBudget(_largest(path))
        connections = [link for link in bag.connections if link.topic in logs]
        for link, time, raw in bag.messages(connections=connections):
            budget.take(len(raw), field=link.topic)
            logs[link.topic].add(bag.deserialize(raw, link.msgtype), int(time))
    known = [log for log in logs.values() if log.rows and log.places]
    for log in logs.values():
        if topics is not None and log not in known:
            raise DataError(
                f"{len(log.rows)} messages without numbers{log.said()}",
                file=path,
                field=log.name,
                remedy="Leave the topic out; images and texts are not read.",
            )
    if not known:
        raise DataError("no topic holds numbers", file=path, remedy="Record the states and the commands.")
    start = min(min(log.times(clock)) for log in known)
    return tuple(log.table(start, clock) for log in known)


@dataclasses.dataclass(slots=True)
class _TopicLog:
    """Messages of a topic so far.

    Attributes:
        name: of the topic.
        file: for messages.
        places: column of each name.
        layouts: columns of a message's numbers, each sequence of them once.
        rows: for each message its layout and its numbers.
        stamps: of headers, nanoseconds; 0 where there is none.
        logged: times of the recorder, nanoseconds.
        notes: what was left out.
    """

    name: str
    file: Path
    places: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    layouts: dict[_Layout, _Layout] = dataclasses.field(default_factory=dict[_Layout, _Layout])
    rows: list[tuple[_Layout, _Numbers]] = dataclasses.field(default_factory=list[tuple[_Layout, _Numbers]])
    stamps: list[int] = dataclasses.field(default_factory=list[int])
    logged: list[int] = dataclasses.field(default_factory=list[int])
    notes: Counter[str] = dataclasses.field(default_factory=Counter[str])

    def add(self, message: Any, time: int) -> None:
        """Adds a message."""
        found = dict(_numbers(message, "", self.notes, 0))
        layout = tuple(self.places.setdefault(name, len(self.places)) for name in found)
        if len(self.places) > MAX_COLUMNS:
            raise DataError(
                f"more than {MAX_COLUMNS:,} numbers in a message",
                file=self.file,
                field=self.name,
                remedy="Read other topics: this one is no signal of a machine.",
            )
        values = np.fromiter(found.values(), dtype=np.float64, count=len(found))
        self.rows.append((self.layouts.setdefault(layout, layout), values))
        self.stamps.append(_header_stamp(message))
        self.logged.append(time)

    def times(self, clock: Literal["header", "log"]) -> list[int]:
        """Nanoseconds of every message; headers that were never filled in do not count."""
        return self.stamps if clock == "header" and all(self.stamps) else self.logged

    def table(self, start: int, clock: Literal["header", "log"]) -> TimeTable:
        """The table, sorted by time."""
        times = np.array(self.times(clock), dtype=np.int64)
        order = np.argsort(times, kind="stable")
        moved = int((np.diff(times) < 0).sum())
        values = np.full((len(self.rows), len(self.places)), np.nan)
        for index, (layout, numbers) in enumerate(self.rows):
            values[index, layout] = numbers
        notes = dict(self.notes) | ({"messages out of order, sorted by time": moved} if moved else {})
        if clock == "header" and not all(self.stamps):
            notes["messages without a header stamp: time of the recorder"] = self.stamps.count(0)
        return TimeTable(
            name=self.name,
            columns=tuple(self.places),
            values=values[order],
            stamps=(times[order] - start) / NANOSECONDS,
            start=start,
            notes=notes,
        )

    def said(self) -> str:
        """What was left out, in brackets."""
        return f" ({', '.join(sorted(self.notes)[:5])})" if self.notes else ""


def _open(path: Path) -> Any:
    try:
        from rosbags.highlevel import AnyReader
    except ImportError as error:
        raise MissingExtraError("rosbags", extra="rosbag", purpose="reading ROS bags and MCAP") from error
    try:
        return AnyReader([path])
    except Exception as error:
        raise DataError(f"the bag cannot be read ({str(error)[:200]})", file=path, remedy=_NEXT) from error


def _largest(path: Path) -> Path:
    """The file whose size says how much content is credible."""
    files = [entry for entry in path.iterdir() if entry.is_file()] if path.is_dir() else [path]
    return max(files, key=lambda file: file.stat().st_size)


def _choose(path: Path, present: Sequence[str], topics: Sequence[str] | None) -> tuple[str, ...]:
    for name in topics or ():
        if name not in present:
            raise DataError(
                f"there is no topic {name!r}. {suggest(name, present)}Its topics: {listed(present)}",
                file=path,
                field="topics",
                remedy="Name topics of the bag.",
            )
    return tuple(dict.fromkeys(topics)) if topics is not None else tuple(present)


def _header_stamp(message: Any) -> int:
    """Nanoseconds of the header, 0 without one."""
    stamp = getattr(getattr(message, "header", None), "stamp", None)
    return 0 if stamp is None else int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def _numbers(message: Any, prefix: str, notes: Counter[str], depth: int) -> Iterator[tuple[str, float]]:
    """Name and value of every number in a message; headers are not signals."""
    labels = _labels(message)
    for field in dataclasses.fields(message):
        if field.name in _NO_SIGNALS and (depth == 0 or field.name != "header"):
            continue
        if labels and field.name in _LABELS:
            continue
        value: Any = getattr(message, field.name)
        yield from _of_value(value, f"{prefix}{field.name}", labels, notes, depth)


def _of_value(
    value: Any, name: str, labels: Sequence[str], notes: Counter[str], depth: int
) -> Iterator[tuple[str, float]]:
    if isinstance(value, (bool, int, float, np.generic)):
        yield name, float(cast("Any", value))
    elif isinstance(value, (np.ndarray, list)):
        entries = cast("Sequence[Any]", value)
        is_text = len(entries) > 0 and isinstance(entries[0], str)
        if len(entries) > MAX_ARRAY or is_text:
            notes[f"{name} left out: {'texts' if is_text else f'more than {MAX_ARRAY} entries'}"] += 1
            return
        keys = labels if len(labels) == len(entries) else [str(index) for index in range(len(entries))]
        for key, entry in zip(keys, entries, strict=True):
            yield from _of_value(entry, f"{name}[{key}]", (), notes, depth + 1)
    elif hasattr(value, "sec") and hasattr(value, "nanosec"):
        yield name, value.sec + value.nanosec / NANOSECONDS
    elif dataclasses.is_dataclass(value) and depth < _MAX_DEPTH:
        yield from _numbers(value, f"{name}.", notes, depth + 1)
    else:
        notes[f"{name} left out: no number"] += 1


def _labels(message: Any) -> tuple[str, ...]:
    """Names that a message gives to the entries of its arrays, if each is there once."""
    for field in _LABELS:
        found: Any = getattr(message, field, None)
        if isinstance(found, list) and all(isinstance(name, str) for name in cast("list[Any]", found)):
            names = tuple(cast("list[str]", found))
            return names if len(set(names)) == len(names) else ()
    return ()
