"""What a planning row counts: simulations of all states, and the operations of one by hand."""

import pytest

from mbrl.bench.registry import ROWS
from mbrl.bench.rows.planning import search_flops, trajectory_flops
from mbrl.bench.workload import Workload

SMALL = Workload(obs_dim=3, act_dim=1, transitions=300, members=7, elites=2, dynamics_hidden=(8,))


@pytest.mark.parametrize(("name", "sims"), [("plan_gumbel", 32), ("plan_mppi", 736), ("plan_icem", 116)])
def test_a_plan_of_many_states_counts_the_simulations_of_all(name: str, sims: int) -> None:
    modes = ROWS.get(name).build(SMALL)
    assert modes["one"]() == sims


def test_operations_of_a_simulation() -> None:
    member = 2 * (4 * 8 + 8 * 8)  # (s, a) to 8 units to means and log-variances of (s', r)
    policy = 2 * (3 * 256 + 256 * 256 + 256 * 2)
    critics = 2 * 2 * (4 * 256 + 256 * 256 + 256)
    assert search_flops(SMALL) == pytest.approx(2 * (member + policy + critics))
    assert trajectory_flops(SMALL, horizon=5) == pytest.approx(5 * member + policy + critics)
