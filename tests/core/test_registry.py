import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mbrl.core.errors import ConfigError
from mbrl.core.registry import PluginWarning, Registry
from tests.distributions import install

GROUP = "tests.things"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[tuple[str, Path]]:
    """A package `<name>` with room for entry modules, importable for one test."""
    name = f"plugins_{uuid.uuid4().hex}"
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "__init__.py").write_text("from mbrl.core.registry import Registry\n")
    with (folder / "__init__.py").open("a") as file:
        file.write(f"TABLE = Registry('thing', '{name}', group='{GROUP}', spelling='{name}.TABLE')\n")
    yield name, folder
    for module in [m for m in sys.modules if m.startswith((name, "other_"))]:
        del sys.modules[module]


@pytest.fixture
def distribute(package, tmp_path, monkeypatch) -> Callable[..., None]:
    """Installs a distribution `other-<name>` with a module `other_<name>`, in which TABLE is at hand."""

    def make(name: str, text: str, points: dict[str, str]) -> None:
        folder = tmp_path / f"site_{name}"
        modules = {f"other_{name}.py": f"from {package[0]} import TABLE\n{text}"}
        install(folder, f"other-{name}", modules, {GROUP: points})
        monkeypatch.syspath_prepend(folder)

    return make


def table_of(name: str) -> Registry[Any]:
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


def test_entries_deep_in_the_package_are_found(package):
    name, folder = package
    (folder / "room" / "corner").mkdir(parents=True)
    for inner in (folder / "room", folder / "room" / "corner"):
        (inner / "__init__.py").touch()
    (folder / "room" / "corner" / "one.py").write_text(
        f"from {name} import TABLE\nTABLE.register('deep')(len)\n"
    )
    assert table_of(name).names() == ("deep",)


def test_unknown_names_are_refused_with_the_legal_ones_and_never_matched_in_part(package):
    name, folder = package
    (folder / "one.py").write_text(f"from {name} import TABLE\nTABLE.register('medium-replay')(len)\n")
    with pytest.raises(ConfigError, match=r"Unknown thing 'medium'.*medium-replay"):
        table_of(name).get("medium")


def test_a_failed_look_up_names_the_nearest_and_how_to_register(package):
    name, folder = package
    (folder / "one.py").write_text(f"from {name} import TABLE\nTABLE.register('puct')(len)\n")
    with pytest.raises(ConfigError) as caught:
        table_of(name).get("puctt")
    assert str(caught.value) == (
        "Unknown thing 'puctt'. Did you mean 'puct'? Legal names: puct. To add your own: "
        f"@{name}.TABLE.register('puctt') in a module that you import, or an entry point of the group "
        f"{GROUP!r} in an installed package."
    )
    assert "puctt" not in table_of(name)
    assert 3 not in table_of(name)


def test_a_name_is_registered_once():
    table = Registry("thing", "mbrl.core")
    table.register("x")(len)
    with pytest.raises(ValueError, match="registered twice, by"):
        table.register("x")(max)


def test_a_thing_without_what_every_entry_has_is_refused_by_name():
    table = Registry("thing", "mbrl.core", needs=("build", "Config"))
    with pytest.raises(TypeError, match=r"the thing 'x' of .* lacks build, Config: every thing has"):
        table.register("x")(len)


def test_a_broken_entry_fails_at_every_look_up_rather_than_vanish(package):
    name, folder = package
    (folder / "broken.py").write_text("raise RuntimeError('broken entry')\n")
    table = table_of(name)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken entry"):
            table.names()


def test_entry_points_are_filed_under_their_names(package, distribute):
    name, folder = package
    (folder / "one.py").write_text(f"from {name} import TABLE\nTABLE.register('own')(len)\n")
    distribute("plain", "def f():\n    '''Eff.'''\n", {"mine": "other_plain:f"})
    table = table_of(name)
    assert table.names() == ("own", "mine")
    assert table.describe()["mine"] == "Eff."
    assert table.get("mine")() is None
    assert (table.origin("own"), table.origin("mine")) == (None, "other-plain 1.2")


@pytest.mark.parametrize("value", ["other_decorated", "other_decorated:f"])
def test_entry_points_may_lead_to_modules_that_register(package, distribute, value):
    text = "@TABLE.register('mine', 'Said.')\ndef f(): ...\n"
    distribute("decorated", text, {"mine": value})
    table = table_of(package[0])
    assert table.describe() == {"mine": "Said."}
    assert table.origin("mine") == "other-decorated 1.2"


def test_a_plugin_is_imported_when_it_is_needed_and_once(package, distribute):
    name, folder = package
    (folder / "one.py").write_text(f"from {name} import TABLE\nTABLE.register('own')(len)\n")
    text = "import sys\nsys.count = getattr(sys, 'count', 0) + 1\nTABLE.register('mine')(len)\n"
    distribute("counted", text, {"a": "other_counted", "b": "other_counted"})
    table = table_of(name)
    assert table.get("own") is len
    assert "own" in table
    assert "other_counted" not in sys.modules
    assert table.get("mine") is len  # a name that no entry point has: the module gives it
    assert table.names() == table.names() == ("own", "mine")
    assert sys.count == 1  # pyright: ignore[reportAttributeAccessIssue]


BROKEN = {
    "missing": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
    "raising": ("TABLE.register('half')(len)\nraise RuntimeError('out of order')\n", "out of order"),
    "shadowing": ("TABLE.register('own')(max)\n", "thing 'own' is registered twice, by plugins_"),
    "empty": ("", "the module registers no thing"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_and_takes_nothing_else_down(package, distribute, kind):
    name, folder = package
    (folder / "one.py").write_text(f"from {name} import TABLE\nTABLE.register('own')(len)\n")
    text, message = BROKEN[kind]
    distribute("whole", "TABLE.register('mine')(len)\n", {"mine": "other_whole"})
    distribute(kind, text, {"theirs": f"other_{kind}"})
    table = table_of(name)
    with pytest.warns(PluginWarning) as caught:
        assert table.names() == ("own", "mine")
    (warning,) = caught
    assert f"The thing 'theirs' of the distribution other-{kind} 1.2 cannot be loaded" in str(warning.message)
    assert message in str(warning.message)
    assert "Remedy: mend or uninstall" in str(warning.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert table.get("own") is len  # told once
        with pytest.raises(ConfigError, match=f"Unknown thing 'theirs'.*other-{kind} 1.2 cannot be loaded"):
            table.get("theirs")


def test_a_broken_plugin_that_is_asked_for_is_the_error_itself(package, distribute):
    distribute("raising", "raise RuntimeError('out of order')\n", {"theirs": "other_raising"})
    table = table_of(package[0])
    with pytest.raises(ConfigError, match=r"other-raising 1\.2 cannot be loaded: RuntimeError: out of order"):
        table.get("theirs")
    assert table.names() == ()


def test_of_two_plugins_of_one_name_the_second_is_told(package, distribute):
    for text in ("first", "second"):
        distribute(text, "def f(): ...\n", {"mine": f"other_{text}:f"})
    table = table_of(package[0])
    with pytest.warns(PluginWarning, match="registered twice, by other_.* and by other_"):
        assert table.get("mine").__module__ in {"other_first", "other_second"}


def test_what_a_user_registers_by_import_is_found_and_said_to_be_theirs(package, tmp_path, monkeypatch):
    name, _ = package
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "other_script.py").write_text(f"from {name} import TABLE\nTABLE.register('mine')(len)\n")
    monkeypatch.syspath_prepend(folder)
    __import__("other_script")
    table = table_of(name)
    assert table.get("mine") is len
    assert table.origin("mine") == "module other_script"
