"""Which episodes, or stretches of them, succeeded: labels, and their files.

A file has one label a row, JSON lines or Parquet. Columns: `dataset`, `episode`, `label`, and, where they are
known, `start` and `length` of the stretch that is labelled (both or none; none labels the whole episode),
`annotator`, `time`.
"""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.preferences.pairs import Segment, require_log, require_segment
from mbrl.preferences.rows import (
    Index,
    Length,
    LogHash,
    Name,
    Time,
    parse_row,
    read_rows,
    require_one_log,
    rows_digest,
    write_rows,
)

Outcome: TypeAlias = Literal["success", "failure", "skip"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("success", "failure", "skip")


@dataclasses.dataclass(frozen=True, slots=True)
class SuccessLabel:
    """One label.

    Attributes:
        episode: index in the dataset, from 0.
        outcome: `success`, `failure`, or `skip` where nobody could tell.
        start: first step of the stretch that is labelled, from 0; None where the whole episode is.
        length: steps of the stretch; None likewise.
        annotator: who labelled; "" where nobody noted it.
        time: of the label, seconds since 1970 (UTC); None likewise.
    """

    episode: int
    outcome: Outcome
    start: int | None = None
    length: int | None = None
    annotator: str = ""
    time: float | None = None

    def segment(self) -> Segment | None:
        """The stretch; None where the whole episode is labelled."""
        if self.start is None or self.length is None:
            return None
        return Segment(self.episode, self.start, self.length)


@dataclasses.dataclass(frozen=True, slots=True)
class SuccessLabels:
    """Labels of one log.

    Attributes:
        dataset: content hash of the log.
        labels: in the order in which they were given.
    """

    dataset: str
    labels: tuple[SuccessLabel, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> dict[Outcome, int]:
        """How often each outcome was given."""
        found = Counter(label.outcome for label in self.labels)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    def annotators(self) -> tuple[str, ...]:
        """Who labelled, sorted."""
        return tuple(sorted({label.annotator for label in self.labels}))

    def require_log(self, dataset: Dataset) -> None:
        """Refuses a log that the labels are not about; one that was relabelled or stacked is accepted.

        Raises:
            DataError: the log is another, or has no such episode or step.
        """
        require_log(self.dataset, dataset)
        for row, label in enumerate(self.labels, start=1):
            segment = label.segment() or Segment(label.episode, 0, 1)
            require_segment(segment, dataset, row=row)

    def digest(self) -> str:
        """Hex digest (blake2b, 16 bytes) of the labels, whatever file they stand in."""
        return rows_digest([_Row.of(self.dataset, label) for label in self.labels])


class _Row(BaseModel):
    """One label as it stands in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: LogHash
    episode: Index
    start: Index | None = None
    length: Length | None = None
    label: Outcome
    annotator: Name = ""
    time: Time | None = None

    @classmethod
    def of(cls, dataset: str, label: SuccessLabel) -> "_Row":
        return cls(
            dataset=dataset,
            episode=label.episode,
            start=label.start,
            length=label.length,
            label=label.outcome,
            annotator=label.annotator,
            time=label.time,
        )

    def told(self) -> SuccessLabel:
        return SuccessLabel(self.episode, self.label, self.start, self.length, self.annotator, self.time)


def read_labels(*paths: str | Path) -> SuccessLabels:
    """Reads files of labels about one log, one after the other.

    Args:
        paths: end in `.jsonl` or `.parquet`; at least one.

    Raises:
        DataError: a file is absent or damaged, has no labels, or a row is wrong or about another log; rows
            count from 1, as the lines of an editor.
        MissingExtraError: pyarrow is not installed.
    """
    dataset = ""
    labels: list[SuccessLabel] = []
    for file in map(Path, paths):
        missing = "Write a row for each labelled episode, as docs/preferences.md describes it."
        for number, values in read_rows(file, missing=missing):
            row = parse_row(_Row, values, file=file, row=number)
            if (row.start is None) != (row.length is None):
                raise DataError(
                    "start and length are given together, or neither of them",
                    file=file,
                    row=number,
                    field="length" if row.length is None else "start",
                    remedy="Give both, or leave both out to label the whole episode.",
                )
            dataset = dataset or row.dataset
            require_one_log(row.dataset, dataset, file=file, row=number)
            labels.append(row.told())
    return SuccessLabels(dataset, tuple(labels))


def write_labels(labels: SuccessLabels, path: str | Path) -> Path:
    """Writes a file of labels; it appears whole or not at all.

    Args:
        labels: the labels.
        path: ends in `.jsonl` or `.parquet`; must be free.

    Raises:
        DataError: the suffix is another, or the file cannot be written.
        FileExistsError: something is there.
        MissingExtraError: pyarrow is not installed.
    """
    return write_rows(Path(path), [_Row.of(labels.dataset, label) for label in labels.labels], _Row)
