"""The forecast against systems whose next step is known."""

import numpy as np
import pytest

from mbrl.deploy.forecast import fit_forecast, held_out_residuals
from mbrl.deploy.steps import Steps


def make_steps(function, count: int = 3000, seed: int = 0) -> Steps:
    rng = np.random.default_rng(seed)
    before, sent = rng.normal(size=(count, 2)), rng.uniform(-1, 1, (count, 1))
    after = before + function(before, sent)
    return Steps(after, np.zeros((count, 1)), before, sent, np.arange(count) % 10)


def linear(obs, action):
    return obs @ np.array([[0.1, -0.2], [0.3, 0.05]]) + action @ np.array([[0.5, 2.0]]) + 0.7


def test_a_linear_system_leaves_nothing() -> None:
    steps = make_steps(linear)
    forecast = fit_forecast(steps, frame_dim=2, features=8, seed=0)
    left = forecast.residual(steps.previous_obs, steps.previous_action, steps.obs)
    assert np.abs(left).max() < 2e-3
    change = forecast.change(np.array([[1.0, 2.0]]), np.array([[0.5]])) * forecast.unit
    assert change[0] == pytest.approx([0.1 + 0.6 + 0.25 + 0.7, -0.2 + 0.1 + 1.0 + 0.7], abs=1e-2)


def test_random_features_see_what_a_line_does_not() -> None:
    steps = make_steps(lambda obs, action: np.sin(2.0 * obs) + action * obs)
    errors = [
        np.square(held_out_residuals(fit_forecast(steps, frame_dim=2, features=k, seed=0), steps, folds=5))
        for k in (1, 200)
    ]
    assert errors[1].mean() < 0.1 * errors[0].mean()


def test_only_the_latest_frame_is_forecast() -> None:
    steps = make_steps(linear)
    forecast = fit_forecast(steps, frame_dim=1, features=8, seed=0)
    assert forecast.residual(steps.previous_obs, steps.previous_action, steps.obs).shape == (3000, 1)


def test_residuals_are_of_groups_that_were_left_out() -> None:
    """One group obeys another law: fitted with it, its residuals would be smaller than without."""
    steps = make_steps(linear)
    odd = steps.group == 3
    steps.obs[odd] += 5.0 * np.sign(steps.previous_obs[odd])
    forecast = fit_forecast(steps, frame_dim=2, features=20, seed=0)
    inside = forecast.residual(steps.previous_obs, steps.previous_action, steps.obs)[odd]
    outside = held_out_residuals(forecast, steps, folds=10)[odd]
    without = steps.take(np.flatnonzero(~odd))
    blank = fit_forecast(without, frame_dim=2, features=20, seed=0)
    expected = blank.residual(steps.previous_obs[odd], steps.previous_action[odd], steps.obs[odd])
    assert np.square(inside).mean() < 0.9 * np.square(outside).mean()
    # The moments of features differ a little; the law that the residuals follow is that of the others.
    assert np.square(outside * forecast.unit).mean() == pytest.approx(
        np.square(expected * blank.unit).mean(), rel=0.05
    )
