"""The page says what the code does."""

import re
from pathlib import Path

import pytest
import yaml

from mbrl.planning.base import PLANNERS, PlannerConfig
from mbrl.planning.tree.gumbel import GumbelConfig, SampledGumbelConfig
from mbrl.planning.tree.planner import TreeConfig
from mbrl.planning.tree.proposals import SampledActions
from mbrl.planning.tree.puct import DPWConfig, PUCTConfig

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "planning.md").read_text()


@pytest.mark.parametrize(
    "config", [TreeConfig, GumbelConfig, SampledActions, SampledGumbelConfig, PUCTConfig, DPWConfig]
)
def test_documented_defaults_are_those_of_the_code(config: type[PlannerConfig]):
    tables = dict(re.findall(r"^\*\*`(\w+)`\*\*.*\n\n((?:\|.*\n)+)", PAGE, re.MULTILINE))
    rows = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", tables[config.__name__], re.MULTILINE))
    own = [name for name in config.__annotations__ if name != "model_config"]
    assert sorted(rows) == sorted(own)
    assert {name: yaml.safe_load(value) for name, value in rows.items()} == {
        name: getattr(config(), name) for name in own
    }


@pytest.mark.parametrize("name", ["gumbel", "sampled_gumbel", "puct", "dpw"])
def test_every_tree_planner_is_listed_and_described(name: str):
    assert f"| `{name}` |" in PAGE
    assert PLANNERS.describe()[name].endswith(".")
