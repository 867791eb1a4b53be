"""YAML documents: read strictly, overridden by dotted keys, written with the origin of every value."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import yaml

from mbrl.core.errors import ConfigError, FileError
from mbrl.envs.documents import FLOAT, MAX_TEXT, parse_yaml
from mbrl.run.files import read_file

Tree: TypeAlias = dict[str, Any]
KeyPath: TypeAlias = tuple[str, ...]
Override: TypeAlias = str | tuple[KeyPath, Any]
"""A change of a config: `dotted.key=value`, or the path of the key and the value."""

_SHOWN: Final = 200


def read_yaml(path: Path) -> Tree:
    """Reads a file whose top level is a mapping.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML, or holds something else.
    """
    remedy = "name a YAML file of this package."
    try:
        text = read_file(path, remedy=remedy, limit=MAX_TEXT).decode()
    except UnicodeDecodeError as error:
        raise FileError(path, f"it is not text in UTF-8 ({error})", remedy=remedy) from error
    return as_tree(parse_yaml(text, where=f"Config file {path}"), where=f"Config file {path}")


def as_tree(value: Any, *, where: str) -> Tree:
    """`value` as a mapping with text keys; an empty document is an empty mapping.

    Raises:
        ConfigError: it is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in cast("dict[Any, Any]", value)):
        raise ConfigError(
            f"{where} must hold a mapping of names to values, not {show(value)}. "
            "Remedy: write lines `key: value`."
        )
    return cast("Tree", value)


def show(value: Any) -> str:
    """A value as it stands in a message: whole if it is short."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """Splits `algorithm.rollout.horizon=3` into its key path and its YAML value.

    Raises:
        ConfigError: there is no `=`, or a part of the key is empty.
    """
    key, equals, value = text.partition("=")
    parts = tuple(part.strip() for part in key.split("."))
    if not equals or not all(parts):
        raise ConfigError(
            f"--set {text!r} is not of the form key=value. Example: --set algorithm.rollout.horizon=3."
        )
    return parts, parse_yaml(value, where=f"The value of --set {key}")


def read_overrides(changes: Iterable[Override]) -> list[tuple[KeyPath, Any]]:
    """Key paths and values of changes in either form.

    Raises:
        ConfigError: see `parse_override`.
    """
    return [parse_override(change) if isinstance(change, str) else change for change in changes]


def set_at(tree: Tree, path: KeyPath, value: Any) -> None:
    """Sets one value, making the mappings on the way.

    Raises:
        ConfigError: a value on the way is not a mapping.
    """
    *parents, last = path
    for depth, key in enumerate(parents):
        child: Any = tree.setdefault(key, {})
        if not isinstance(child, dict):
            above = ".".join(parents[: depth + 1])
            raise ConfigError(f"--set {'.'.join(path)}: {above} is {show(child)}, which has no keys.")
        tree = cast("Tree", child)
    tree[last] = value


def leaf_paths(tree: Mapping[str, Any], prefix: KeyPath = ()) -> list[KeyPath]:
    """Key paths of everything in `tree` that is not itself a non-empty mapping, in order."""
    paths: list[KeyPath] = []
    for key, value in tree.items():
        path = (*prefix, str(key))
        paths.extend(leaf_paths(cast("Tree", value), path) if isinstance(value, dict) and value else [path])
    return paths


def annotate(tree: Mapping[str, Any], origins: Mapping[KeyPath, str], prefix: KeyPath = ()) -> str:
    """YAML text of `tree` with the origin of every leaf as a comment; reads back as the same values."""
    lines: list[str] = []
    for key, value in tree.items():
        path, indent = (*prefix, str(key)), "  " * len(prefix)
        name = _inline(str(key))
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", annotate(cast("Tree", value), origins, path).rstrip("\n")]
        else:
            lines.append(f"{indent}{name}: {_inline(value)}  # {origins.get(path, 'default')}")
    return "\n".join(lines) + "\n"


class _LineDumper(yaml.SafeDumper):
    """The safe dumper, but text that would take several lines is quoted and escaped onto one."""

    def represent_text(self, value: str) -> yaml.ScalarNode:
        is_plain = value.isascii() and value.isprintable()
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_plain else '"')


_LineDumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
_LineDumper.add_representer(str, _LineDumper.represent_text)


def _inline(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_LineDumper, default_flow_style=True, width=10**9)
    return text.removesuffix("...\n").strip()
