"""Bags of ROS and MCAP files: what is in them, and their numbers as tables for an import by schema."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mbrl.api.result import Result, jsonable

if TYPE_CHECKING:
    from mbrl.data.tables.rosbag import Topic
    from mbrl.report.kit.table import Table


class BagResult(Result):
    """What a bag holds, and what was written of it.

    Attributes:
        path: of the bag.
        topics: name, type and number of messages of each.
        written: files, by topic; empty where nothing was to be written.
        columns: names of the numbers that were written, by topic.
        notes: what was left out on reading, counted, by topic.
    """

    def __init__(self, path: Path, topics: "Sequence[Topic]") -> None:
        self.path, self.topics = path, tuple(topics)
        self.written: dict[str, Path] = {}
        self.columns: dict[str, tuple[str, ...]] = {}
        self.notes: dict[str, Mapping[str, int]] = {}

    def to_dict(self) -> dict[str, Any]:
        """Topics with their types and counts; of those written also file, columns and notes."""
        topics = {
            topic.name: {
                "type": topic.kind,
                "messages": topic.messages,
                "file": str(self.written[topic.name]) if topic.name in self.written else None,
                "columns": list(self.columns.get(topic.name, ())),
                "notes": dict(self.notes.get(topic.name, {})),
            }
            for topic in self.topics
        }
        return jsonable({"path": str(self.path), "topics": topics})

    def tables(self) -> "Sequence[Table]":
        """Topics; the numbers of those that were written."""
        from mbrl.report.kit.table import Table

        listed = [(topic.name, topic.kind, topic.messages) for topic in self.topics]
        tables = [Table(f"Topics of {self.path.name}", ("topic", "type", "messages"), listed)]
        if self.written:
            rows = [(file.name, ", ".join(self.columns[name])) for name, file in self.written.items()]
            tables.append(Table("Written", ("file", "columns beside time"), rows))
        notes = [(name, text, count) for name, counts in self.notes.items() for text, count in counts.items()]
        return [
            *tables,
            *([Table("Left out or changed", ("topic", "what", "times"), notes)] if notes else []),
        ]

    def messages(self) -> Sequence[str]:
        """What to do next."""
        if not self.written:
            return (
                "To write their numbers: mbrl topics BAG --out FOLDER, with --topic for each that is wanted.",
            )
        return ("Next: a schema for these files, and mbrl import SCHEMA.yaml FOLDER --out DATASET.",)

    def _headline(self) -> str:
        return f"{self.path.name!r}, {len(self.topics)} topics"


def topics(
    bag: str | Path,
    names: Sequence[str] | None = None,
    *,
    out: str | Path | None = None,
    clock: Literal["header", "log"] = "header",
) -> BagResult:
    """Lists the topics of a ROS bag or MCAP file, and writes their numbers as tables.

    Args:
        bag: a `.bag`, `.mcap` or `.db3` file, or the folder of a ROS 2 bag.
        names: topics to write; None for all that hold numbers.
        out: folder for one Parquet file per topic, `<bag>_<topic>.parquet`, with the column `time` in seconds
            since the earliest stamp of all; must not exist. None writes nothing.
        clock: `header` takes the stamps of the messages' headers where a topic has them, `log` the times at
            which they were recorded.

    Raises:
        DataError: the bag is damaged, lacks a topic, or a chosen topic holds no numbers.
        MissingExtraError: the libraries are not installed (`pip install 'mbrl-offline[rosbag]'`).

    Example:
        >>> print(mbrl.topics("drive.mcap", out="tables"))  # doctest: +SKIP
    """
    from mbrl.data.tables.export import write_tables
    from mbrl.data.tables.rosbag import list_topics, read_bag

    path = Path(bag)
    result = BagResult(path, list_topics(path))
    if out is not None:
        tables = read_bag(path, names, clock=clock)
        files = write_tables(tables, Path(out), prefix=path.stem)
        result.written = {table.name: file for table, file in zip(tables, files, strict=True)}
        result.columns = {table.name: table.columns for table in tables}
        result.notes = {table.name: table.notes for table in tables}
    return result
