"""A look at a policy whose every number is known: a known model, known values, a known behaviour."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mbrl.core.types import DynamicsPosterior
from mbrl.dynamics.assessment.open_loop import draw_segments
from mbrl.dynamics.termination import NeverTerminates
from mbrl.rollouts.generate import Imagination, RolloutConfig
from mbrl.shift.logged_values import LoggedValues, logged_values
from mbrl.shift.model_probe import EdgeProbe, ModelProbe
from mbrl.shift.probe import ShiftProbe
from mbrl.shift.report import MEASURED, ShiftReport
from mbrl.uncertainty.measures import ens_std
from tests.shift.chain import make_chain


class Constant:
    """Always the same action."""

    act_dim = 1

    def __init__(self, action: float) -> None:
        self.action = action

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return torch.full((len(obs), 1), self.action)


class Disagreeing:
    """`s' = s + 1` on average; the two members disagree by `2 |a|`, so `ens_std = |a|`."""

    ensemble_size = 2

    def predict(self, obs: Tensor, action: Tensor) -> DynamicsPosterior:
        mean = obs + 1 + torch.stack([action, -action])
        zeros = torch.zeros_like(mean)
        return DynamicsPosterior(mean, zeros, zeros[..., 0], zeros[..., 0], torch.ones(1), torch.tensor(1.0))

    def predict_member(self, obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError


class Line:
    """`V(s) = 2 s` and `Q(s, a) = 2 s + a`."""

    def value(self, obs: Tensor) -> Tensor:
        return 2 * obs[:, 0]

    def action_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return 2 * obs[:, 0] + action[:, 0]


def make_probe(horizon: int = 3) -> ShiftProbe:
    data = make_chain()
    imagination = Imagination(Disagreeing(), NeverTerminates(), ens_std)
    segments = draw_segments(data, count=100, horizon=2, generator=torch.Generator().manual_seed(0))
    model = ModelProbe(
        imagination=imagination,
        flag_level=0.4,
        baseline=0.25,
        horizon=horizon,
        segments=segments,
        error=np.tile([0.1, 0.2], (len(segments), 1)),
        action_std=np.ones(1),
    )
    return ShiftProbe(
        states=torch.linspace(-1, 1, 50)[:, None],
        updates=100,
        model=model,
        edge=EdgeProbe(dataclasses.replace(imagination, threshold=0.6), RolloutConfig(horizon=4)),
        value_bounds=(0.0, 10.0),
        returns=logged_values(data, discount=0.9, generator=torch.Generator().manual_seed(1)),
    )


def look(probe: ShiftProbe, action: float, **changes: object) -> ShiftReport:
    arguments = {"step": 100, "past": {}, "generator": torch.Generator().manual_seed(3), **changes}
    return probe.look(Constant(action), Line(), **arguments)  # pyright: ignore[reportArgumentType]


def test_uncertainty_along_rollouts_is_that_of_the_actions() -> None:
    """`ens_std = |a|` at every step, against 0.25 on the data and a quantile of 0.4."""
    calm, bold = look(make_probe(), 0.3), look(make_probe(), -0.5)
    assert calm.rollout_uncertainty_ratio == pytest.approx(1.2)
    assert bold.rollout_uncertainty_ratio == pytest.approx(2.0)
    assert calm.rollout_flagged_share == 0.0
    assert bold.rollout_flagged_share == 1.0
    assert bold.rows["rollout_steps"] == 3 * 50


def test_the_edge_is_that_of_the_recipes_rollouts() -> None:
    """Uncut, one state of four is an edge, `V = 2 (s + 4)` there and `2 (s + 1.5)` before; cut, all are."""
    spread = float(2 * torch.linspace(-1, 1, 50).std(correction=0))
    whole = look(make_probe(), 0.0)
    assert whole.edge_share == 0.25
    assert whole.edge_value_gap == pytest.approx(5.0 / spread, rel=1e-5)
    cut = look(make_probe(), 0.7)
    assert cut.edge_share == 1.0
    assert cut.edge_value_gap == pytest.approx(2.0 / spread, abs=0.2 * 2 * 0.7)


def test_values_are_compared_with_the_returns_of_the_chain() -> None:
    """60 steps of reward 1 that end: `G = 10 (1 - 0.9^n)`, falling with the step where `Q = 2 s` rises."""
    report = look(make_probe(), 0.0)
    returns = np.array([10 * (1 - 0.9**n) for n in range(1, 61)])
    assert report.rows["returns"] == 240
    assert report.value_gap == pytest.approx((2 * 29.5 - returns.mean()) / returns.std())
    assert report.value_rank_correlation == pytest.approx(-1.0)
    assert report.value_gap_high == pytest.approx((10 - returns.mean()) / returns.std())


def test_drift_looks_back_to_three_quarters_of_the_way() -> None:
    spread = float(2 * torch.linspace(-1, 1, 50).std(correction=0))
    report = look(make_probe(), 0.0, past={20: 9.0, 70: -0.5, 90: 9.0})
    assert report.mean_value == pytest.approx(0.0, abs=1e-6)
    assert report.value_drift_since == 70
    assert report.value_drift == pytest.approx(0.5 / spread)
    assert "first look" in look(make_probe(), 0.0).why_not["value_drift"]


def test_the_models_error_counts_where_the_log_acts_like_the_policy() -> None:
    near = look(make_probe(), 0.4)
    assert (near.model_error_near_policy, near.model_error, near.model_error_horizon) == (0.2, 0.2, 2)
    assert near.rows["near_segments"] == 100
    far = look(make_probe(), 0.6)
    assert far.model_error_near_policy is None
    assert "fewer than 30 of 100" in far.why_not["model_error_near_policy"]


def test_every_missing_part_has_its_reason() -> None:
    probe = ShiftProbe(states=torch.zeros(3, 1), updates=1, why_not={"model": "there was none to be had"})
    report = probe.look(Constant(0.0), None, step=1, past={}, generator=torch.Generator())
    assert set(report.why_not) == set(MEASURED)
    assert report.metrics() == {}
    assert report.why_not["rollout_flagged_share"] == "there was none to be had"
    assert report.why_not["value_gap"] == "the learner estimates no values"


def test_what_is_not_finite_becomes_a_reason() -> None:
    report = look(make_probe(), math.nan)
    assert "blows up" in report.why_not["rollout_uncertainty_ratio"]
    assert all(math.isfinite(value) for value in report.metrics().values())


def test_the_order_of_rows_does_not_matter() -> None:
    probe = make_probe()
    assert probe.returns is not None
    order = torch.randperm(50, generator=torch.Generator().manual_seed(5))
    rows = torch.randperm(240, generator=torch.Generator().manual_seed(6))
    returns = LoggedValues(*(part[rows] for part in probe.returns))
    turned = dataclasses.replace(probe, states=probe.states[order], returns=returns)
    one, other = look(probe, 0.5).metrics(), look(turned, 0.5).metrics()
    assert one == pytest.approx(other, abs=1e-6)
