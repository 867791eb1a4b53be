"""A planner by name, as configs write it."""

import pytest
import torch
from pydantic import BaseModel, ValidationError

from mbrl.planning.choice import PlannerChoice, PlannerField
from mbrl.planning.shooting.mppi import MPPI, MPPIConfig
from tests.planning.tasks import box_problem


class _Settings(BaseModel):
    planner: PlannerField


def test_a_name_a_mapping_and_a_dump_are_the_same_planner():
    named = _Settings.model_validate({"planner": "mppi"}).planner
    assert named == PlannerChoice(name="mppi", config=MPPIConfig())
    flat = _Settings.model_validate({"planner": {"name": "mppi", "horizon": 7}}).planner
    assert (flat.name, flat.tree()["horizon"]) == ("mppi", 7)
    assert _Settings.model_validate({"planner": flat.model_dump()}).planner == flat
    assert _Settings.model_validate({"planner": flat.tree()}).planner == flat
    planner = flat.build(box_problem())
    assert isinstance(planner, MPPI)
    assert planner.config.horizon == 7
    assert planner.problem.dtype == torch.float64


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"horizon": 3}, "needs a name, one of: cem"),
        ("mpi", "mpi"),
        ({"name": "mppi", "horizn": 3}, "horizn"),
        ({"name": "icem", "config": MPPIConfig()}, "takes a ICEMConfig, not a MPPIConfig"),
    ],
)
def test_slips_are_told_by_name(value: object, message: str):
    with pytest.raises(ValidationError, match=message):
        _Settings.model_validate({"planner": value})
