"""Named columns of numbers against one clock: what readers of raw logs give to the import by schema."""

import dataclasses
from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError

NANOSECONDS: Final = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TimeTable:
    """Rows of one source (a topic, a file), in the order of their stamps.

    Attributes:
        name: of the source, such as `/joint_states`.
        columns: names, each once.
        values: `[rows, columns]` float64, NaN where a row lacks a number.
        stamps: `[rows]` float64, seconds since `start`; never falling.
        start: nanoseconds since 1970 that `stamps` count from: the same for all tables of one log.
        notes: what was left out on reading, counted by reason.

    Raises:
        DataError: sizes disagree, a name is there twice, or the clock runs backwards.
    """

    name: str
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    stamps: NDArray[np.float64]
    start: int = 0
    notes: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.stamps), len(self.columns)) or self.stamps.ndim != 1:
            raise DataError(
                f"values of shape {self.values.shape} for {len(self.stamps)} stamps and "
                f"{len(self.columns)} columns",
                field=self.name,
                remedy="Give one row per stamp and one number per column.",
            )
        if len(set(self.columns)) < len(self.columns):
            twice = next(name for name in self.columns if self.columns.count(name) > 1)
            raise DataError(f"the column {twice!r} is there twice", field=self.name, remedy="Rename one.")
        if bool((~(np.diff(self.stamps) >= 0)).any()):
            raise DataError("the clock runs backwards", field=self.name, remedy="Sort the rows by time.")
        self.values.setflags(write=False)
        self.stamps.setflags(write=False)

    def __len__(self) -> int:
        return len(self.stamps)

    def __repr__(self) -> str:
        return f"TimeTable({self.name!r}, {len(self):,} rows of {', '.join(self.columns)})"

    def column(self, name: str) -> NDArray[np.float64]:
        """`[rows]` of one column.

        Raises:
            KeyError: there is none of that name.
        """
        if name not in self.columns:
            raise KeyError(name)
        return self.values[:, self.columns.index(name)]
