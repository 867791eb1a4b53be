"""Logged bandit feedback in the csv layout of the Open Bandit Dataset (Saito et al. 2021).

A row is one decision: `item_id` (or `action`), `click` (or `reward`), `propensity_score` (or `pscore`,
`propensity`), optionally `position` and `timestamp`; all other columns are the context. It becomes an episode
of one step that ends the task. Numbers of the context stay as they are, texts become one-hot columns
`<column>=<text>`. Ids of items go from 0 to the largest one; a file `item_context.csv` beside the log names
all of them, also those that were never shown. Labels are taken as they are.

The rows of a slate count as independent decisions, with the position as a one-hot part of the context: that
is right where what an item earns does not depend on the other items of its slate.
"""

import csv
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.choices import MAX_CHOICES
from mbrl.core.errors import DataError
from mbrl.data.formats.base import FORMATS, ReadOnlyFormat
from mbrl.data.info import MAX_NAME, DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

ITEM: Final = ("item_id", "action")
REWARD: Final = ("click", "reward")
PROPENSITY: Final = ("propensity_score", "pscore", "propensity")
POSITION: Final = ("position",)
ITEM_CONTEXT: Final = "item_context.csv"

MAX_LABELS: Final = 1_000
"""Most different texts of a column; one with more is an identity, which nothing can be learned from."""

MAX_ID: Final = 10**9
"""Largest id of an item."""

_IGNORED: Final = frozenset({"", "timestamp", "Unnamed: 0"})
_CHUNK: Final = 20_000
_HEADER_BYTES: Final = 2**20
_REMEDY: Final = "Mend the row, or leave it out."


class OpenBanditFormat(ReadOnlyFormat):
    """Logged bandit feedback: csv rows of item, reward, propensity and context (read only)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts a csv file, or a folder of one beside its `item_context.csv`, with the three columns."""
        file = _log_file(path)
        if file is None:
            return f"not a csv file, nor a folder with exactly one beside {ITEM_CONTEXT}"
        header = _header(file)
        missing = [names for names in (ITEM, REWARD, PROPENSITY) if not set(names) & set(header)]
        return f"no column {' or '.join(missing[0])}" if missing else None

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads every row as an episode of one step."""
        del options
        file = _log_file(path) or path
        table = _Table.read(file)
        items, choices = _items(table)
        observations, names = _context(table)
        log_prob = np.log(_propensities(table))
        rewards = _rewards(table)
        ends, open_ends = np.ones(1, dtype=np.bool_), np.zeros(1, dtype=np.bool_)
        episodes = tuple(
            RawEpisode(
                name=str(row),
                observations=observations[[row, row]],
                actions=items[row : row + 1],
                rewards=rewards[row : row + 1],
                terminations=ends,
                truncations=open_ends,
                final_observation="unknown",
                behaviour_log_prob=log_prob[row : row + 1],
            )
            for row in range(len(items))
        )
        provenance = {"layout": "Open Bandit"}
        if table.column(POSITION) is not None:
            provenance["slates"] = "rows of a slate count as independent decisions; the position is context"
        info = DatasetInfo(name=file.stem, max_episode_steps=1, obs_names=names, provenance=provenance)
        return RawLog(file=file, episodes=episodes, info=info, choices=choices)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """A csv file by columns: float64 where every cell is a number, else text."""

    file: Path
    columns: dict[str, AnyArray]

    @classmethod
    def read(cls, file: Path) -> "_Table":
        """Whether a column holds numbers is decided by its first rows, and must hold for the others."""
        parts: dict[str, list[AnyArray]] = {}
        rows = 0
        for header, chunk in _chunks(file):
            cells = dict(zip(header, zip(*chunk, strict=True), strict=True))
            for name in header:
                if name in _IGNORED:
                    continue
                is_text = name in parts and parts[name][0].dtype.kind == "U"
                values = None if is_text else _numbers(cells[name])
                if values is None and name in parts and not is_text:
                    raise _no_number(file, name, cells[name], rows)
                column = np.array(cells[name]) if values is None else values
                parts.setdefault(name, []).append(column)
            rows += len(chunk)
        if rows == 0:
            raise DataError("there are no rows", file=file, remedy="Give a log with one row per decision.")
        return cls(file, {name: np.concatenate(column) for name, column in parts.items()})

    def column(self, names: Sequence[str]) -> tuple[str, AnyArray] | None:
        """The first column of one of these names."""
        return next(((name, self.columns[name]) for name in names if name in self.columns), None)

    def numbers(self, names: Sequence[str]) -> tuple[str, NDArray[np.float64]]:
        """The same where it must be there, and hold finite numbers."""
        found = self.column(names)
        if found is None:
            raise DataError("the column is missing", file=self.file, field=names[0], remedy="Write it.")
        name, values = found
        if values.dtype.kind == "U":
            raise _no_number(self.file, name, values.tolist(), 0)
        self.refuse(name, ~np.isfinite(values), "is not finite")
        return name, values

    def refuse(self, name: str, bad: NDArray[np.bool_], problem: str, remedy: str = _REMEDY) -> None:
        """An error that names the first bad row of a column, where there is one."""
        if bool(bad.any()):
            row = int(bad.argmax())
            value = self.columns[name][row]
            shown = value if isinstance(value, str) else f"{value:g}"
            raise DataError(
                f"{shown} {problem} ({int(bad.sum()):,} such rows)",
                file=self.file,
                field=name,
                row=row,
                remedy=remedy,
            )


def _log_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.suffix.lower() == ".csv" else None
    if not path.is_dir():
        return None
    files = [entry for entry in sorted(path.glob("*.csv")) if entry.name != ITEM_CONTEXT]
    return files[0] if len(files) == 1 else None


def _header(file: Path) -> list[str]:
    with file.open("rb") as stream:
        line = stream.readline(_HEADER_BYTES)
    text = line.decode("utf-8-sig", errors="replace")
    return [name.strip() for name in next(csv.reader([text]), list[str]())]


def _chunks(file: Path) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The header with some rows at a time, each as wide as the header."""
    with file.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        header = [name.strip() for name in next(reader, list[str]())]
        twice = next((name for name in header if header.count(name) > 1 and name not in _IGNORED), None)
        if twice is not None:
            raise DataError(
                "two columns have this name", file=file, field=twice, remedy="Rename one of them."
            )
        done = 0
        while chunk := list(itertools.islice(reader, _CHUNK)):
            for index, row in enumerate(chunk):
                if len(row) != len(header):
                    raise DataError(
                        f"{len(row)} cells, where the header names {len(header)}",
                        file=file,
                        row=done + index,
                        remedy=_REMEDY,
                    )
            done += len(chunk)
            yield header, chunk


def _numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        return None


def _no_number(file: Path, name: str, cells: Sequence[str], first: int) -> DataError:
    row = next((index for index, cell in enumerate(cells) if _numbers([cell]) is None), 0)
    return DataError(
        f"{cells[row]!r} is no number, as the column must hold",
        file=file,
        field=name,
        row=first + row,
        remedy=_REMEDY,
    )


def _items(table: _Table) -> tuple[AnyArray, tuple[str, ...]]:
    """`[n]` ids or labels of what was chosen, and the names of all items."""
    found = table.column(ITEM)
    if found is None:
        raise DataError("the column is missing", file=table.file, field=ITEM[0], remedy="Write it.")
    name, values = found
    if values.dtype.kind != "U":
        is_id = (values >= 0) & (values == np.floor(values)) & (values <= MAX_ID)
        table.refuse(name, ~is_id, "is no id of an item")
        values = values.astype(np.int64)
    beside = table.file.parent / ITEM_CONTEXT
    if beside.is_file():
        known = _known_items(beside)
    elif values.dtype.kind == "U":
        known = [str(label) for label in np.unique(values)]
    else:
        known = [str(item) for item in range(int(values.max()) + 1)]
    if len(known) > MAX_CHOICES:
        raise DataError(
            f"{len(known):,} items, where {MAX_CHOICES:,} are the most",
            file=table.file,
            field=name,
            remedy="Group the items, or take those of one campaign.",
        )
    remedy = f"Add the item to {beside.name}, or leave the row out."
    table.refuse(name, ~np.isin(values.astype(np.str_), known), f"is no item of {beside.name}", remedy)
    return values, tuple(known)


def _known_items(file: Path) -> list[str]:
    """Ids of all items in ascending order, numbers before texts."""
    rows = [row for _, chunk in _chunks(file) for row in chunk]
    header = _header(file)
    column = next((header.index(name) for name in ITEM if name in header), None)
    if column is None:
        raise DataError(f"no column {' or '.join(ITEM)}", file=file, remedy="Name the items.")
    labels = {row[column].strip() for row in rows}
    return sorted(
        labels, key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0, label)
    )


def _rewards(table: _Table) -> NDArray[np.float64]:
    name, values = table.numbers(REWARD)
    if name == "click":
        table.refuse(name, (values != 0) & (values != 1), "is neither 0 nor 1, as a click is")
    return values


def _propensities(table: _Table) -> NDArray[np.float64]:
    name, values = table.numbers(PROPENSITY)
    remedy = "Log the probability with which the item was chosen, more than 0 and at most 1."
    table.refuse(name, ~((values > 0) & (values <= 1)), "is no probability of what was chosen", remedy)
    return values


def _context(table: _Table) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """`[n, obs_dim]` with a name for each column; a constant 1 where a log has no context."""
    spoken = {found[0] for names in (ITEM, REWARD, PROPENSITY) if (found := table.column(names)) is not None}
    parts: list[NDArray[np.float32]] = []
    names: list[str] = []
    for name, values in table.columns.items():
        if name in spoken:
            continue
        if values.dtype.kind == "U" or name in POSITION:
            hot, labels = _one_hot(table, name, values)
            parts.append(hot)
            names += labels
        else:
            table.refuse(name, ~np.isfinite(values), "is not finite")
            parts.append(values.astype(np.float32)[:, None])
            names.append(name)
    if not parts:
        rows = len(next(iter(table.columns.values())))
        return np.ones((rows, 1), dtype=np.float32), ("no_context",)
    return np.concatenate(parts, 1), tuple(names)


def _one_hot(table: _Table, name: str, values: AnyArray) -> tuple[NDArray[np.float32], list[str]]:
    labels, index = np.unique(values, return_inverse=True)
    if len(labels) > MAX_LABELS:
        raise DataError(
            f"{len(labels):,} different texts, where {MAX_LABELS:,} are the most",
            file=table.file,
            field=name,
            remedy="Leave the column out, or write numbers that say what the texts have in common.",
        )
    hot = np.zeros((len(values), len(labels)), dtype=np.float32)
    hot[np.arange(len(values)), index.reshape(-1)] = 1.0
    shown = [f"{label:g}" if labels.dtype.kind == "f" else str(label) for label in labels.tolist()]
    return hot, [f"{name}={label}"[:MAX_NAME] for label in shown]


FORMATS.register("open_bandit")(OpenBanditFormat())
