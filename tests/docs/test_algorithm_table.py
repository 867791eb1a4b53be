"""The tables of learners and recipes in the documents are those of the registries."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from mbrl.algorithms.base import RECIPES
from mbrl.learners.base import LEARNERS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "algorithm_table.py"
    spec = importlib.util.spec_from_file_location("algorithm_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documents_are_current(script: ModuleType) -> None:
    assert script.main(is_check=True) == 0


def test_every_entry_stands_in_the_table_with_its_settings(script: ModuleType) -> None:
    section = script.write_section("")
    for name in LEARNERS.names():
        assert f"\n| [{name}]({name}.md) | " in section
    for name in RECIPES.names():
        assert f"\n| [{name}]({name}.md) | " in section or name == "online"
    assert "| `bc` †, `bc_gaussian`, `bc_top10` † |" in section
    assert "| `edac` †, `sac_n` † |" in section  # where the learner is alone with the log


def test_a_stale_table_is_renewed_between_its_marks_and_nothing_else(script: ModuleType) -> None:
    text = (ROOT / "README.md").read_text()
    stale = text.replace("| [bcq](docs/algorithms/bcq.md)", "| [older](docs/algorithms/bcq.md)")
    assert stale != text
    assert script.renew(stale, "docs/algorithms/", where="README.md") == text
    with pytest.raises(SystemExit, match=r"README\.md has no lines <!-- algorithms"):
        script.renew("no marks", "", where="README.md")
