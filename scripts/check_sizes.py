"""Holds the package to its sizes: files of a folder, lines of a module and of a function."""

import ast
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

FOLDER_FILES: Final = 20
MODULE_LINES: Final = 400
FUNCTION_LINES: Final = 60
MEDIAN_LINES: Final = 10


def function_lines(source: str) -> Iterator[tuple[str, int]]:
    """Name and length of every function and method, from its `def` to its last line, docstring included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def find_excesses(roots: Sequence[Path]) -> list[str]:
    """One line for each folder, module and function below `roots` that is too large, and for the median."""
    excesses: list[str] = []
    lengths: list[int] = []
    for folder in sorted({path.parent for root in roots for path in root.rglob("*.py")}):
        modules = sorted(folder.glob("*.py"))
        if len(modules) > FOLDER_FILES:
            excesses.append(f"{folder}: {len(modules)} Python files, {FOLDER_FILES} at most")
        for module in modules:
            source = module.read_text(encoding="utf-8")
            lines = len(source.splitlines())
            if lines > MODULE_LINES:
                excesses.append(f"{module}: {lines} lines, {MODULE_LINES} at most")
            for name, length in function_lines(source):
                lengths.append(length)
                if length > FUNCTION_LINES:
                    excesses.append(f"{module}: {name} has {length} lines, {FUNCTION_LINES} at most")
    median = statistics.median(lengths) if lengths else 0
    if median > MEDIAN_LINES:
        excesses.append(f"the median function has {median:g} lines, {MEDIAN_LINES} at most")
    return excesses


def main(roots: list[str]) -> int:
    """Prints what is too large; the exit status of the check."""
    excesses = find_excesses([Path(root) for root in roots])
    print(*excesses, sep="\n", end="\n" if excesses else "")  # noqa: T201 - this is a program
    return 1 if excesses else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["mbrl", "scripts"]))
