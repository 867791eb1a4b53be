"""Name -> thing tables, filled by decorators and found by importing a package."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from mbrl.core.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """A table of named things; duplicate and unknown names are errors.

    Args:
        kind: what the entries are, for messages ("uncertainty measure").
        package: dotted package whose modules register entries when they are imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self._kind = kind
        self._package = package
        self._table: dict[str, T] = {}
        self._descriptions: dict[str, str] = {}
        self._is_loaded = False

    def register(self, name: str, description: str | None = None) -> Callable[[T], T]:
        """Files the decorated thing under `name`.

        Args:
            name: the public id.
            description: one line for `mbrl list`; the first docstring line when None.
        """

        def add(thing: T) -> T:
            if name in self._table:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            self._table[name] = thing
            self._descriptions[name] = description or (inspect.getdoc(thing) or "").partition("\n")[0]
            return thing

        return add

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        self._load()
        return tuple(sorted(self._table))

    def describe(self) -> dict[str, str]:
        """One line for each name."""
        return {name: self._descriptions[name] for name in self.names()}

    def get(self, name: str) -> T:
        """Looks `name` up.

        Raises:
            ConfigError: the name is unknown; the message lists the legal ones.
        """
        self._load()
        try:
            return self._table[name]
        except KeyError:
            known = ", ".join(self.names())
            raise ConfigError(f"Unknown {self._kind} {name!r}. Legal names: {known}.") from None

    def _load(self) -> None:
        if self._is_loaded:
            return
        package = importlib.import_module(self._package)
        for info in pkgutil.walk_packages(package.__path__, f"{self._package}."):
            importlib.import_module(info.name)
        self._is_loaded = True
