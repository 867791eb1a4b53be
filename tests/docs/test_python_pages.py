"""Pages, docstrings, the README and the notebook run as they stand, and the reference leaves no name out."""

import doctest
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import matplotlib as mpl
import pytest

import mbrl
from mbrl.api.catalogue import RegistryName

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "python").glob("*.md"))
BLOCK = re.compile(r"(<!-- shown[^\n]*\n)?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOTEBOOK = ROOT / "docs" / "tutorials" / "first-policy.ipynb"
QUICK_JUDGES = '{"max_updates": FIT_UPDATES, "draws": "mean", "starts": 4, "horizon": 5}'


def blocks(text: str) -> list[tuple[bool, str]]:
    """Every Python block, and whether it is only shown, since it takes minutes."""
    return [(bool(shown), code) for shown, code in BLOCK.findall(text)]


@pytest.fixture(autouse=True)
def _own_parts_go_again() -> Iterator[None]:
    """What pages register is theirs alone: other tests look at whole registries."""
    registries = [mbrl.registry(kind) for kind in get_args(RegistryName)]
    for registry in registries:
        registry.names()  # everything of the package is there first
    tables = [registry._table for registry in registries]
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for is_shown, code in blocks(page.read_text(encoding="utf-8")):
        compiled = compile(code, str(page), "exec")
        if not is_shown:
            exec(compiled, {"__name__": "page"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_that_is_only_shown_names_what_there_is(page: Path) -> None:
    for _, code in blocks(page.read_text(encoding="utf-8")):
        assert {name for name in re.findall(r"\bmbrl\.(\w+)\(", code)} <= set(dir(mbrl))


def test_the_reference_leaves_no_name_out() -> None:
    text = (ROOT / "docs" / "python" / "reference.md").read_text(encoding="utf-8")
    named = {line.rpartition(".")[2] for line in text.splitlines() if line.startswith(":::")}
    assert set(mbrl.__all__) <= named


def _examples() -> list[tuple[str, doctest.DocTest]]:
    finder, found = doctest.DocTestFinder(recurse=True, exclude_empty=True), []
    for name in mbrl.__all__:
        thing = getattr(mbrl, name)
        module = inspect.getmodule(thing)
        scope = {"mbrl": mbrl, "Dataset": mbrl.Dataset}
        found += [(test.name, test) for test in finder.find(thing, name, module=module, globs=scope)]
    return [(name, test) for name, test in found if test.examples]


EXAMPLES = _examples()


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(test, id=name, marks=[pytest.mark.slow] if name == "auto" else [])
        for name, test in EXAMPLES
        if name != "compare"  # the README's script, below, runs the same comparison
    ],
)
def test_the_example_of_a_docstring_is_right(
    example: doctest.DocTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(example, out=lines.append)
    assert runner.failures == 0, "".join(lines)


def test_every_name_has_an_example() -> None:
    assert {name.partition(".")[0] for name, _ in EXAMPLES} == set(mbrl.__all__)


def run_quickly(code: str, scope: dict[str, Any]) -> None:
    """Runs a piece of code at a size that shows that it runs, not what it reaches."""
    exec(compile(code, "code", "exec"), scope)


LOAD = 'mbrl.load("pendulum-mixed")'
FEW = f"{LOAD}.select(range(0, 70, 6))"
SMALL_FIT = {
    "max_updates": 40, "members": 2, "elites": 1, "hidden": [16],
    "assessment": {"horizon": 5, "segments": 20, "particles": 10, "bootstrap_draws": 20},
}  # fmt: skip


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell in order, with the numbers of its first cell made small."""
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    assert sum(len(source.splitlines()) for source in sources) <= 25
    assert "15_000, 3_000, 30_000" in sources[0]
    code = "\0".join(sources)
    for old, new in (
        ("15_000, 3_000, 30_000", "40, 40, 40"),
        (LOAD, FEW),
        ("max_updates=FIT_UPDATES, ", f"**{SMALL_FIT}, "),
        ('{"max_updates": FIT_UPDATES}', QUICK_JUDGES),
        ('mbrl.train(log, "bc", ', f'mbrl.train(log, "bc", dynamics={SMALL_FIT}, '),
        ("sims=64", 'sims=8, unsettled_critic="use"'),
    ):
        assert old in code, old
        code = code.replace(old, new)
    scope: dict[str, Any] = {"__name__": "notebook"}
    for source in code.split("\0"):
        run_quickly(source, scope)
    assert scope["plan"].act([1.0, 0.0, 0.0]).shape == (1,)
    assert "<table" in scope["run"]._repr_html_()


@pytest.mark.slow
def test_the_script_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script as it stands, each call made small; its comparison is that of the smoke config."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = next(code for _, code in blocks(text) if "mbrl.compare(" in code)
    lines = [line for line in code.splitlines() if line.strip()]
    assert 12 <= len(lines) <= 15
    for old, new in (
        (LOAD, FEW),
        ("mbrl.fit(log, seed=0)", f"mbrl.fit(log, seed=0, store='runs', **{SMALL_FIT})"),
        (
            '"mopo", dynamics=model, seed=0)',
            '"mopo", dynamics=model, seed=0, updates=30, select="last", store="runs")',
        ),
        ('"bc", seed=0)', '"bc", seed=0, updates=30, store="runs")'),
        ("episodes=10)", "episodes=1)"),
        ("[run, clone], log)", "[run, clone], log, updates=30, backtest=False, judges=0, store='runs')"),
        ("budget_ms=20)", "sims=8, fqe={'updates': 30}, certificate_states=0, gate={'by': 'none'})"),
        ('mbrl.compare("pendulum", jobs=2)', 'mbrl.catalogue("recipes")'),
    ):
        assert old in code, old
        code = code.replace(old, new)
    scope: dict[str, Any] = {"__name__": "readme"}
    run_quickly(code, scope)
    assert scope["action"].shape == (1,)
