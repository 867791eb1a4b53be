"""YAML text, read strictly and within bounds: a file can cost neither time nor memory, nor run code."""

import re
from typing import Any, Final, cast

import yaml
from yaml.composer import ComposerError

from mbrl.core.errors import ConfigError

MAX_TEXT: Final = 1_000_000
"""Longest document, characters; the longest of this package has 4,000."""

MAX_DEPTH: Final = 50
"""Deepest nesting of lists and mappings; configs of this package are 6 deep."""

MAX_VALUES: Final = 10_000
"""Most values of a document, keys included; those that an alias stands for count as often as it does."""

FLOAT: Final = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
"""What is a floating-point number: `3e-4`, which YAML 1.1 takes for text, is one."""

_TAG: Final = "tag:yaml.org,2002:"
_OTHER_TYPES: Final = ("binary", "set", "omap", "pairs")


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, but what grows when it is read is refused, and what no config holds.

    `3e-4` is a number. A key given twice is an error, and so are aliases that stand for many values, deep
    nesting, many values, integers beyond 63 bits, texts with a NUL, and bytes, sets and other types that no
    config has.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = cast("Any", self).peek_event()
        mark: Any = event.start_mark
        is_alias = isinstance(event, yaml.AliasEvent)
        self._depth += 1
        self._values += 1
        if self._depth > MAX_DEPTH:
            raise ComposerError(None, None, f"nested more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and is_alias:
            if id(node) not in self._sizes:  # it stands within what it names
                raise ComposerError(None, None, "aliases that lead to themselves", mark)
            self._values += self._sizes[id(node)]
        elif node is not None:
            self._sizes[id(node)] = 1 + sum(self._sizes[id(child)] for child in _children(node))
        if self._values > MAX_VALUES:
            problem = f"it holds more than {MAX_VALUES:,} values, or aliases that stand for as many"
            raise ComposerError(None, None, problem, mark)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value: Any = super().construct_scalar(node)
        if isinstance(value, str) and "\0" in value:
            raise yaml.constructor.ConstructorError(None, None, "a text holds a NUL", node.start_mark)
        return value

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= 2**63:
            raise yaml.constructor.ConstructorError(None, None, "an integer is too large", node.start_mark)
        return value

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


_StrictLoader.add_implicit_resolver(f"{_TAG}float", FLOAT, list("-+0123456789."))
_StrictLoader.add_constructor(f"{_TAG}int", cast("Any", _StrictLoader.construct_yaml_int))
for _name in _OTHER_TYPES:
    _StrictLoader.add_constructor(f"{_TAG}{_name}", cast("Any", _StrictLoader.construct_undefined))


def _children(node: yaml.Node) -> list[yaml.Node]:
    """What a node holds."""
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def parse_yaml(text: str, *, where: str) -> Any:
    """Reads one YAML value.

    Args:
        text: of the document.
        where: what is being read, for the message.

    Raises:
        ConfigError: the text is not valid YAML, gives a key twice, or is too long, too deep or too large; the
            message names `where` and the line.
    """
    remedy = "Remedy: correct the place that is named."
    if len(text) > MAX_TEXT:
        raise ConfigError(
            f"{where} has {len(text):,} characters, where {MAX_TEXT:,} are the most. Remedy: name a config."
        )
    # besides errors of its own, the library lets those of odd numbers, keys and tags through
    errors = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except errors as error:
        problem = " ".join(str(error).split())[:500].rstrip(".")
        raise ConfigError(f"{where} is not valid YAML: {problem}. {remedy}") from error
