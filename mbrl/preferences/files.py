"""Preference files: JSON lines or Parquet, one answer a row; a row of JSON may be a ranking instead.

Columns: `dataset`, `left_episode`, `left_start`, `left_length`, `right_episode`, `right_start`,
`right_length`, `label`, and, where they are known, `probability`, `annotator`, `time`. A ranking has
`dataset`, `ranking` (tiers of `[episode, start, length]`, the best first), `annotator` and `time`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import DataError
from mbrl.preferences.pairs import Label, Preference, PreferenceSet, Segment, answer_problem, expand_ranking
from mbrl.preferences.rows import (
    ROW_REMEDY,
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


class _Row(BaseModel):
    """One answer as it stands in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: LogHash
    left_episode: Index
    left_start: Index
    left_length: Length
    right_episode: Index
    right_start: Index
    right_length: Length
    label: Label
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    annotator: Name = ""
    time: Time | None = None

    @classmethod
    def of(cls, dataset: str, answer: Preference) -> "_Row":
        sides = {
            f"{side}_{name}": getattr(getattr(answer, side), name)
            for side in ("left", "right")
            for name in ("episode", "start", "length")
        }
        return cls(
            dataset=dataset,
            **sides,
            label=answer.label,
            probability=answer.probability,
            annotator=answer.annotator,
            time=answer.time,
        )

    def answers(self) -> Iterator[Preference]:
        """The one answer."""
        yield Preference(
            Segment(self.left_episode, self.left_start, self.left_length),
            Segment(self.right_episode, self.right_start, self.right_length),
            self.label,
            self.probability,
            self.annotator,
            self.time,
        )


class _Ranking(BaseModel):
    """A ranking as it stands in a file of JSON lines."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: LogHash
    ranking: Annotated[
        list[Annotated[list[tuple[Index, Index, Length]], Field(min_length=1)]],
        Field(min_length=1, max_length=1000),
    ]
    annotator: Name = ""
    time: Time | None = None

    def answers(self) -> Iterator[Preference]:
        """All of its pairs."""
        tiers = [[Segment(*segment) for segment in tier] for tier in self.ranking]
        yield from expand_ranking(tiers, annotator=self.annotator, time=self.time)


def read_preferences(path: str | Path) -> PreferenceSet:
    """Reads a preference file.

    Args:
        path: ends in `.jsonl` or `.parquet`.

    Raises:
        DataError: it is absent or damaged, has no answers or those of several logs, or a row is wrong; rows
            count from 1, as the lines of an editor.
        MissingExtraError: pyarrow is not installed.
    """
    file = Path(path)
    dataset = ""
    answers: list[Preference] = []
    for number, values in read_rows(file, missing="Label pairs: mbrl label LOG --out FILE.jsonl."):
        row = _parse(values, file, number)
        dataset = dataset or row.dataset
        require_one_log(row.dataset, dataset, file=file, row=number)
        answers += _sound_answers(row, file, number)
    return PreferenceSet(dataset, tuple(answers))


def write_preferences(preferences: PreferenceSet, path: str | Path) -> Path:
    """Writes a preference file; it appears whole or not at all.

    Args:
        preferences: the answers.
        path: ends in `.jsonl` or `.parquet`; must be free.

    Raises:
        DataError: the suffix is another, or the file cannot be written.
        FileExistsError: something is there.
        MissingExtraError: pyarrow is not installed.
    """
    return write_rows(Path(path), [_Row.of(preferences.dataset, one) for one in preferences.answers], _Row)


def append_answer(path: Path, dataset: str, answer: Preference) -> None:
    """Adds an answer to a file of JSON lines, which is made where there is none.

    The file is written anew beside its place and then moved there: whoever reads it, or a crash at any
    moment, sees it with the answer or without. One process writes at a time.

    Raises:
        DataError: the suffix is another, or the file cannot be written.
    """
    if path.suffix != ".jsonl":
        raise DataError("answers are added to JSON lines alone", file=path, remedy="Name a .jsonl file.")
    line = json.dumps(_Row.of(dataset, answer).model_dump()) + "\n"
    try:
        before = path.read_bytes() if path.exists() else b""
        if before and not before.endswith(b"\n"):
            before += b"\n"  # of a hand that saved the file without its last line break
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as stream:
            stream.write(before + line.encode())
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"the answer cannot be written ({error.strerror or error})",
            file=path,
            remedy="Check the folder, its permissions and the disk; the answers before are kept.",
        ) from error


def content_digest(preferences: PreferenceSet) -> str:
    """Hex digest (blake2b, 16 bytes) of the answers, whatever file they stand in."""
    return rows_digest([_Row.of(preferences.dataset, answer) for answer in preferences.answers])


def _parse(values: Any, file: Path, number: int) -> _Row | _Ranking:
    form = _Ranking if isinstance(values, dict) and "ranking" in values else _Row
    return parse_row(form, values, file=file, row=number)


def _sound_answers(row: _Row | _Ranking, file: Path, number: int) -> list[Preference]:
    try:
        answers = list(row.answers())
    except ValueError as error:
        raise DataError(str(error), file=file, row=number, field="ranking", remedy=ROW_REMEDY) from error
    for answer in answers:
        found = answer_problem(answer)
        if found is not None:
            field, problem, remedy = found
            raise DataError(problem, file=file, row=number, field=field, remedy=remedy)
    return answers
