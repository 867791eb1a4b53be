"""YAML text, read strictly and within bounds: a file can cost neither time nor memory, nor run code."""

import re
from typing import Any, Final, cast

import yaml

from mbrl.core.errors import ConfigError

MAX_TEXT: Final = 1_000_000
"""Longest document, characters."""

MAX_DEPTH: Final = 50
"""Deepest nesting of lists and mappings."""

FLOAT: Final = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)


class _StrictLoader(yaml.SafeLoader):
    """The safe loader with four differences.

    `3e-4` is a number (YAML 1.1 reads text), a key given twice is an error, and so are aliases, of which a
    few lines make gigabytes, and nesting beyond 50 levels.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not read: write it out", mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = cast("object", self.construct_object(key_node, deep=True))
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def parse_yaml(text: str, *, where: str) -> Any:
    """Reads one YAML value.

    Raises:
        ConfigError: the text is not valid YAML, gives a key twice, uses aliases, or is too long or too deep;
            the message names `where` and the line.
    """
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{where} has {len(text):,} characters, where {MAX_TEXT:,} are the most.")
    # besides errors of its own, the library lets those of odd dates, numbers and keys through
    errors = (yaml.YAMLError, ValueError, TypeError, OverflowError)
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except errors as error:
        problem = " ".join(str(error).split())[:500]
        raise ConfigError(f"{where} is not valid YAML: {problem}") from error
