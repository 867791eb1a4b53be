import dataclasses

import numpy as np
import pytest

from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.off_policy.log import behaviour
from mbrl.off_policy.log.behaviour import (
    BEHAVIOUR_FITTED,
    BEHAVIOUR_MISCALIBRATED,
    BOUNDARY_ACTIONS,
    Behaviour,
    BehaviourCache,
)
from mbrl.off_policy.log.behaviour_fit import BehaviourConfig, BehaviourFit
from mbrl.off_policy.log.policies import DeterministicMode
from tests.off_policy.logs import ask, context_of, linear, lqg_log, table_log, unlogged

QUICK = BehaviourConfig(family="gaussian", updates=150, hidden=(16,))
RATIO = ("is", "pdis", "wis", "pdwis")


def logged(dataset: Dataset) -> np.ndarray:
    return np.concatenate([e.behaviour_log_prob for e in dataset.episodes]).astype(np.float64)


@pytest.mark.slow
def test_ratios_to_a_fitted_behaviour_agree_with_those_to_the_true_one():
    dataset, policy = lqg_log(400, 3), linear(0.5, 0.35)
    given, hidden = (
        context_of(policy, log, Estimand(1.0, horizon=3)) for log in (dataset, unlogged(dataset))
    )
    for name in RATIO:
        known, fitted = ask(given, name), ask(hidden, name)
        assert fitted.point != known.point
        assert abs(fitted.point - known.point) < 2 * known.se
        assert fitted.se < 1.5 * known.se
        assert BEHAVIOUR_FITTED in fitted.flags
        assert BEHAVIOUR_FITTED not in known.flags
        assert BEHAVIOUR_MISCALIBRATED not in fitted.flags


def test_a_fit_is_made_once_for_all_estimators_and_candidates_and_is_always_the_same():
    dataset = unlogged(lqg_log(8, 5))
    cache = BehaviourCache(QUICK)
    first = cache.of(dataset)
    assert cache.of(dataset) is first
    assert BehaviourCache(QUICK).of(dataset) is first
    assert BehaviourCache(QUICK.model_copy(update={"seed": 1})).of(dataset) is not first
    behaviour._FITS.forget()
    again = BehaviourCache(QUICK).of(dataset)
    assert again is not first
    np.testing.assert_array_equal(again.log_prob, first.log_prob)
    half = dataclasses.replace(dataset, episodes=(*lqg_log(8, 5).episodes[:4], *dataset.episodes[4:]))
    assert cache.of(half).fit is not None  # half of a behaviour is none
    assert cache.of(lqg_log(8, 5)).fit is None


def test_what_was_logged_is_taken_as_it_is():
    dataset = lqg_log(6, 4)
    context = context_of(linear(0.5, 0.35), dataset, Estimand(0.9, horizon=4))
    np.testing.assert_array_equal(context.behaviour.log_prob, logged(dataset))
    facts = context.behaviour_facts()
    assert facts["behaviour"] == "given"
    assert facts["fit_nll"] is None
    ratio = np.exp(context.ratio_arrays().log_ratio)
    z = (ratio.mean(0) - 1) / (ratio.std(0, ddof=1) / np.sqrt(6))
    np.testing.assert_allclose(facts["mean_ratio_z"], z, rtol=1e-10)
    mode = context_of(DeterministicMode(linear(0.5, 0.35)), dataset, Estimand(0.9, horizon=4))
    assert mode.behaviour_facts()["mean_ratio_z"] is None


def test_a_density_that_is_off_is_flagged():
    """Too wide a density makes the ratio's mean differ from 1 at every step."""
    dataset = lqg_log(400, 4)
    arrays = context_of(linear(0.4, 0.4), dataset, Estimand(0.9, horizon=4)).ratio_arrays()
    right = BehaviourFit("gaussian", logged(dataset), np.zeros(1600, np.int64), -1.6, 0.02, 2, 0.0)
    assert Behaviour(right.log_prob, right).flags(arrays) == (BEHAVIOUR_FITTED,)
    jitter = 0.1 * np.random.default_rng(0).normal(size=arrays.log_ratio.shape)
    off = dataclasses.replace(arrays, log_ratio=arrays.log_ratio + 0.2 + jitter)
    assert BEHAVIOUR_MISCALIBRATED in Behaviour(right.log_prob, right).flags(off)
    crooked = dataclasses.replace(right, calibration_error=0.2, boundary_share=0.02)
    assert Behaviour(right.log_prob, crooked).flags(arrays) == (
        BEHAVIOUR_FITTED,
        BEHAVIOUR_MISCALIBRATED,
        BOUNDARY_ACTIONS,
    )
    assert Behaviour(right.log_prob, right).facts(None)["fit_nll"] == -1.6
    assert Behaviour(right.log_prob).flags(off) == ()


def test_a_tiny_log_of_finitely_many_actions_still_gets_probabilities():
    _, dataset, _, _ = table_log(n=2, steps=3)
    found = BehaviourCache(BehaviourConfig(updates=20)).of(unlogged(dataset))
    assert (found.log_prob <= 0).all()
    assert np.isfinite(found.log_prob).all()
