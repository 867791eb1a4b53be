"""What a planner is told: configs, states, scales."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from mbrl.core.errors import ConfigError
from mbrl.planning.base import PLANNERS
from mbrl.run.config import part_names
from mbrl.run.plan.config import load_plan_config, parse_plan_config
from mbrl.run.plan.explanation import read_state
from tests.planning.one_step import registered
from tests.run.toy import make_dataset


@pytest.fixture(autouse=True)
def _one_step() -> Iterator[None]:
    with registered():
        yield


def test_states_are_named_by_number_or_by_coordinates() -> None:
    dataset = make_dataset()
    assert torch.equal(read_state("7", dataset)[0], torch.tensor(dataset.transitions().observation[7]))
    assert read_state("1, 2.5,-3", dataset).tolist() == [[1.0, 2.5, -3.0]]
    for text in ("360", "1,2", "a,b,c", "1,2,nan", ""):
        with pytest.raises(ConfigError, match="0 to 359"):
            read_state(text, dataset)


def test_configs_are_composed_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"planner": {"name": "one_step"}, "sims": 8}))
    found = load_plan_config(str(path), overrides=["planner.spread=3", "uncertainty.measure=ens_std"])
    assert found.planner.tree() == {"name": "one_step", "spread": 3.0}
    assert (found.uncertainty.measure, found.budget.sims) == ("ens_std", 8)
    timed = load_plan_config(str(path), arguments={"milliseconds": 5.0, "sims": None})
    assert (timed.budget.sims, timed.budget.milliseconds) == (None, 5.0)
    assert (
        parse_plan_config({"file": str(path), "planner": {"spread": 2}}, where="x").planner.tree()["spread"]
        == 2
    )
    assert parse_plan_config(found.tree(), where="again") == found
    for bad in (["planner.name=none"], ["planner.spred=1"], ["sims=0"], ["pessimism=-1"], ["sims=null"]):
        with pytest.raises(ConfigError):
            load_plan_config(str(path), overrides=bad)


@pytest.mark.parametrize("name", part_names("planners"))
def test_every_shipped_planner_validates_and_survives_its_yaml(name: str, tmp_path: Path) -> None:
    found = load_plan_config(name)
    assert found.planner.name == name
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(found.tree()))
    assert load_plan_config(str(path)) == found


def test_every_planner_is_shipped() -> None:
    assert set(part_names("planners")) == set(PLANNERS.names()) - {"one_step"}
