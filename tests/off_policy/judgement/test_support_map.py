import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.off_policy.judgement import support_map
from mbrl.off_policy.judgement.support_map import (
    map_support,
    principal_plane,
    support_by_place,
    support_by_time,
)
from tests.off_policy.lqg import LinearPolicy, NoisyLinearPolicy, scalar_task


@pytest.fixture(scope="module")
def dataset():
    behaviour = NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4)
    return scalar_task().simulate(behaviour, 40, 25, 0)


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


def test_every_candidate_meets_the_same_supports_fitted_once(dataset, monkeypatch):
    policy = LinearPolicy(torch.tensor([[0.6]]), 8.0)
    first = map_support(policy, dataset, generator=torch.Generator().manual_seed(0))
    support_map._HALVES.forget()
    again = map_support(policy, dataset.select(range(40)), generator=torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(again.outside, first.outside)
    with monkeypatch.context() as patch:
        patch.delattr("mbrl.off_policy.judgement.support_map.BehaviourSupport")
        third = map_support(policy, dataset, generator=torch.Generator().manual_seed(2))
        with pytest.raises(NameError):
            map_support(policy, dataset.select(range(39)), generator=torch.Generator().manual_seed(2))
    np.testing.assert_array_equal(third.outside, first.outside)


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
