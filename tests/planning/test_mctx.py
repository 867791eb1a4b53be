"""Our trees equal those of mctx 0.0.71: from a file, and live where the extra `conformance` is installed."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.planning.tree.gumbel import GumbelConfig, GumbelStrategy
from tests.planning.mctx_cases import (
    CASES,
    GOLDEN,
    Case,
    Tables,
    make_search,
    make_tables,
    run_mctx,
    run_ours,
)

EXPECTED: dict[str, Any] = {case["name"]: case for case in json.loads(GOLDEN.read_text())}


def _check(ours: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal structure and counts, values to 1e-9."""
    for row, nodes in enumerate(expected["nodes"]):
        grown = ours["nodes"][row]
        assert [node[:3] for node in grown] == [node[:3] for node in nodes]
        assert [node[3] for node in grown] == pytest.approx([node[3] for node in nodes], rel=1e-9, abs=1e-11)
        if expected["indices"] is not None:
            assert [node[5] for node in grown] == expected["indices"][row]
    visited = np.array(ours["visits"]) > 0
    for key in ("q", "weights"):
        mine, theirs = np.array(ours[key]), np.array(expected[key])
        keep = visited if key == "q" else np.ones_like(visited)
        np.testing.assert_allclose(mine[keep], theirs[keep], rtol=1e-9, atol=1e-11)
    assert ours["action"] == expected["action"]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id=case.name, marks=pytest.mark.slow if case.sims == 100 and case.actions < 9 else ()
        )
        for case in CASES
    ],
)
def test_trees_equal_those_of_mctx(case: Case):
    expected = EXPECTED[case.name]
    gumbel = None if expected["gumbel"] is None else torch.tensor(expected["gumbel"], dtype=torch.float64)
    _check(run_ours(case, gumbel), expected)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.sims <= 7], ids=lambda case: case.name)
def test_mctx_itself_grows_the_golden_trees(case: Case):
    pytest.importorskip("mctx", reason="install the extra `conformance`")
    expected, live = EXPECTED[case.name], run_mctx(case)
    assert [[node[:3] for node in row] for row in live["nodes"]] == [
        [node[:3] for node in row] for row in expected["nodes"]
    ]
    gumbel = None if live["gumbel"] is None else torch.tensor(live["gumbel"], dtype=torch.float64)
    _check(run_ours(case, gumbel), live)


def test_float32_grows_the_same_trees():
    equal = total = 0
    for seed in range(25):
        case = Case("gumbel", 32, 4, None)
        gumbel = -torch.log(-torch.log(torch.rand(4, 4, generator=torch.Generator().manual_seed(seed))))
        double, single = (
            run_ours(case, gumbel.double(), dtype=kind, tables=_permute(seed))
            for kind in (torch.float64, torch.float32)
        )
        same = [mine == theirs for mine, theirs in zip(single["visits"], double["visits"], strict=True)]
        equal, total = equal + sum(same), total + len(same)
        for row, is_same in enumerate(same):
            if is_same:
                assert single["q"][row] == pytest.approx(double["q"][row], abs=1e-5)
    assert equal / total >= 0.995


def _permute(seed: int) -> Tables:
    """Other roots of the same task."""
    tables = make_tables(4)
    start = np.random.default_rng(seed).permutation(len(tables.value))[:4]
    return Tables(**{**tables.__dict__, "start": start})


def test_rounds_spend_visits_alike_and_mostly_choose_alike():
    """The set is chosen once a phase: the same multiset of visits, and nearly always the same action."""
    agreed = total = 0
    for seed in range(40):
        case = Case("gumbel", 32, 9, None)
        gumbel = -torch.log(-torch.log(torch.rand(4, 9, generator=torch.Generator().manual_seed(seed))))
        tables = make_tables(9)
        start = np.random.default_rng(seed).permutation(len(tables.value))[:4]
        tables = Tables(**{**tables.__dict__, "start": start, "discount": np.maximum(tables.discount, 0.3)})
        one, rounds = (
            run_ours(case, gumbel.double(), tables=tables, exact=kind) for kind in ("mctx", "rounds")
        )
        for mine, theirs in zip(rounds["visits"], one["visits"], strict=True):
            assert sorted(mine) == sorted(theirs)
        agreed += sum(a == b for a, b in zip(rounds["action"], one["action"], strict=True))
        total += 4
    assert agreed / total >= 0.95


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
@pytest.mark.parametrize("exact", ["mctx", "rounds"])
def test_a_row_without_a_valid_action_takes_action_0_with_uniform_weights(algorithm: str, exact: str):
    tables = make_tables(4)
    tables = Tables(**{**tables.__dict__, "invalid": np.ones_like(tables.invalid)})
    ours = run_ours(Case(algorithm, 7, 4, None), torch.zeros(4, 4), tables=tables, exact=exact)
    assert ours["visits"] == [[7, 0, 0, 0]] * 4
    if algorithm == "gumbel":
        assert ours["action"] == [0] * 4
        assert np.array(ours["weights"]) == pytest.approx(0.25)


def test_logits_of_minus_infinity_make_no_nan():
    case = Case("gumbel", 7, 4, None)
    tables = make_tables(4)
    logits = tables.logits.copy()
    logits[:, 1] = np.finfo(np.float64).min
    ours = run_ours(case, torch.zeros(4, 4), tables=Tables(**{**tables.__dict__, "logits": logits}))
    assert np.isfinite(np.array(ours["weights"])).all()
    assert np.isfinite(np.array(ours["q"])).all()


def test_the_limit_of_depth_evaluates_a_leaf_again():
    """A bandit of two valid arms, 17 simulations: visits are the ceil and the floor of the halves."""
    search = make_search(Case("gumbel", 17, 4, 3), _bandit())
    config = GumbelConfig(exact="mctx", compare_policy=False, value_coef=0.05, visit_offset=60.0)
    choice = GumbelStrategy(config, value_scale=1.0).search(search, torch.zeros(4, 4).double(), sims=17)
    assert search.stats().visits.tolist() == [[0.0, 9.0, 8.0, 0.0]] * 4
    assert choice.slot.tolist() == [1] * 4
    probs = torch.tensor([-1.0, 2.0], dtype=torch.float64).softmax(-1)
    mixed = (-5.0 + 17.0 * float(probs @ torch.tensor([3.0, -1.0], dtype=torch.float64))) / 18.0
    completed = torch.tensor([mixed, 3.0, -1.0, mixed], dtype=torch.float64)
    scaled = (60.0 + 9.0) * 0.05 * (completed + 1.0 - min(0.0, mixed + 1.0)) / (3.0 - min(-1.0, mixed))
    expected = (torch.tensor([-1.0, 2.0], dtype=torch.float64) + scaled[1:3]).softmax(-1)
    assert choice.weights[0, 1:3].tolist() == pytest.approx(expected.tolist())


def _bandit() -> Tables:
    rows = np.zeros((12, 4))
    return Tables(
        following=np.zeros((12, 4), dtype=np.int64),
        reward=rows + np.array([20.0, 3.0, -1.0, 10.0]),
        discount=rows,
        logits=rows + np.array([0.0, -1.0, 2.0, 3.0]),
        value=np.full(12, -5.0),
        start=np.arange(4),
        invalid=np.array([[True, False, False, True]] * 4),
    )
