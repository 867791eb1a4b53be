"""From text to an expression: Python's own parser, and a list of what is allowed.

The text is never compiled or run. Names that are no identifiers stand between backticks, as in pandas:
`` `motor speed` ``. What is not on the list is refused with its position.
"""

import ast
import math
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from mbrl.core.errors import ConfigError
from mbrl.core.names import listed, suggest
from mbrl.data.expressions.functions import CONSTANTS, SIGNATURES
from mbrl.data.expressions.tree import Expression, Name, Node, Number, Operation, leaves

MAX_LENGTH: Final = 4_000
"""Characters of an expression."""

MAX_DEPTH: Final = 100
"""Operations inside each other."""

_SHOWN_NAMES: Final = 30
_FIRST_PLACEHOLDER: Final = 0x4E00  # letters of one character, which stand for names in backticks
_QUOTED: Final = re.compile(r"`([^`]*)`")
_BINARY: Final[Mapping[type[ast.operator], str]] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Mod: "%",
    ast.Pow: "**",
}
_COMPARED: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
}
_REFUSED: Final[Mapping[type[ast.expr], str]] = {
    ast.Attribute: "a dot; write a name with dots between backticks",
    ast.Subscript: "brackets; write a name with brackets between backticks",
    ast.IfExp: "if ... else; write where(condition, x, y)",
    ast.Lambda: "a function definition",
    ast.NamedExpr: "an assignment",
    ast.JoinedStr: "a text",
}


class ExpressionError(ConfigError):
    """An expression that cannot be read.

    Args:
        problem: what is wrong.
        text: the expression.
        position: of the character where it is wrong, from 1; None for the whole.
    """

    def __init__(self, problem: str, text: str, position: int | None = None) -> None:
        self.problem, self.position = problem, position
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        where = "" if position is None else f", at character {position}"
        super().__init__(f"Expression {shown!r}{where}: {problem}.")


def parse_expression(text: str, *, known: Collection[str] | None = None) -> Expression:
    """Reads an expression.

    It may hold numbers, names, `+ - * / % **`, comparisons, `and`, `or`, `not`, the constant `pi` and the
    functions of `SIGNATURES`.

    Args:
        text: the expression.
        known: names that it may read; None permits any.

    Raises:
        ExpressionError: it is no expression, holds what is not allowed, or reads an unknown name; the message
            gives the position and the nearest name.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"{len(text):,} characters, where {MAX_LENGTH:,} are the most", text)
    source, quoted = _hide_quoted(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of doubtful literals, which are then refused
            tree = ast.parse(source.lstrip(), mode="eval")
    except SyntaxError as error:
        raise ExpressionError(f"no expression ({error.msg})", text, error.offset) from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise ExpressionError(f"no expression ({str(error)[:80] or type(error).__name__})", text) from error
    root = _Reader(text, source, quoted).read(tree.body, 0)
    expression = Expression(text, root)
    if known is not None:
        for leaf in leaves(root):
            if leaf.name not in known:
                raise _unknown(leaf, text, known)
    return expression


def _hide_quoted(text: str) -> tuple[str, dict[str, str]]:
    """The text with a letter and spaces for each name in backticks, and what the letters stand for."""
    one_line = re.sub(r"\s", " ", text)
    if "`" not in text:
        return one_line, {}
    letters = (chr(code) for code in range(_FIRST_PLACEHOLDER, 0x9FFF) if chr(code) not in text)
    quoted: dict[str, str] = {}

    def hide(match: re.Match[str]) -> str:
        letter = next(letters)
        quoted[letter] = match[1]
        return letter.ljust(len(match[0]))

    hidden = _QUOTED.sub(hide, one_line)
    if "`" in hidden:
        raise ExpressionError("a backtick without its partner", text, hidden.index("`") + 1)
    return hidden, quoted


def _unknown(leaf: Name, text: str, known: Collection[str]) -> ExpressionError:
    some = sorted(known)[:_SHOWN_NAMES]
    more = "" if len(known) <= _SHOWN_NAMES else f" and {len(known) - _SHOWN_NAMES} more"
    name = leaf.name if len(leaf.name) <= 60 else f"{leaf.name[:60]}..."
    problem = f"unknown name {name!r}. {suggest(leaf.name, known)}Names here: {listed(some)}{more}"
    return ExpressionError(problem, text, leaf.position)


class _Reader:
    """Turns nodes of Python's syntax tree into ours, and refuses all others."""

    def __init__(self, text: str, source: str, quoted: Mapping[str, str]) -> None:
        self._text, self._source, self._quoted = text, source, quoted
        self._readers: dict[type[ast.expr], Callable[[Any, int], Node]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.BinOp: self._binary,
            ast.UnaryOp: self._unary,
            ast.BoolOp: self._junction,
            ast.Compare: self._compare,
            ast.Call: self._call,
        }

    def read(self, node: ast.expr, depth: int) -> Node:
        """One node and what is below it."""
        if depth > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} operations inside each other", node)
        reader = self._readers.get(type(node))
        if reader is None or (isinstance(node, ast.BinOp) and type(node.op) not in _BINARY):
            what = _REFUSED.get(type(node), "something that is not allowed")
            allowed = f"numbers, names, + - * / % **, comparisons, and, or, not, {listed(SIGNATURES)}"
            raise self._error(f"{what}. Allowed are {allowed}", node)
        return reader(node, depth + 1)

    def _binary(self, node: ast.BinOp, depth: int) -> Node:
        return Operation(_BINARY[type(node.op)], (self.read(node.left, depth), self.read(node.right, depth)))

    def _junction(self, node: ast.BoolOp, depth: int) -> Node:
        name = "and" if isinstance(node.op, ast.And) else "or"
        return self._chain(node, name, [self.read(value, depth) for value in node.values])

    def _constant(self, node: ast.Constant, _: int) -> Number:
        value = node.value
        if isinstance(value, bool):
            return Number(float(value))
        if not isinstance(value, (int, float)):
            raise self._error("a constant that is no number", node)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error("a number that is too large", node)
        return Number(number)

    def _name(self, node: ast.Name, _: int) -> Node:
        if node.id in self._quoted:
            return Name(self._quoted[node.id], self._position(node))
        if node.id in SIGNATURES:
            raise self._error(f"the function {node.id} without arguments: {SIGNATURES[node.id].usage}", node)
        return Number(CONSTANTS[node.id]) if node.id in CONSTANTS else Name(node.id, self._position(node))

    def _unary(self, node: ast.UnaryOp, depth: int) -> Node:
        operand = self.read(node.operand, depth)
        if isinstance(node.op, ast.UAdd):
            return operand
        if isinstance(node.op, (ast.USub, ast.Not)):
            return Operation("negative" if isinstance(node.op, ast.USub) else "not", (operand,))
        raise self._error("the operator ~; write not", node)

    def _compare(self, node: ast.Compare, depth: int) -> Node:
        terms = [self.read(term, depth) for term in (node.left, *node.comparators)]
        links: list[Node] = []
        for place, operator in enumerate(node.ops):
            if type(operator) not in _COMPARED:
                raise self._error("a comparison other than < <= > >= == !=", node)
            links.append(Operation(_COMPARED[type(operator)], (terms[place], terms[place + 1])))
        return self._chain(node, "and", links)

    def _call(self, node: ast.Call, depth: int) -> Node:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name is None or name not in SIGNATURES:
            hint = "" if name is None else suggest(name, SIGNATURES)
            raise self._error(f"an unknown function. {hint}Functions: {listed(SIGNATURES)}", node)
        signature = SIGNATURES[name]
        is_plain = not node.keywords and not any(isinstance(a, ast.Starred) for a in node.args)
        if not is_plain or not signature.least <= len(node.args) <= signature.most:
            raise self._error(f"{name} is written {signature.usage}", node)
        return Operation(name, tuple(self.read(argument, depth) for argument in node.args))

    def _chain(self, node: ast.expr, name: str, terms: list[Node]) -> Node:
        if len(terms) > MAX_DEPTH:
            raise self._error(f"more than {MAX_DEPTH} conditions in a row", node)
        first, *others = terms
        for other in others:
            first = Operation(name, (first, other))
        return first

    def _error(self, problem: str, node: ast.expr) -> ExpressionError:
        return ExpressionError(problem, self._text, self._position(node))

    def _position(self, node: ast.expr) -> int:
        """Character of the text, from 1; the syntax tree counts bytes after the leading blanks."""
        line = self._source.lstrip()
        blanks = len(self._source) - len(line)
        return blanks + len(line.encode()[: node.col_offset].decode(errors="ignore")) + 1
