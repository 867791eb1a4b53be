"""Every registered planner passes every check of a planner; new entries are tested unasked."""

import pytest

from mbrl.planning.base import PLANNERS
from mbrl.testing import PLANNER_CHECKS, check_planner


@pytest.mark.parametrize("check", PLANNER_CHECKS)
@pytest.mark.parametrize("name", PLANNERS.names())
def test_a_planner_passes(name: str, check: str) -> None:
    check_planner(name, checks=[check])
