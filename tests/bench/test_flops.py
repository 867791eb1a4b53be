"""Operations by hand, by torch's own counter, and the figures for Hopper's sizes."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mbrl.bench.flops import forward_flops, input_gradient_flops, training_flops
from mbrl.bench.registry import ROWS
from mbrl.bench.workload import Workload
from mbrl.nets.stack import StackedMLP

SMALL = dataclasses.replace(Workload(), transitions=2000)
WORK = {"iql": 1.065, "discrete_iql": 1.066, "awac": 1.06, "smodice": 1.665}
"""What is done beyond the least: IQL looks at the new V(s), AWAC runs the actor once more to draw, SMODICE
reads demonstrations and start states besides, here a batch of each."""


def test_forward_and_backward_by_hand() -> None:
    # 10 rows through 3 -> 5 -> 2: products of 3 * 5 and 5 * 2 terms, two operations each
    assert forward_flops(10, (3, 5, 2)) == 2 * 10 * (15 + 10)
    # besides: both weight gradients, and the input gradient of the second layer alone
    assert training_flops(10, (3, 5, 2)) == 2 * 10 * (15 + 10 + 15 + 10 + 10)
    assert input_gradient_flops(10, (3, 5, 2)) == 2 * 10 * (15 + 10 + 15 + 10)
    assert training_flops(10, (3, 5, 2), members=7) == 7 * training_flops(10, (3, 5, 2))


@pytest.mark.parametrize("composite", [False, True])
def test_torch_counts_the_same_for_a_stack(composite: bool) -> None:
    net = StackedMLP(3, 4, (6, 5), 2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    function = net.forward_composite if composite else net.forward
    sizes = (4, 6, 5, 2)
    with FlopCounterMode(display=False) as counter:
        function(x).sum().backward()
    assert counter.get_total_flops() == training_flops(8, sizes, members=3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function(x)
    assert counter.get_total_flops() == forward_flops(8, sizes, members=3)


def test_torch_counts_the_same_through_a_frozen_stack() -> None:
    net = StackedMLP(3, 4, (6, 5), 2, generator=torch.Generator().manual_seed(0))
    x = torch.ones(8, 4, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        net(x, frozen=True).sum().backward()
    assert counter.get_total_flops() == input_gradient_flops(8, (4, 6, 5, 2), members=3)


@pytest.mark.parametrize(
    ("row", "mflops"),
    [
        ("bc", 105),
        ("iql", 524),
        ("cql", 13_563),
        ("td3_bc", 404),
        ("sac", 564),
        ("ensemble", 1362),
        ("fqe", 140),
    ],
)
def test_figures_for_the_sizes_of_hopper(row: str, mflops: float) -> None:
    count = ROWS.get(row).flops
    assert count is not None
    assert round(count(Workload()) / 1e6) == mflops


@pytest.mark.parametrize("row", [n for n in ROWS.names() if ROWS.get(n).learner and ROWS.get(n).flops])
def test_learners_do_what_is_counted(row: str) -> None:
    """Torch does not see the output column of a critic: it is a weighted sum, and 0.4 % of the work."""
    entry = ROWS.get(row)
    assert entry.flops is not None
    update = entry.build(SMALL)["update"]
    update()
    with FlopCounterMode(display=False) as counter:
        units = update() + update()  # two, since some learners move the actor at every second one
    done = counter.get_total_flops() / units / entry.flops(SMALL)
    assert done == pytest.approx(WORK.get(row, 1.0), abs=0.005)


def test_an_evaluation_does_what_is_counted_for_each_member() -> None:
    entry = ROWS.get("fqe")
    assert entry.flops is not None
    loop = entry.build(SMALL)["loop"]
    loop()
    with FlopCounterMode(display=False) as counter:
        units = loop()
    assert units == 5
    assert counter.get_total_flops() / units == pytest.approx(entry.flops(SMALL), rel=0.005)
