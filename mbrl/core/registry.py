"""Tables of named things: of our own modules, of installed distributions, of whatever the user imports."""

import dataclasses
import importlib
import importlib.metadata
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from typing import Any, Generic, TypeVar

from mbrl.core.errors import ConfigError
from mbrl.core.names import listed, suggest

T = TypeVar("T")


class PluginWarning(UserWarning):
    """An installed distribution announces entries, and they cannot be loaded."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    """A row of the table.

    Attributes:
        thing: what is registered.
        description: one line.
        module: whose import registered it.
    """

    thing: T
    description: str
    module: str


class Registry(Generic[T]):
    """A table of named things; duplicate and unknown names are errors.

    Entries come from three places, looked at when they are first needed and once:

    - every module below `package`, whose import registers them by the decorator `register`;
    - entry points of the group `group`, which installed distributions declare. Their value is a thing
      (`my_package.learner:MyLearner`), filed under the entry point's name, or a module whose import
      registers. One that cannot be loaded is left out with a `PluginWarning`, and the others stay;
    - modules that the user imports, by the same decorator.

    Args:
        kind: what the entries are, for messages ("uncertainty measure").
        package: dotted package whose modules register entries when they are imported.
        group: of entry points, or None where nobody else may register.
        spelling: how users write this table, for the message that tells how to register.
        needs: attributes that every entry has.
    """

    def __init__(
        self,
        kind: str,
        package: str,
        *,
        group: str | None = None,
        spelling: str | None = None,
        needs: Sequence[str] = (),
    ) -> None:
        self._kind, self._package, self._group = kind, package, group
        self._spelling, self._needs = spelling, tuple(needs)
        self._table: dict[str, _Entry[T]] = {}
        self._is_loaded = False
        self._untried: list[EntryPoint] | None = None
        self._broken: dict[str, str] = {}
        self._distributions: dict[str, str] = {}

    def register(self, name: str, description: str | None = None) -> Callable[[T], T]:
        """Files the decorated thing under `name`.

        Args:
            name: the public id.
            description: one line for `mbrl list`; the first docstring line when None.

        Raises:
            ValueError: the name is taken.
            TypeError: the thing lacks what every entry has.
        """

        def add(thing: T) -> T:
            self._add(name, thing, description, module=_importing_module())
            return thing

        return add

    def names(self) -> tuple[str, ...]:
        """All names, sorted, our own first: whoever asks one after the other asks ours as before."""
        self._load_own()
        self._load_plugins()
        return tuple(sorted(self._table, key=lambda name: (not self._is_own(self._table[name].module), name)))

    def describe(self) -> dict[str, str]:
        """One line for each name."""
        return {name: self._table[name].description for name in self.names()}

    def origin(self, name: str) -> str | None:
        """Distribution and version, or the module, that an entry comes from; None for our own.

        Raises:
            ConfigError: see `get`.
        """
        module = self._look_up(name).module
        return None if self._is_own(module) else self._distributions.get(_root(module), f"module {module}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._is_found(name)

    def get(self, name: str) -> T:
        """Looks `name` up; a plugin is not imported for a name that is found without it.

        Raises:
            ConfigError: the name is unknown; the message gives the nearest one, the legal ones, and how to
                register another.
        """
        return self._look_up(name).thing

    def explain_unknown(self, name: str) -> str:
        """What to say behind "is unknown": the nearest name, the legal names, how to register one."""
        legal = self.names()
        if name in self._broken:
            return self._broken[name]
        return f"{suggest(name, legal)}Legal names: {listed(legal)}.{self._how_to_register(name)}"

    def _how_to_register(self, name: str) -> str:
        ways: list[str] = []
        if self._spelling is not None:
            ways.append(f"@{self._spelling}.register({name!r}) in a module that you import")
        if self._group is not None:
            ways.append(f"an entry point of the group {self._group!r} in an installed package")
        return f" To add your own: {', or '.join(ways)}." if ways else ""

    def _add(self, name: str, thing: Any, description: str | None, *, module: str) -> None:
        if name in self._table:
            first = self._table[name].module
            raise ValueError(f"{self._kind} {name!r} is registered twice, by {first} and by {module}")
        missing = [attribute for attribute in self._needs if not hasattr(thing, attribute)]
        if missing:
            raise TypeError(
                f"the {self._kind} {name!r} of {module} lacks {', '.join(missing)}: "
                f"every {self._kind} has {', '.join(self._needs)}"
            )
        line = description or (inspect.getdoc(thing) or "").partition("\n")[0]
        self._table[name] = _Entry(thing, line, module)

    def _look_up(self, name: str) -> _Entry[T]:
        if not self._is_found(name):
            raise ConfigError(f"Unknown {self._kind} {name!r}. {self.explain_unknown(name)}")
        return self._table[name]

    def _is_found(self, name: str) -> bool:
        """Whether there is such an entry; looks no further than it must."""
        self._load_own()
        if name not in self._table:
            self._load_plugins(name)
        if name not in self._table:
            self._load_plugins()  # a module may register more names than that of its entry point
        return name in self._table

    def _load_own(self) -> None:
        if self._is_loaded:
            return
        package = importlib.import_module(self._package)
        for info in pkgutil.walk_packages(package.__path__, f"{self._package}."):
            importlib.import_module(info.name)
        self._is_loaded = True

    def _load_plugins(self, name: str | None = None) -> None:
        """Loads the entry points called `name`, or all, that were not tried before."""
        if self._group is None:
            return
        if self._untried is None:
            self._untried = list(importlib.metadata.entry_points(group=self._group))
        chosen = [point for point in self._untried if name is None or point.name == name]
        self._untried = [point for point in self._untried if point not in chosen]
        problems = [problem for point in chosen if (problem := self._try_plugin(point)) is not None]
        if name is not None and name not in self._table:
            return  # the look-up fails, and its message is this problem
        # After all are loaded: where warnings are errors, the first ends the call.
        for problem in problems:
            warnings.warn(problem, PluginWarning, stacklevel=2)

    def _try_plugin(self, point: EntryPoint) -> str | None:
        """Loads one entry point; says what is wrong with one that is broken, and leaves no part of it."""
        before = dict(self._table)
        try:
            self._load_plugin(point)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the other entries must stay
            self._table = before
            problem = (
                f"The {self._kind} {point.name!r} of the distribution {_distribution(point)} "
                f"cannot be loaded: {type(error).__name__}: {error}. Its entry point in the group "
                f"{self._group!r} is {point.value!r}. Remedy: mend or uninstall the distribution."
            )
            self._broken[point.name] = problem
            return problem
        return None

    def _load_plugin(self, point: EntryPoint) -> None:
        thing = point.load()
        self._distributions[_root(point.module)] = _distribution(point)
        known = self._table.get(point.name)
        if point.attr:
            # The class may have been filed already, by the decorator that its module runs.
            if known is None or known.thing is not thing:
                self._add(point.name, thing, None, module=point.module)
        elif not any(_root(entry.module) == _root(point.module) for entry in self._table.values()):
            raise TypeError(f"the module registers no {self._kind}; name the thing itself, as module:name")

    def _is_own(self, module: str) -> bool:
        return _root(module) == _root(self._package)


def _root(module: str) -> str:
    return module.partition(".")[0]


def _distribution(point: EntryPoint) -> str:
    return "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _importing_module() -> str:
    """The module whose import is in progress: the nearest frame that runs a module and not a function."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return "__main__" if frame is None else str(frame.f_globals.get("__name__", "__main__"))
