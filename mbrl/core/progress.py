"""How long work tells that it goes on; the command line draws it, the library stays silent."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """A listener."""

    def start(self, label: str, total: int) -> None:
        """A piece of work of `total` steps begins."""
        ...

    def advance(self, done: int, **figures: float) -> None:
        """`done` steps of the current piece are over; `figures` are worth showing beside."""
        ...

    def finish(self) -> None:
        """The current piece is over."""
        ...

    def message(self, text: str) -> None:
        """One line that the user should read."""
        ...


class SilentProgress:
    """Tells nobody."""

    def start(self, label: str, total: int) -> None:
        """Nothing."""

    def advance(self, done: int, **figures: float) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""
