"""Watches what an update does to tensors."""

import contextlib
from collections.abc import Generator, Sequence
from typing import Any, cast
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS = ("_local_scalar_dense", "equal.default", "is_nonzero")
_DEPARTURES = ("numpy", "tolist")


class Audit(TorchDispatchMode):
    """Notes reads of a number out of a tensor, and tensors with a row for each logged transition.

    Args:
        rows: of the log, whose copies are noted; None to note none.
    """

    def __init__(self, rows: int | None) -> None:
        super().__init__()
        self.rows = rows
        self.reads: list[str] = []
        self.copies: list[str] = []
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> "Audit":
        self._patches.enter_context(self._departures_are_noted())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operation, and looks at its name and at what it returns."""
        result = func(*args, **(kwargs or {}))
        name = str(func)
        if any(read in name for read in _READS):
            self.reads.append(name)
        for value in _parts(result):
            if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == self.rows:
                self.copies.append(name)
        return result

    @contextlib.contextmanager
    def _departures_are_noted(self) -> Generator[None]:
        """`Tensor.numpy` and `Tensor.tolist` pass the dispatcher by."""
        with contextlib.ExitStack() as stack:
            for name in _DEPARTURES:
                leave = getattr(torch.Tensor, name)

                def noted(tensor: torch.Tensor, *args: Any, name: str = name, leave: Any = leave) -> Any:
                    self.reads.append(f"Tensor.{name}")
                    return leave(tensor, *args)

                stack.enter_context(mock.patch.object(torch.Tensor, name, noted))
            yield


def _parts(result: object) -> Sequence[object]:
    """The results of an operation that has several, or the one that it has."""
    return cast("Sequence[object]", result) if isinstance(result, tuple | list) else (result,)
