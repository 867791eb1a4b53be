"""Columns of a dataset whose steps stay on disk: they are read from the file where they are asked for.

A file of the format `mapped` holds a row for every state, `[states, obs_dim + act_dim]`: the observation and
the action that was taken there, zeros after the last step of an episode. A step is the row of its state, and
its successor the row behind it.
"""

import dataclasses
import mmap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from mbrl.core.types import Episode
from mbrl.data.stored.memory import require_memory

_MUCH: Final = 1_000_000
"""Rows before whose loading the memory is asked."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredRows:
    """The file behind some steps, and where each lies in it.

    Attributes:
        rows: `[states, obs_dim + act_dim]`, the whole file, mapped into memory.
        slots: `[n]` int64, row of the state of each step.
        obs_dim: size of an observation.
        has_next: `[n]`, False in the last step of an episode.
    """

    rows: NDArray[np.float32]
    slots: NDArray[np.int64]
    obs_dim: int
    has_next: NDArray[np.bool_]

    @classmethod
    def find(cls, episodes: Sequence[Episode]) -> "StoredRows | None":
        """Those of episodes that are all views of one file; None for any others."""
        root = _root(episodes[0].observations)
        if root is None or root.ndim != 2:
            return None
        obs_dim = episodes[0].observations.shape[1]
        slots: list[NDArray[np.int64]] = []
        for episode in episodes:
            first = _slot(episode, root)
            if first is None:
                return None
            slots.append(np.arange(first, first + len(episode), dtype=np.int64))
        lengths = np.array([len(episode) for episode in episodes], dtype=np.int64)
        has_next = np.ones(int(lengths.sum()), dtype=np.bool_)
        has_next[np.cumsum(lengths) - 1] = False
        return cls(np.asarray(root), np.concatenate(slots), obs_dim, has_next)

    def column(self, name: str) -> "GatheredRows":
        """One of `observation`, `action`, `next_observation`, `next_action`."""
        is_next = name.startswith("next_")
        is_action = name.endswith("action")
        columns = slice(self.obs_dim, self.rows.shape[1]) if is_action else slice(0, self.obs_dim)
        blank = ~self.has_next if is_next and is_action else None
        return GatheredRows(self.rows[int(is_next) :], self.slots, columns, blank)


class GatheredRows:
    """`[n, d]` float32 rows of a mapped file, read when they are indexed.

    It behaves like a read-only array where that is indexed by rows, or by all rows and some columns; whoever
    asks NumPy for all of it gets a copy in memory, if that fits.

    Args:
        rows: `[states, width]`, the file.
        slots: `[n]`, which of its rows.
        columns: which of its columns.
        blank: `[n]`, rows that read as zeros; None for none.

    Raises:
        DataError: where all of it is asked for, and the memory does not suffice.
    """

    ndim: Final = 2
    dtype: Final = np.dtype(np.float32)

    def __init__(
        self,
        rows: NDArray[np.float32],
        slots: NDArray[np.int64],
        columns: slice,
        blank: NDArray[np.bool_] | None = None,
    ) -> None:
        self.rows, self.slots, self.columns, self.blank = rows, slots, columns, blank

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.slots), self.columns.stop - self.columns.start

    @property
    def nbytes(self) -> int:
        """Of all of it in memory."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.slots)

    def __repr__(self) -> str:
        return f"GatheredRows({list(self.shape)}, on disk)"

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, tuple):
            which, columns = cast("tuple[Any, Any]", index)
            if isinstance(which, slice) and which == slice(None):
                return self._columns(columns)
            return self[which][..., columns]
        slots = self.slots[index]
        if slots.size > _MUCH:
            size = slots.size * self.shape[1] * self.dtype.itemsize
            require_memory(size, f"An array of {slots.size:,} x {self.shape[1]} numbers")
        found = self.rows[:, self.columns][slots]
        if self.blank is not None:
            found[self.blank[index]] = 0.0
        return np.ascontiguousarray(found)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for row in range(len(self)):
            yield self[row]

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        del copy  # it is one
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def setflags(self, *, write: bool) -> None:
        """Nothing: what is read is a copy, and the file is never written."""
        del write

    def _columns(self, columns: Any) -> Any:
        first = self.columns.start
        if isinstance(columns, slice):
            start, stop, step = columns.indices(self.shape[1])
            if step == 1:
                return GatheredRows(self.rows, self.slots, slice(first + start, first + stop), self.blank)
        elif isinstance(columns, int):
            found = self.rows[:, first + columns % self.shape[1]][self.slots]
            if self.blank is not None:
                found[self.blank] = 0.0
            return found
        return self[:][:, columns]


if TYPE_CHECKING:
    Rows: TypeAlias = NDArray[Any]
else:
    Rows = np.ndarray | GatheredRows
"""`[n, d]`, an array for whoever indexes it by rows, wherever the rows are."""


def is_stored(values: Any) -> bool:
    """Whether an array, or what stands for one, is read from a mapped file."""
    return isinstance(values, GatheredRows) or (isinstance(values, np.ndarray) and _root(values) is not None)


def _root(array: NDArray[Any]) -> NDArray[Any] | None:
    """The array of the whole file that `array` is a view of; None for one in memory."""
    found: Any = array
    while isinstance(found.base, np.ndarray):
        found = found.base
    return found if isinstance(found.base, mmap.mmap) else None


def _slot(episode: Episode, root: NDArray[Any]) -> int | None:
    """Row of the file with the first state of an episode; None if it is no view of the file's rows."""
    obs, action = episode.observations, episode.actions
    if _root(obs) is not root or _root(action) is not root:
        return None
    width, obs_dim = root.shape[1], obs.shape[1]
    stride = width * root.itemsize
    if obs_dim + action.shape[1] != width or obs.strides != (stride, root.itemsize):
        return None
    places = [array.__array_interface__["data"][0] for array in (root, obs, action)]
    offset, rest = divmod(places[1] - places[0], stride)
    is_beside = places[2] == places[1] + obs_dim * root.itemsize
    return int(offset) if rest == 0 and is_beside else None
