"""Every flag that an estimate may carry is explained, and none that it cannot carry."""

import ast
from collections.abc import Iterator
from pathlib import Path

import mbrl.ope
from mbrl.report.deployment.flags import FLAGS, flag_table

SOURCES = [path.read_text() for path in Path(mbrl.ope.__path__[0]).glob("*.py")]


def flags_set_by_name() -> Iterator[str]:
    """Words that stand in the calls which set flags: `e.flagged("x")`, `e.invalidated(reason, "x")`."""
    for node in (node for text in SOURCES for node in ast.walk(ast.parse(text))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            skipped = {"flagged": 0, "invalidated": 1}.get(node.func.attr)
            words = [] if skipped is None else node.args[skipped:]
            yield from (word.value for word in words if isinstance(word, ast.Constant))


def test_flags_are_explained() -> None:
    used = set(flags_set_by_name())
    assert {"not_converged", "fails_backtest", "exploitation_alarm", "unreliable_tail"} <= used <= set(FLAGS)
    text = "".join(SOURCES)
    assert [flag for flag in FLAGS if f'"{flag}' not in text] == []


def test_each_flag_names_its_estimators() -> None:
    report = {
        "candidate": "bc-s0",
        "estimates": [
            {"name": "dr", "flags": ["no_crossfit", "low_ess"]},
            {"name": "is", "flags": ["low_ess"]},
            {"name": "fqe", "flags": []},
        ],
    }
    rows = flag_table(report).rows
    assert [row[:2] for row in rows] == [["low_ess", "dr, is"], ["no_crossfit", "dr"]]
    assert all(row[2] for row in rows)
    assert flag_table({**report, "estimates": []}).rows == []
