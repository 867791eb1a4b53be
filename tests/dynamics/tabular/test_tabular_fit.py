"""A table as a fit like any other: judged, stored, rolled out; and exact values against the oracle."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand
from mbrl.core.rng import RngStreams
from mbrl.dynamics.artifact import DynamicsFacts, FittedDynamics, tensor_shapes
from mbrl.dynamics.config import AssessmentConfig, DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.dynamics.tabular.counts import fit_table
from mbrl.dynamics.tabular.model import TabularDynamics, TabularTermination
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.off_policy.value.exact_value import exact_model_value, state_probabilities, tables_of
from mbrl.off_policy.value.model_value import ModelValueConfig, model_value
from mbrl.planning.tabular.policy import TabularPolicy
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Box, Imagination, generate_rollouts
from mbrl.uncertainty.held_out import held_out_measures
from tests.off_policy.logs import TablePolicy, table_log
from tests.off_policy.tabular import MDP

QUICK = DynamicsConfig(
    kind="tabular", members=5, assessment=AssessmentConfig(segments=20, particles=20, horizon=5)
)


@pytest.fixture(scope="module")
def case() -> tuple[MDP, FittedDynamics, TablePolicy, np.ndarray, torch.Tensor]:
    mdp, dataset, policy, table = table_log(n=2000, steps=12)
    fitted = fit_dynamics(dataset, QUICK, RngStreams(0), measures=held_out_measures)
    starts = torch.from_numpy(np.stack([e.observations[0] for e in dataset.episodes]))
    return mdp, fitted, policy, table, starts


def test_the_exact_value_is_that_of_the_task_within_what_the_log_leaves_open(case):
    mdp, fitted, policy, table, starts = case
    model = EvaluationModel.of(fitted)
    tables = tables_of(model.dynamics)
    assert tables is not None
    for estimand in (Estimand(1.0, horizon=10), Estimand(0.9)):
        found = exact_model_value(model, tables, policy, starts, estimand=estimand, steps=50)
        estimate = found.estimate()
        assert estimate.point == pytest.approx(mdp.value(table, estimand), abs=4 * estimate.se)
        assert estimate.se < 0.1 * abs(estimate.point) + 0.1
        assert estimate.valid, estimate.why_not


def test_a_policy_is_worth_what_it_does_among_the_choices_that_are_allowed(case):
    _, fitted, _, table, starts = case
    part = fitted.model
    assert isinstance(part, TabularDynamics)
    masked = dataclasses.replace(part.table, allowed=part.table.allowed.clone())
    masked.allowed[:, 0] = False
    model = TabularDynamics(masked, inputs=part.inputs, targets=part.targets)
    chances = torch.from_numpy(table[part.table.codes.argmax(1).numpy()])
    others = chances * torch.tensor([0.0, 1.0, 1.0])
    by_hand = TabularPolicy(part, others / others.sum(1, keepdim=True))

    def values(world: TabularDynamics, policy: TabularPolicy) -> np.ndarray:
        judge = EvaluationModel(world, fitted.termination)
        estimand = Estimand(0.9)
        return exact_model_value(judge, (world,), policy, starts, estimand=estimand, steps=50).values

    asked = TabularPolicy(part, chances)
    np.testing.assert_allclose(values(model, asked), values(part, by_hand), rtol=1e-6)
    assert not np.allclose(values(model, asked), values(part, asked), rtol=1e-2)


def test_with_the_true_chances_it_is_the_linear_solve():
    mdp, dataset, policy, table = table_log(n=400, steps=12)
    fitted = fit_dynamics(dataset, QUICK, RngStreams(0), measures=held_out_measures)
    part = fitted.model
    assert isinstance(part, TabularDynamics)
    exact = part.table
    state, successor = exact.origin, exact.successor
    codes = exact.codes.argmax(1).numpy()  # one-hot states in the order of the table
    chance, ends, reward = (torch.zeros_like(exact.count) for _ in range(3))
    for k, (s, t) in enumerate(zip(state.tolist(), successor.tolist(), strict=True)):
        chance[:, k] = torch.tensor(mdp.transition[codes[s], :, codes[t]])
        reward[:, k] = torch.tensor(mdp.reward[codes[s]])
    # What is missing to 1 ends the task on a step back to the state itself.
    lost = 1.0 - torch.stack([chance[:, state == s].sum(1) for s in range(mdp.states)], 1)
    for s in range(mdp.states):
        own = int(((state == s) & (successor == s)).nonzero()[0, 0])
        ends[:, own] = lost[:, s] / (chance[:, own] + lost[:, s])
        chance[:, own] += lost[:, s]
    true = dataclasses.replace(exact, chance=chance[None], reward=reward[None], ends=ends[None])
    model = EvaluationModel(
        TabularDynamics(true, inputs=part.inputs, targets=part.targets), fitted.termination
    )
    starts = torch.eye(mdp.states)
    for estimand in (Estimand(0.95, horizon=7), Estimand(0.9)):
        q = mdp.q_discounted(table, 0.9) if estimand.horizon is None else mdp.q_finite(table, 0.95, 7)[0]
        found = exact_model_value(
            model, tables_of(model.dynamics) or (), policy, starts, estimand=estimand, steps=30
        )
        np.testing.assert_allclose(found.values[0], (table * q).sum(1), rtol=1e-5)


def test_rollouts_agree_with_the_solve(case):
    _, fitted, policy, _, starts = case
    model, estimand = EvaluationModel.of(fitted), Estimand(1.0, horizon=10)
    exact = exact_model_value(
        model, tables_of(model.dynamics) or (), policy, starts[:100], estimand=estimand, steps=10
    )
    rolled = model_value(
        model,
        policy,
        starts[:100],
        estimand=estimand,
        box=Box.unlimited(starts.shape[1]),
        config=ModelValueConfig(rollouts=4),
    )
    error = rolled.values.std() / np.sqrt(rolled.values.size)
    assert rolled.values.mean() == pytest.approx(exact.values.mean(), abs=4 * error)
    assert rolled.terminated.mean() == pytest.approx(exact.terminated.mean(), abs=0.05)


def test_it_is_stored_and_read_back_to_the_bit(case):
    _, fitted, policy, _, starts = case
    meta, tensors = fitted.to_tensors()
    facts = DynamicsFacts.model_validate(meta)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == tensor_shapes(facts, tensors)
    assert all(value.dtype == torch.float32 for value in tensors.values())
    again = FittedDynamics.from_tensors(facts, tensors)
    action = torch.eye(policy.act_dim)[:1].expand(len(starts), -1)
    first, second = (one.model.predict(starts, action) for one in (fitted, again))
    assert torch.equal(first.mean, second.mean)
    assert torch.equal(first.reward_variance, second.reward_variance)
    ends = [one.termination(starts, action, starts.flip(0)) for one in (fitted, again)]
    assert torch.equal(*ends)
    broken = {**tensors, "model.successor": tensors["model.successor"] + 100.0}
    with pytest.raises(ValueError, match="outside of the table"):
        FittedDynamics.from_tensors(facts, broken)


def test_imagined_steps_start_and_end_in_states(case):
    _, fitted, policy, _, starts = case
    found = generate_rollouts(
        Imagination(fitted.model, fitted.termination),
        policy,
        starts[:64],
        config=RolloutConfig(horizon=4, halt_reward=0.0),
        generator=torch.Generator().manual_seed(0),
    )
    steps = found.transitions()
    assert set(map(tuple, steps.next_observation.tolist())) <= set(map(tuple, torch.eye(4).tolist()))
    assert 0.02 < float(steps.terminated.float().mean()) < 0.4
    assert fitted.report.training.settled
    assert fitted.report.one_step.nrmse < 1.05


def test_intervals_of_tables_cover_the_value_about_as_often_as_they_say():
    covered, gaps, estimand = 0, [], Estimand(1.0, horizon=6)
    for seed in range(30):
        mdp, dataset, policy, table = table_log(n=80, steps=6, seed=seed)
        model = fit_table(dataset, dataset, members=7, prior=None, rng=RngStreams(seed))
        starts = torch.from_numpy(np.stack([e.observations[0] for e in dataset.episodes]))
        asked = EvaluationModel(model, TabularTermination(model))
        found = exact_model_value(asked, (model,), policy, starts, estimand=estimand, steps=6).estimate()
        truth = mdp.value(table, estimand)
        covered += found.ci95[0] <= truth <= found.ci95[1]
        gaps.append((found.point - truth) / found.se)
    assert covered >= 26  # of 30 at 95 %, 25 or fewer come once in 160
    assert abs(np.mean(gaps)) < 0.6


def test_what_gives_no_choice_is_refused_by_the_row(case):
    part = case[1].model
    assert isinstance(part, TabularDynamics)

    class Torn:
        act_dim = 3

        def act(self, obs: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
            return torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0]])[: len(obs)]

    codes = part.table.codes[:2]
    with pytest.raises(DataError, match=r"\[0\.6, 0\.4, 0\.0\] is no choice") as caught:
        state_probabilities(Torn(), codes, part.table.allowed[:2])
    assert caught.value.row == 1
