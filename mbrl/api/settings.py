"""Keyword arguments of the API as overrides of a config, checked like those of the command line."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from mbrl.run.config import RunConfig
from mbrl.run.documents import KeyPath, Override

_SECTIONS = frozenset(RunConfig.model_fields) - {"recipe"}


def named_overrides(keywords: Mapping[str, Any], *, home: str | None = "algorithm") -> list[Override]:
    """Dotted keys and values; mappings set what they name and leave the rest.

    Args:
        keywords: by name or dotted name.
        home: section of a key whose first part is no section of a run's config; None for no such section.
    """
    found: list[Override] = []
    for name, value in keywords.items():
        path = tuple(name.split("."))
        if home is not None and path[0] not in _SECTIONS:
            path = (home, *path)
        found += _leaves(path, value)
    return found


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in cast("Mapping[str, Any]", value).items():
            yield from _leaves((*path, *str(key).split(".")), below)
    else:
        yield path, list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
