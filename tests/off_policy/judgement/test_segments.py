import dataclasses

import numpy as np
import pytest
import torch

from mbrl.off_policy.judgement.segments import find_segments, largest_runs
from mbrl.off_policy.judgement.support_map import (
    SupportMap,
)
from tests.off_policy.logs import logged
from tests.off_policy.lqg import NoisyLinearPolicy, scalar_task


def brute_force(excess):
    """Best run of steps of every row, by trying all."""
    best = []
    for row in excess:
        runs = [(row[s:t].sum(), s, t) for s in range(len(row)) for t in range(s + 1, len(row) + 1)]
        best.append(max(value for value, _, _ in runs))
    return best


def test_the_largest_runs_are_those_of_brute_force():
    excess = np.random.default_rng(0).normal(-0.2, 1.0, (30, 12))
    found = largest_runs(excess, 30)
    exact = brute_force(excess)
    assert [r.excess for r in found] == pytest.approx(sorted((x for x in exact if x > 0), reverse=True))
    for r in found:
        assert excess[r.episode, r.start : r.stop].sum() == pytest.approx(r.excess)
        assert exact[r.episode] == pytest.approx(r.excess)
    assert len(largest_runs(excess, 5)) == 5
    assert largest_runs(-np.ones((3, 4)), 5) == []


@pytest.fixture(scope="module")
def dataset():
    behaviour = NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4)
    return scalar_task().simulate(behaviour, 40, 25, 0)


def test_the_list_holds_both_kinds_by_halves(dataset):
    outside = np.zeros((40, 25), dtype=bool)
    outside[7, 5:9] = True
    outside[3, 20:22] = True
    support = SupportMap(outside.ravel(), "density")
    arrays = logged(n=40)
    log_ratio = np.zeros(arrays.reward.shape)
    log_ratio[11, 0] = 3.0  # one episode carries more than its share from the first step on
    weighted = dataclasses.replace(arrays, log_ratio=log_ratio)
    first, second, third = find_segments(dataset, support, weighted, count=4)
    assert (first.kind, first.episode, first.first_step, first.last_step) == ("support", 7, 5, 8)
    assert (first.share, first.length) == (1.0, 25)
    assert (second.episode, second.first_step, second.last_step) == (3, 20, 21)
    assert (third.kind, third.episode, third.first_step) == ("weight", 11, 0)
    assert third.share == pytest.approx(np.exp(3.0) / (np.exp(3.0) + 39))
    assert find_segments(dataset, None, None) == ()
    assert len(find_segments(dataset, support, None)) == 2
