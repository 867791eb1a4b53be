"""What every function of the Python API returns: it shows itself, and it becomes plain values."""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mbrl.report.kit.html import Section
    from mbrl.report.kit.table import Table


class Result(abc.ABC):
    """A result that a terminal, a notebook and a program can read.

    `repr` is one line, `print` shows the tables, a notebook draws them, and `to_dict` holds all values.
    """

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain values, those that the command line prints with `--json`; NaN and infinities become None."""

    @abc.abstractmethod
    def tables(self) -> "Sequence[Table]":
        """What people read."""

    @abc.abstractmethod
    def _headline(self) -> str:
        """The few words of `repr` that matter most."""

    def opening(self) -> Sequence[str]:
        """Sentences above the tables: what they answer."""
        return ()

    def messages(self) -> Sequence[str]:
        """Sentences below the tables: conclusions and warnings."""
        return ()

    def sections(self) -> "Sequence[Section]":
        """What a notebook shows; figures where a picture says more than a table."""
        from mbrl.report.kit.html import Section

        return [Section(type(self).__name__, text="\n".join(self.messages()), tables=self.tables())]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._headline()})"

    def __str__(self) -> str:
        from mbrl.report.kit.table import to_text

        return "\n".join([*self.opening(), to_text(self.tables()).rstrip("\n"), *self.messages()])

    def _repr_html_(self) -> str:
        from mbrl.report.kit.html import fragment

        return fragment(self.sections(), plain=str(self))


class PlainResult(Result):
    """A result without a face of its own.

    Args:
        values: plain values.
        tables: what people read.
        messages: sentences below the tables.
        title: for `repr`.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        tables: "Sequence[Table]" = (),
        messages: Sequence[str] = (),
        *,
        title: str = "",
    ) -> None:
        self._values, self._tables, self._messages, self._title = values, tables, messages, title

    def to_dict(self) -> dict[str, Any]:
        """The values."""
        return jsonable(self._values)

    def tables(self) -> "Sequence[Table]":
        """What people read."""
        return self._tables

    def messages(self) -> Sequence[str]:
        """Sentences below the tables."""
        return self._messages

    def _headline(self) -> str:
        return self._title


def jsonable(value: Any) -> Any:
    """Plain values that strict JSON can hold: NaN and infinities become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry) for key, entry in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in cast("list[Any]", value)]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
