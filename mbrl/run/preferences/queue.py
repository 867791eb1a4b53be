"""Pairs that wait for an answer, as JSON lines; what the page of labels shows, in order."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.formats.output import write_file
from mbrl.preferences.pairs import Preference, PreferenceSet, Segment
from mbrl.run.files import check_values, read_file

Pair: TypeAlias = tuple[Segment, Segment]

_Index: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
_Length: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
_REMEDY: Final = "make the file by mbrl next-pairs."
_MAX_BYTES: Final = 2**28


class _Line(BaseModel):
    """A pair as it stands in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Annotated[str, Field(pattern="^[0-9a-f]{8,128}$")]
    left: tuple[_Index, _Index, _Length]
    right: tuple[_Index, _Index, _Length]


def write_queue(path: Path, dataset: str, pairs: Sequence[Pair]) -> Path:
    """Writes pairs; the file must be free.

    Raises:
        DataError: its name does not end in `.jsonl`, or it cannot be written.
    """
    if path.suffix != ".jsonl":
        raise DataError("pairs are JSON lines", file=path, remedy="Name a .jsonl file.")
    lines = [
        json.dumps(
            {
                "dataset": dataset,
                "left": [left.episode, left.start, left.length],
                "right": [right.episode, right.start, right.length],
            }
        )
        for left, right in pairs
    ]
    return write_file(path, "".join(line + "\n" for line in lines).encode())


def read_queue(path: Path, dataset: Dataset) -> tuple[Pair, ...]:
    """The pairs of a file, held against the log.

    Raises:
        FileError: the file cannot be read, or a line is no pair.
        DataError: a pair is not of this log.
    """
    content = read_file(path, remedy=_REMEDY, limit=_MAX_BYTES)
    pairs: list[Pair] = []
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values: object = json.loads(line)
        except (ValueError, RecursionError):
            raise DataError("the line is not JSON", file=path, row=number, remedy=_REMEDY) from None
        found = check_values(_Line, values, file=path, remedy=_REMEDY, field=f"line {number}")
        pair = (Segment(*found.left), Segment(*found.right))
        PreferenceSet(found.dataset, (Preference(*pair, "skip"),)).require_log(dataset)
        pairs.append(pair)
    if not pairs:
        raise DataError("it holds no pairs", file=path, remedy=_REMEDY)
    return tuple(pairs)
