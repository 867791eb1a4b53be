"""The page says what the code does, and cites sources that exist."""

import re
from pathlib import Path

import pytest
import yaml

from mbrl.planning.base import PLANNERS, PlannerConfig
from mbrl.planning.shooting.cem import CEMConfig
from mbrl.planning.shooting.config import ShootingConfig
from mbrl.planning.shooting.icem import ICEMConfig
from mbrl.planning.shooting.mppi import MPPIConfig
from mbrl.planning.tree.gumbel import GumbelConfig, SampledGumbelConfig
from mbrl.planning.tree.planner import TreeConfig
from mbrl.planning.tree.proposals import SampledActions
from mbrl.planning.tree.puct import DPWConfig, PUCTConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "planning.md").read_text()


def _table(name: str) -> dict[str, object]:
    match = re.search(rf"^\*\*`{name}`\*\*.*\n\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert match is not None
    rows = re.findall(r"^\| `(\w+)` \| `(.*?)` \|", match[1], re.MULTILINE)
    return {key: yaml.safe_load(value) for key, value in rows}


@pytest.mark.parametrize(
    "config", [TreeConfig, GumbelConfig, SampledActions, SampledGumbelConfig, PUCTConfig, DPWConfig]
)
def test_documented_defaults_are_those_of_the_code(config: type[PlannerConfig]):
    own = [name for name in config.__annotations__ if name != "model_config"]
    assert _table(config.__name__) == {name: getattr(config(), name) for name in own}


@pytest.mark.parametrize("name", ["gumbel", "sampled_gumbel", "puct", "dpw"])
def test_every_tree_planner_is_listed_and_described(name: str):
    assert f"| `{name}` |" in PAGE
    assert PLANNERS.describe()[name].endswith(".")


def test_every_setting_of_mppi_is_listed():
    assert _table("MPPIConfig") == MPPIConfig().model_dump()


@pytest.mark.parametrize("config", [ICEMConfig, CEMConfig])
def test_the_other_optimisers_list_what_differs(config: type[ShootingConfig]):
    values = config().model_dump()
    common = MPPIConfig().model_dump()
    differing = {key: value for key, value in values.items() if key not in common or common[key] != value}
    assert _table(config.__name__) == differing


def test_sources_are_in_the_bibliography():
    cited = set(re.findall(r"@(\w+)", PAGE))
    known = set(re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text(), re.MULTILINE))
    assert cited <= known
