import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.off_policy.judgement.segments import find_segments, largest_runs
from mbrl.off_policy.judgement.support_map import (
    SupportMap,
    map_support,
    principal_plane,
    support_by_place,
    support_by_time,
)
from tests.off_policy.logs import logged
from tests.off_policy.lqg import LinearPolicy, NoisyLinearPolicy, scalar_task


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


def test_the_behaviour_stays_inside_and_a_foreign_policy_leaves(dataset):
    same = map_support(
        NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4),
        dataset,
        generator=torch.Generator().manual_seed(0),
    )
    assert same.share < 0.04
    away = map_support(
        LinearPolicy(torch.tensor([[-3.0]]), 8.0), dataset, generator=torch.Generator().manual_seed(0)
    )
    assert away.share > 0.25
    by_time = support_by_time(away, dataset)
    assert len(by_time.step) == 25
    assert sum(by_time.count) == dataset.num_transitions
    weights = np.array(by_time.count) @ np.array(by_time.share) / dataset.num_transitions
    assert weights == pytest.approx(away.share)
    with pytest.raises(DataError, match="fewer than two"):
        support_by_place(away, dataset)


def test_a_log_too_small_for_a_quantile_is_refused(dataset):
    policy = LinearPolicy(torch.tensor([[0.4]]), 8.0)
    with pytest.raises(DataError, match="1 % quantile"):
        map_support(policy, dataset.select(range(8)), generator=torch.Generator().manual_seed(0))


def test_the_plane_is_that_of_the_singular_value_decomposition():
    rng = np.random.default_rng(1)
    obs = (rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))).astype(np.float32)
    obs[:, 3] = 2.0  # a constant dimension does not matter
    place, explained = principal_plane(obs)
    scaled = obs[:, :3].astype(np.float64)
    scaled = (scaled - scaled.mean(0)) / scaled.std(0)
    left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
    np.testing.assert_allclose(np.abs(place), np.abs(left[:, :2] * singular[:2]), atol=1e-8)
    assert explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()))
