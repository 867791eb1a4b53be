"""The pages say what the code does: defaults, sections, references, links."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from mbrl.algorithms.base import RECIPES
from mbrl.dynamics.config import DynamicsConfig
from mbrl.learners.base import LEARNERS
from mbrl.uncertainty.measures import MEASURES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page for page in (DOCS / "algorithms").glob("*.md") if page.name != "README.md")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Config classes that a setting may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _collect(config: type[BaseModel], into: dict[str, type[BaseModel]]) -> None:
    """A config, those that it extends, and those of its sections."""
    for parent in config.__mro__[: config.__mro__.index(BaseModel)]:
        if parent.__name__ not in into:
            into[parent.__name__] = parent
            for field in parent.model_fields.values():
                for section in _models_in(field.annotation):
                    _collect(section, into)


def _configs() -> dict[str, type[BaseModel]]:
    """Every config of an offline algorithm by name, found from the registries."""
    recipes = [recipe for recipe in map(RECIPES.get, RECIPES.names()) if not recipe.is_online]
    configs: dict[str, type[BaseModel]] = {}
    for entry in (*map(LEARNERS.get, LEARNERS.names()), *recipes):
        _collect(entry.Config, configs)
    _collect(DynamicsConfig, configs)
    return configs


CONFIGS = _configs()


def _tables(page: Path) -> dict[str, dict[str, Any]]:
    """Documented defaults by config class and key."""
    tables: dict[str, dict[str, Any]] = {}
    for name, body in re.findall(r"^\*\*`(\w+)`\*\*\n\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE):
        rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", body, re.MULTILINE)
        tables[name] = {key: yaml.safe_load(value) for key, value in rows}
    return tables


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _own_defaults(config: type[BaseModel]) -> dict[str, Any]:
    """Defaults that a config adds or changes; those of nested configs stand in tables of their own."""
    parent = config.__mro__[1]
    inherited = parent.model_fields if issubclass(parent, BaseModel) else {}
    own: dict[str, Any] = {}
    for key, field in config.model_fields.items():
        if field.is_required() or (key in inherited and inherited[key].default == field.default):
            continue
        if field.default_factory is not None:  # it follows the fields before it
            own[key] = _plain(getattr(config(), key))
            continue
        if isinstance(field.default, BaseModel):
            standard = type(field.default)()
            changed = {k: v for k, v in field.default if v != getattr(standard, k)}
            own |= {f"{key}.{k}": _plain(v) for k, v in changed.items()}
        else:
            own[key] = _plain(field.default)
    return own


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_documented_defaults_are_those_of_the_code(page: Path) -> None:
    tables = _tables(page)
    assert tables
    for name, documented in tables.items():
        assert documented == _own_defaults(CONFIGS[name]), f"{name} in {page.name}"


def test_every_config_with_defaults_is_documented() -> None:
    documented = {name for page in PAGES for name in _tables(page)}
    assert {name for name, config in CONFIGS.items() if _own_defaults(config)} <= documented
    assert documented <= set(CONFIGS)


def test_every_learner_has_a_page() -> None:
    assert set(LEARNERS.names()) <= {page.stem for page in PAGES}


def test_every_offline_recipe_has_a_page_with_its_defaults() -> None:
    names = {name for name in RECIPES.names() if not RECIPES.get(name).is_online}
    pages = {page.stem: page for page in PAGES}
    assert names <= set(pages)
    for name in names:
        config = RECIPES.get(name).Config
        documented = set(_tables(pages[name]))
        assert config.__name__ in documented or not _own_defaults(config), name
        assert documented & {parent.__name__ for parent in config.__mro__}, name


def test_every_measure_is_in_the_table() -> None:
    text = (DOCS / "algorithms" / "uncertainty.md").read_text()
    assert set(re.findall(r"^\| `(\w+)`(?: \(default\))? \| (?!`)", text, re.MULTILINE)) >= {"knn"}
    for name in MEASURES.names():
        assert f"| `{name}`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_have_the_same_sections(page: Path) -> None:
    sections = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert sections[:4] == ["What", "Source", "Departures", "Defaults"]
    assert sections[4].startswith("When not to use")


def test_references_are_cited_and_citations_are_referenced() -> None:
    keys = set(re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text(), re.MULTILINE))
    cited = {key for page in DOCS.rglob("*.md") for key in re.findall(r"@([a-z]+\d{4}\w+)", page.read_text())}
    assert cited == keys


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in (*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"))
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text())
        if not target.startswith("http") and not (page.parent / target).exists()
    ]
    assert broken == []
