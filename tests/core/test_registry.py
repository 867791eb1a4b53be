import sys
import uuid

import pytest

from mbrl.core.errors import ConfigError
from mbrl.core.registry import Registry


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `<name>` with room for entry modules, importable for one test."""
    name = f"plugins_{uuid.uuid4().hex}"
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "__init__.py").write_text("from mbrl.core.registry import Registry\n")
    with (folder / "__init__.py").open("a") as file:
        file.write(f"TABLE = Registry('thing', '{name}')\n")
    yield name, folder
    for module in [m for m in sys.modules if m.startswith(name)]:
        del sys.modules[module]


def table_of(name: str) -> Registry:
    return __import__(name).TABLE


def test_entries_are_found_by_importing_the_package_on_first_use(package):
    name, folder = package
    (folder / "one.py").write_text(
        f"from {name} import TABLE\n\n@TABLE.register('b')\ndef f():\n    '''Bee.'''\n"
    )
    (folder / "two.py").write_text(
        f"from {name} import TABLE\n\n@TABLE.register('a', 'Ay.')\ndef g():\n    '''G.'''\n"
    )
    table = table_of(name)
    assert table.names() == ("a", "b")
    assert table.describe() == {"a": "Ay.", "b": "Bee."}
    assert table.get("b").__name__ == "f"


def test_unknown_names_are_refused_with_the_legal_ones_and_never_matched_in_part(package):
    name, folder = package
    (folder / "one.py").write_text(f"from {name} import TABLE\nTABLE.register('medium-replay')(len)\n")
    with pytest.raises(ConfigError, match=r"Unknown thing 'medium'.*medium-replay"):
        table_of(name).get("medium")


def test_a_name_is_registered_once():
    table = Registry("thing", "mbrl.core")
    table.register("x")(len)
    with pytest.raises(ValueError, match="registered twice"):
        table.register("x")(max)


def test_a_broken_entry_fails_at_every_look_up_rather_than_vanish(package):
    name, folder = package
    (folder / "broken.py").write_text("raise RuntimeError('broken entry')\n")
    table = table_of(name)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken entry"):
            table.names()
