"""Preference files: JSON lines or Parquet, one answer a row; a row of JSON may be a ranking instead.

Columns: `dataset`, `left_episode`, `left_start`, `left_length`, `right_episode`, `right_start`,
`right_length`, `label`, and, where they are known, `probability`, `annotator`, `time`. A ranking has
`dataset`, `ranking` (tiers of `[episode, start, length]`, the best first), `annotator` and `time`.
"""

import hashlib
import importlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.data.formats.limits import reading
from mbrl.data.formats.output import write_file
from mbrl.preferences.pairs import Label, Preference, PreferenceSet, Segment, answer_problem, expand_ranking

SUFFIXES: Final = (".jsonl", ".parquet")

MAX_BYTES: Final = 2**30
"""Largest file that is read; a million answers take a quarter of it."""

_REMEDY: Final = "Write the row as docs/preferences.md describes it."

_Index: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
_Length: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
_Hash: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{8,128}$")]
_Name: TypeAlias = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Time: TypeAlias = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]


class _Row(BaseModel):
    """One answer as it stands in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: _Hash
    left_episode: _Index
    left_start: _Index
    left_length: _Length
    right_episode: _Index
    right_start: _Index
    right_length: _Length
    label: Label
    probability: Annotated[float, Field(ge=0, le=1)] | None = None
    annotator: _Name = ""
    time: _Time | None = None

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

    dataset: _Hash
    ranking: Annotated[
        list[Annotated[list[tuple[_Index, _Index, _Length]], Field(min_length=1)]],
        Field(min_length=1, max_length=1000),
    ]
    annotator: _Name = ""
    time: _Time | None = None

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
    _require_suffix(file)
    if not file.is_file():
        raise DataError("there is no such file", file=file, remedy="Check the path.")
    if file.stat().st_size > MAX_BYTES:
        raise DataError(
            f"it has {file.stat().st_size:,} bytes, where {MAX_BYTES:,} are the most",
            file=file,
            remedy="Split the file.",
        )
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)
    dataset: str | None = None
    answers: list[Preference] = []
    for number, values in rows:
        row = _parse(values, file, number)
        dataset = dataset or row.dataset
        if row.dataset != dataset:
            raise DataError(
                f"{row.dataset[:16]}... is another log than that of the first row ({dataset[:16]}...)",
                file=file,
                row=number,
                field="dataset",
                remedy="Keep one file for each log.",
            )
        answers += _sound_answers(row, file, number)
    if dataset is None:
        raise DataError(
            "it holds no answers", file=file, remedy="Label pairs: mbrl label LOG --out FILE.jsonl."
        )
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
    file = Path(path)
    _require_suffix(file)
    rows = [_Row.of(preferences.dataset, answer).model_dump() for answer in preferences.answers]
    if file.suffix == ".jsonl":
        return write_file(file, "".join(json.dumps(row) + "\n" for row in rows).encode())
    arrow, parquet = _module("pyarrow"), _module("pyarrow.parquet")
    stream: Any = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist(rows, schema=_schema(arrow)), stream)
    return write_file(file, memoryview(stream.getvalue().to_pybytes()))


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
    rows = [_Row.of(preferences.dataset, answer).model_dump() for answer in preferences.answers]
    return hashlib.blake2b(json.dumps(rows, sort_keys=True).encode(), digest_size=16).hexdigest()


def _require_suffix(file: Path) -> None:
    if file.suffix not in SUFFIXES:
        raise DataError(
            f"{file.suffix or 'no suffix'} is no preference file",
            file=file,
            remedy=f"Name a file that ends in {' or '.join(SUFFIXES)}.",
        )


def _parse(values: Any, file: Path, number: int) -> _Row | _Ranking:
    form = _Ranking if isinstance(values, dict) and "ranking" in values else _Row
    try:
        # As JSON, where a list may be a tuple although types are strict.
        return form.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or None
        missing = first["type"] == "missing"
        problem = "the entry is missing" if missing else f"{str(first['input'])[:60]!r}: {first['msg']}"
        raise DataError(problem, file=file, row=number, field=field, remedy=_REMEDY) from error


def _sound_answers(row: _Row | _Ranking, file: Path, number: int) -> list[Preference]:
    try:
        answers = list(row.answers())
    except ValueError as error:
        raise DataError(str(error), file=file, row=number, field="ranking", remedy=_REMEDY) from error
    for answer in answers:
        found = answer_problem(answer)
        if found is not None:
            field, problem, remedy = found
            raise DataError(problem, file=file, row=number, field=field, remedy=remedy)
    return answers


def _json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"it cannot be read ({error})", file=file, remedy="Give JSON in UTF-8.") from error
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"the line is not JSON ({str(error)[:100]})",
                file=file,
                row=number,
                remedy="Mend or delete the line; the others are independent of it.",
            ) from error


def _parquet_rows(file: Path) -> Iterator[tuple[int, Any]]:
    parquet = _module("pyarrow.parquet")
    with reading(file):
        table: Any = parquet.read_table(file, use_threads=False)
        rows = cast("Sequence[Mapping[str, Any]]", table.to_pylist())
    for number, row in enumerate(rows, start=1):
        # A column that some rows leave empty is null in those, where JSON leaves it out.
        yield number, {name: value for name, value in row.items() if value is not None}


def _schema(arrow: Any) -> Any:
    kinds: dict[Any, Any] = {int: arrow.int64(), str: arrow.string(), float: arrow.float64()}
    texts = {"dataset", "label", "annotator"}
    numbers = {"probability", "time"}
    fields = [
        (name, kinds[str if name in texts else float if name in numbers else int])
        for name in _Row.model_fields
    ]
    return arrow.schema(fields)


def _module(name: str) -> Any:
    """A module of pyarrow, which carries no types."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="tables", purpose="a preference file in Parquet") from error
