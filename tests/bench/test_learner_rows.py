"""Rows of learners come from the registry; a table holds only what somebody has to decide."""

import dataclasses
from typing import Any

import pytest

from mbrl.bench.registry import ROWS
from mbrl.bench.rows import learners
from mbrl.bench.workload import Workload
from mbrl.learners.base import LEARNERS
from mbrl.learners.bc import BC, BCConfig

SMALL = dataclasses.replace(Workload(), transitions=2000)


def test_every_learner_has_a_row_with_its_operations_if_it_states_them() -> None:
    rows = {name: ROWS.get(name) for name in ROWS.names() if ROWS.get(name).learner is not None}
    assert {row.learner for row in rows.values()} == set(LEARNERS.names())
    for name, row in rows.items():
        assert (row.flops is not None) == hasattr(LEARNERS.get(str(row.learner)), "passes"), name


class Silent:
    """A learner that does not say what it computes."""

    Config = BCConfig

    def __init__(self, config: Any, context: Any) -> None:
        inner = BC(config, context)
        self.init, self.update, self.policy, self.value = inner.init, inner.update, inner.policy, inner.value

    init = update = policy = value = None


@pytest.fixture
def _plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (LEARNERS, ROWS):
        table.names()
        monkeypatch.setattr(table, "_table", dict(table._table))
    LEARNERS.register("edac", "Of another distribution, by the name of a row.")(Silent)


@pytest.mark.usefixtures("_plugin")
def test_a_learner_of_others_gets_a_row_that_takes_no_other_name() -> None:
    rows = learners.row_names()
    assert (rows["learner-edac"].learner, rows["edac"].learner) == ("edac", "sac")
    learners.register_learner("learner-edac", rows["learner-edac"])
    row = ROWS.get("learner-edac")
    assert row.flops is None  # it states no passes
    assert row.build(SMALL)["update"]() == 1
    with pytest.raises(TypeError, match="'edac' states no passes"):
        learners.learner_flops("edac", {}, SMALL)
