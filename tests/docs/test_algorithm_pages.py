"""The pages say what the code does: defaults, sections, references, links."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from mbrl.algorithms.base import RECIPES, RecipeConfig
from mbrl.algorithms.mbpo import MBPOConfig
from mbrl.algorithms.mobile import MOBILEConfig
from mbrl.algorithms.mobrac import MoBRACConfig
from mbrl.algorithms.model_stream import ModelBasedConfig, UnpenalisedConfig
from mbrl.algorithms.morel import MOReLConfig
from mbrl.algorithms.penalty import PenaltyConfig
from mbrl.algorithms.ravl import RAVLConfig
from mbrl.algorithms.reanalyse import ReanalyseConfig
from mbrl.dynamics.config import AssessmentConfig, DynamicsConfig, TerminationConfig
from mbrl.learners.awac import AWACConfig
from mbrl.learners.base import LEARNERS, LearnerConfig
from mbrl.learners.bc import BCConfig
from mbrl.learners.bcq import BCQConfig
from mbrl.learners.cql import CQLConfig
from mbrl.learners.deterministic import TD3Config
from mbrl.learners.distil import DistilConfig
from mbrl.learners.iql import IQLConfig
from mbrl.learners.rebrac import ReBRACConfig
from mbrl.learners.sac import SACConfig
from mbrl.learners.soft_actor_critic import SoftActorCriticConfig
from mbrl.learners.td3_bc import TD3BCConfig
from mbrl.learners.weighted_cloning import WeightedCloningConfig
from mbrl.planning.problem.learned import DoubtConfig
from mbrl.rollouts.generate import RolloutConfig
from mbrl.uncertainty.measures import MEASURES

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(page for page in (DOCS / "algorithms").glob("*.md") if page.name != "README.md")
CONFIGS: dict[str, type[BaseModel]] = {
    config.__name__: config
    for config in (
        AWACConfig, AssessmentConfig, BCConfig, BCQConfig, CQLConfig, DistilConfig, DoubtConfig,
        DynamicsConfig, IQLConfig, LearnerConfig, MBPOConfig, MOBILEConfig, MOReLConfig, MoBRACConfig,
        ModelBasedConfig, PenaltyConfig, RAVLConfig, ReBRACConfig, ReanalyseConfig, RecipeConfig,
        RolloutConfig, SACConfig, SoftActorCriticConfig, TD3BCConfig, TD3Config, TerminationConfig,
        UnpenalisedConfig, WeightedCloningConfig,
    )
}  # fmt: skip


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
    inherited = {} if config is LearnerConfig else config.__mro__[1].model_fields
    own: dict[str, Any] = {}
    for key, field in config.model_fields.items():
        if field.is_required() or (key in inherited and inherited[key].default == field.default):
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


def test_every_config_is_documented() -> None:
    assert set(CONFIGS) == {name for page in PAGES for name in _tables(page)}


def test_every_learner_has_a_page() -> None:
    assert set(LEARNERS.names()) <= {page.stem for page in PAGES}


def test_every_offline_recipe_has_a_page_with_its_defaults() -> None:
    names = {name for name in RECIPES.names() if not RECIPES.get(name).is_online} - {"model_free"}
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
