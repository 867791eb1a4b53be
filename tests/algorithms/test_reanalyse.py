"""Decisions at logged states: what is accepted, what is stored, what a search is told."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.reanalyse import DecisionSource, ReanalyseConfig, draw_candidates
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.core.types import concat
from mbrl.data.sources import DatasetSource, ModelBuffer
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.planning.base import PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.members import split_members
from mbrl.run.loop import renew
from tests.algorithms.toy import make_context
from tests.planning.one_step import OneStep, registered
from tests.planning.worlds import make_problem, steady
from tests.run.toy import SPACE, transitions


@pytest.fixture(autouse=True)
def _one_step() -> Iterator[None]:
    with registered():
        yield


def config(**changes: Any) -> ReanalyseConfig:
    tree = {
        "learner": {"name": "distil", "hidden": [8], "batch_size": 16, "discount": 0.9},
        "planner": {"name": "one_step"}, "sims": 4, "states": 30, "search_from": 0, "target": "action",
    }  # fmt: skip
    return ReanalyseConfig.model_validate(tree | changes)


def make(dynamics: FittedDynamics, **changes: Any) -> tuple[Training, Any]:
    training = RECIPES.get("reanalyse").build(config(**changes), make_context(dynamics))
    return training, training.learner.init(RngStreams(0).at("init"))


def renewed(training: Training, state: Any, step: int = 0) -> dict[str, float]:
    metrics = renew(training, state, step, RngStreams(0).at("rollout", step))
    return {name: float(value) for name, value in metrics.items()}


def decisions(training: Training) -> Any:
    assert isinstance(training.source, DecisionSource)
    batch = training.source.sample(400, torch.Generator().manual_seed(0))
    rows = batch.from_model.nonzero()[:, 0]
    return batch, rows


def _rounded(action: torch.Tensor, value: torch.Tensor) -> list[list[float]]:
    return torch.cat([action, value[:, None]], 1).mul(100).round().tolist()


def test_no_search_before_its_time_and_logged_rows_alone_until_then(toy: FittedDynamics) -> None:
    training, state = make(toy, search_from=10)
    assert renewed(training, state, step=9) == {}
    batch, rows = decisions(training)
    assert (len(batch), len(rows)) == (400, 0)
    assert renewed(training, state, step=10)["reanalyse/acceptance_rate"] > 0.0
    batch, rows = decisions(training)
    assert (len(batch), len(rows)) == (400, 200)


def test_a_stored_decision_is_a_last_step_worth_its_lower_bound(toy: FittedDynamics) -> None:
    seen: list[PlanResult] = []
    plan = OneStep.plan

    def spy(self: OneStep, *args: Any, **kwargs: Any) -> PlanResult:
        seen.append(plan(self, *args, **kwargs))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OneStep, "plan", spy)
        training, state = make(toy)
        metrics = renewed(training, state)
    (result,) = seen
    assert metrics["reanalyse/acceptance_rate"] == 1.0  # the mode is a candidate: the best is never worse
    assert metrics["reanalyse/delta_lcb"] == pytest.approx(float(result.delta_lcb.mean()), rel=1e-5)
    batch, rows = decisions(training)
    assert bool(batch.terminated[rows].all())
    low, half = torch.tensor(SPACE.act_low), (torch.tensor(SPACE.act_high) - torch.tensor(SPACE.act_low)) / 2
    scaled = (batch.action[rows] - low) / half - 1
    stored = {tuple(row) for row in _rounded(scaled, batch.reward[rows])}
    planned = {tuple(row) for row in _rounded(result.action, result.value_lcb)}
    assert len(stored & planned) >= 0.9 * len(stored)


def test_a_margin_that_nothing_exceeds_leaves_the_clone_alone(toy: FittedDynamics) -> None:
    training, state = make(toy, margin=1e6)
    assert renewed(training, state)["reanalyse/acceptance_rate"] == 0.0
    batch, rows = decisions(training)
    assert len(rows) == 0
    training.learner.update(state, batch, RngStreams(0).at("update"))
    assert torch.equal(state.actor.net.flat, state.clone.net.flat)


def test_two_thirds_of_the_members_plan_and_the_others_judge() -> None:
    def formula(obs: torch.Tensor, action: torch.Tensor, member: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return obs, action[:, 0] - 0.1 * member * action[:, 0], *steady(obs[:, 0])

    with pytest.raises(ConfigError, match="three of them or more"):
        split_members(make_problem(formula, members=2))
    problem = make_problem(formula, members=5)
    first, others = split_members(problem)
    assert (first.step.ensemble_size, others.step.ensemble_size) == (4, 1)
    obs, action = torch.zeros(2, 1).double(), torch.ones(2, 1).double()
    every = problem.step(obs, action).reward
    assert torch.equal(others.step(obs, action).reward, every[4:])
    assert torch.equal(first.step(obs, action, member=torch.tensor([1, 3])).reward, every[[1, 3], [0, 1]])


@pytest.mark.parametrize(("sign", "is_open"), [(1.0, 1.0), (-1.0, 0.0)])
def test_gains_that_the_other_members_do_not_confirm_are_not_accepted(
    toy: FittedDynamics, sign: float, is_open: float
) -> None:
    def follow(judge: Any, obs: torch.Tensor, action: torch.Tensor, **_: Any) -> torch.Tensor:
        return sign * torch.ones(len(obs)).double()

    def halves(problem: Any) -> tuple[Any, Any]:
        return problem, problem

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbrl.planning.improvement.gate.followed_gain", follow)
        patch.setattr("mbrl.algorithms.reanalyse.split_members", halves)
        training, state = make(toy, gate="members", sims=16)
        metrics = renewed(training, state)
    assert metrics["reanalyse/gate_open"] == is_open
    assert (metrics["reanalyse/acceptance_rate"] > 0.0) == bool(is_open)


def test_the_logged_action_is_injected_unless_it_is_not_wanted(toy: FittedDynamics) -> None:
    training, state = make(toy, sims=1)
    assert renewed(training, state)["reanalyse/logged_rate"] > 0.0  # the mode and the logged action compete
    training, state = make(toy, sims=1, injects_logged=False)
    assert renewed(training, state)["reanalyse/logged_rate"] == 0.0


def test_uncertainty_makes_decisions_rarer(toy: FittedDynamics) -> None:
    """The hand-made model is unsure of large actions: a high price keeps decisions near the small ones."""
    sizes: list[float] = []
    for coef in (0.0, 1000.0):
        training, state = make(toy, penalty_coef=coef, sims=16, uncertainty={"measure": "ens_std"})
        renewed(training, state)
        batch, rows = decisions(training)
        sizes.append(float(batch.action[rows].abs().mean()))
    assert sizes[1] < 0.8 * sizes[0]


def test_draws_follow_the_weights_of_the_candidates() -> None:
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    candidates = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    draws = draw_candidates(weights, candidates, count=4, noise=RowNoise(torch.tensor([1, 2])))
    assert draws[0].flatten().tolist() == [1.0, 2.0, 2.0, 2.0]  # a slice of probability each
    assert draws[1].flatten().tolist() == [3.0] * 4


def test_weights_store_several_decisions_of_a_state(toy: FittedDynamics) -> None:
    training, state = make(toy, target="weights", draws=3)
    renewed(training, state)
    assert training.source.state_dict()["1"]["counters"]["size"] == 90


def test_what_does_not_fit_is_refused(toy: FittedDynamics) -> None:
    with pytest.raises(ValidationError, match="target=action"):
        config(learner={"name": "distil", "learns_search_values": True}, target="weights")
    with pytest.raises(ValidationError, match="one of"):
        config(planner={"horizon": 3})
    training, state = make(toy, learner={"name": "bc", "form": "gaussian", "hidden": [8]})
    with pytest.raises(ConfigError, match="distil"):
        renewed(training, state)


def test_a_source_of_decisions_survives_its_state() -> None:
    real = DatasetSource(transitions())

    def make_source() -> tuple[DecisionSource, ModelBuffer]:
        ring = ModelBuffer(64, real.layout)
        return DecisionSource(real, ring, improved_ratio=0.25), ring

    source, ring = make_source()
    flags = torch.ones(len(transitions()), dtype=torch.bool)
    ring.push(dataclasses.replace(transitions(), from_model=flags))
    other, _ = make_source()
    other.load_state_dict(source.state_dict())
    first, second = (s.sample(16, torch.Generator().manual_seed(3)) for s in (source, other))
    assert torch.equal(concat([first]).observation, second.observation)
    assert int(second.from_model.sum()) == 4
