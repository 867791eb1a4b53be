"""Networks over states as a fit like any other: chances, refusals, storage, resumption, policies in it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import mbrl
from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import DynamicsFacts, FittedDynamics, tensor_shapes
from mbrl.dynamics.categorical.members import CategoricalMembers
from mbrl.dynamics.categorical.model import CategoricalDynamics
from mbrl.dynamics.categorical.temperature import held_out_nll
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics
from mbrl.dynamics.termination import NeverTerminates, TerminationHead
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.off_policy.value.model_value import ModelValueConfig, model_value
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Box, Imagination, generate_rollouts
from mbrl.uncertainty.held_out import held_out_measures
from tests.off_policy.logs import table_log

from .worlds import EARNED, LEVELS, SIDE, chain_log, grid_log, grid_values, small


def fit(data: Dataset, seed: int = 0, **changes) -> FittedDynamics:
    return fit_dynamics(data, small(**changes), RngStreams(seed), measures=held_out_measures)


def counts(data: Dataset) -> np.ndarray:
    """`[s, a, s']` shares of logged steps of the chain, whose observations are one-hot."""
    rows, found = data.transitions(), np.zeros((3, 2, 3))
    at = (rows.observation.argmax(1), rows.action.argmax(1), rows.next_observation.argmax(1))
    np.add.at(found, at, 1.0)
    return found / found.sum(2, keepdims=True)


def pairs(codes: torch.Tensor, choices: int) -> tuple[torch.Tensor, torch.Tensor]:
    return codes.repeat_interleave(choices, 0), torch.eye(choices).repeat(len(codes), 1)


@pytest.fixture(scope="module")
def ends() -> tuple[Dataset, FittedDynamics]:
    """A table of four states in which every step may end the task."""
    data = table_log(n=120, steps=10)[1]
    return data, fit(data, max_updates=200)


def test_chances_of_a_chain_are_those_of_its_counts():
    data = chain_log(200)
    # Without resamples, and with snapshots of every gain: chances are then those of the training steps.
    model = fit(data, max_updates=800, patience=50, improvement=0.0, bootstrap=False).model
    assert isinstance(model, CategoricalDynamics)
    obs, action = pairs(torch.eye(3), 2)
    found = model.probabilities(obs, action).mean(0)
    order = model.states.codes[model.states.entered].argmax(1)
    np.testing.assert_allclose(found.numpy(), counts(data).reshape(6, 3)[:, order], atol=0.05)
    posterior = model.predict(obs, action)
    expected = (counts(data) @ EARNED + np.arange(2)).ravel()
    np.testing.assert_allclose(posterior.reward_mean.mean(0).numpy(), expected, atol=0.15)


@pytest.mark.parametrize("code", ["ids", "wide"])
def test_states_need_not_be_coordinates(code):
    """Ids without order in one column, and one-hot vectors of more numbers than are read as such."""
    codes = {"ids": np.array([[71.0], [3.0], [40.0]]), "wide": np.eye(80)[[70, 3, 40]]}[code]
    data = chain_log(100, code=lambda _: codes)
    model = fit(data, max_updates=800, patience=50).model
    obs, action = pairs(torch.tensor(codes, dtype=torch.float32), 2)
    found = model.probabilities(obs, action).mean(0)
    order = model.state(torch.tensor(codes, dtype=torch.float32))
    np.testing.assert_allclose(found.numpy()[:, order], counts(chain_log(100)).reshape(6, 3), atol=0.08)


def test_it_is_stored_and_read_back_to_the_bit(ends):
    data, fitted = ends
    assert isinstance(fitted.termination, TerminationHead)
    meta, tensors = fitted.to_tensors()
    facts = DynamicsFacts.model_validate_json(json.dumps(meta), strict=True)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == tensor_shapes(facts, tensors)
    assert all(value.dtype == torch.float32 for value in tensors.values())
    again = FittedDynamics.from_tensors(facts, tensors)
    obs, action = pairs(torch.eye(4), 3)
    first, second = (one.model.predict(obs, action) for one in (fitted, again))
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name))
    noise, member = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    draws = [one.model.draw_member(obs, action, member, noise) for one in (fitted, again)]
    assert all(torch.equal(*pair) for pair in zip(*draws, strict=True))
    assert torch.equal(fitted.termination(obs, action, obs), again.termination(obs, action, obs))
    assert again.report == fitted.report
    assert len(data) == 120


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("entered", lambda value: value + 100.0, "successors lie outside"),
        ("entered", lambda value: value.flip(0), "no ascending list"),
        ("follows", lambda value: value + 100.0, "moves lead outside"),
        ("log_share", lambda value: value + 100.0, "no share"),
        ("logit_temperature", lambda value: -value, "not positive"),
    ],
)
def test_a_file_that_is_none_is_refused(ends, name, change, said):
    meta, tensors = ends[1].to_tensors()
    facts = DynamicsFacts.model_validate(meta)
    key = f"model.{name}" if name == "logit_temperature" else f"model.base.{name}"
    with pytest.raises(ValueError, match=said):
        FittedDynamics.from_tensors(facts, tensors | {key: change(tensors[key])})


def test_tensors_of_other_sizes_have_other_shapes(ends):
    meta, tensors = ends[1].to_tensors()
    facts = DynamicsFacts.model_validate(meta)
    for key in ("model.net.flat", "model.features", "model.base.follows", "model.inputs.mean"):
        for other in (
            {**tensors, key: tensors[key][..., :-1]},
            {k: v for k, v in tensors.items() if k != key},
        ):
            shapes = {name: tuple(value.shape) for name, value in other.items()}
            assert tensor_shapes(facts, other) != shapes


def test_interrupted_and_resumed_fits_have_the_same_bits():
    data, config = table_log(n=60, steps=10)[1], small(max_updates=150, min_epoch_updates=50)
    states = []
    straight = fit_dynamics(
        data,
        config,
        RngStreams(1),
        measures=held_out_measures,
        on_epoch=lambda running: states.append((running.stage, running.state_dict())),
    )
    stages = [stage for stage, _ in states]
    assert {"ensemble", "termination", "done"} == set(stages)
    for cut in (0, 1, stages.index("termination")):

        def restore(running, state=states[cut][1]):
            running.load_state_dict(state)
            return True

        resumed = fit_dynamics(data, config, RngStreams(1), measures=held_out_measures, restore=restore)
        (meta, tensors), (other_meta, other) = straight.to_tensors(), resumed.to_tensors()
        assert meta == other_meta
        assert all(torch.equal(tensors[name], other[name]) for name in tensors)


def test_a_checkpoint_holds_nothing_that_needs_a_pickle(tmp_path):
    running = DynamicsFit(chain_log(30), small(), RngStreams(2))
    running.run_epoch()
    torch.save(running.state_dict(), tmp_path / "state.pt")
    other = DynamicsFit(chain_log(30), small(), RngStreams(2))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    running.run_epoch()
    other.run_epoch()
    assert torch.equal(running.ensemble.net.flat, other.ensemble.net.flat)
    assert torch.equal(running.ensemble.rewards, other.ensemble.rewards)


def test_elites_are_the_members_with_the_least_error():
    running = DynamicsFit(chain_log(40), small(), RngStreams(0))
    while running.stage != "done":
        running.run_epoch()
    found = running.finish(held_out_measures)
    best = found.report.training.member_best
    assert found.report.training.elites == tuple(np.argsort(best)[:2].tolist())
    assert isinstance(found.termination, NeverTerminates)
    elites = list(found.report.training.elites)
    assert torch.equal(found.model.features, running.ensemble.features[elites])


def test_what_is_no_log_of_discrete_states_is_refused():
    data = chain_log(30)
    bent = tuple(dataclasses.replace(e, actions=0.5 * e.actions) for e in data.episodes)
    box = dataclasses.replace(data.spec, choices=None)
    with pytest.raises(DataError, match="actions are continuous") as refused:
        fit(dataclasses.replace(data, episodes=bent, spec=box))
    assert refused.value.field == "actions"
    assert "kind=gaussian" in str(refused.value.remedy)
    rng = np.random.default_rng(0)
    shaken = [e.observations + rng.normal(size=e.observations.shape).astype("f4") for e in data.episodes]
    noisy = tuple(dataclasses.replace(e, observations=o) for e, o in zip(data.episodes, shaken, strict=True))
    with pytest.raises(DataError, match="do not repeat") as refused:
        fit(dataclasses.replace(data, episodes=noisy))
    assert refused.value.field == "observations"
    assert "kind=gaussian" in str(refused.value.remedy)


def test_what_would_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("mbrl.dynamics.categorical.members.MAX_ENTRIES", 100)
    running = DynamicsFit(chain_log(30), DynamicsConfig(kind="gaussian"), RngStreams(0))
    with pytest.raises(DataError, match=r"3 states are too many for 3 members of 32 units"):
        CategoricalMembers(chain_log(30), running.split, small(), rng=RngStreams(0))


def test_training_through_several_steps_is_refused():
    with pytest.raises(ValueError, match="means, which are no states"):
        small(horizon={"steps": 3})


def test_imagined_steps_end_in_states_and_as_often_as_logged_ones(ends):
    data, fitted = ends
    starts = torch.from_numpy(np.stack([e.observations[0] for e in data.episodes]))
    policy = table_log(n=120, steps=10)[2]
    found = generate_rollouts(
        Imagination(fitted.model, fitted.termination),
        policy,
        starts,
        config=RolloutConfig(horizon=4, halt_reward=0.0),
        generator=torch.Generator().manual_seed(0),
    )
    steps = found.transitions()
    assert set(map(tuple, steps.next_observation.tolist())) <= set(map(tuple, torch.eye(4).tolist()))
    assert 0.02 < float(steps.terminated.float().mean()) < 0.4


@pytest.mark.slow
def test_a_policy_is_trained_and_judged_in_it(tmp_path):
    data = table_log(n=100, steps=10)[1]
    data = dataclasses.replace(data, spec=chain_log(2).spec.discrete(4, 3))
    dynamics = small(max_updates=100).model_dump(mode="json")
    settings = {"store": tmp_path, "progress": False}
    run = mbrl.train(
        data,
        "discrete_mopo",
        dynamics=dynamics,
        updates=20,
        overrides=["algorithm.rollout.respect_trusted_horizon=false", "select=last"],
        **settings,
    )
    model = mbrl.fit(data, dynamics, **settings)
    found = mbrl.ope(run, data, dynamics=model, updates=20, **settings)
    estimate = found.report.proposed_report.estimate("model_value")
    assert estimate is not None
    assert np.isfinite(estimate.point)


@pytest.mark.slow
def test_a_grid_too_large_for_a_table_is_learned_and_policies_are_worth_what_they_are_worth():
    data = grid_log(1200, 40)
    with pytest.raises(DataError, match="kind=categorical"):
        fit_dynamics(data, DynamicsConfig(kind="tabular"), RngStreams(0), measures=held_out_measures)
    quick = {"segments": 5, "particles": 5, "horizon": 1, "max_rows": 100, "bootstrap_draws": 10}
    fitted = fit(data, members=2, max_updates=150, assessment=quick)
    model = fitted.model
    assert len(model.states.codes) > 7_800
    other = grid_log(20, 25, seed=9).transitions()
    known = np.isin(model.state(torch.tensor(other.next_observation)).numpy(), model.states.entered.numpy())
    nll = held_out_nll(model, other.select(np.flatnonzero(known)))
    marginal = -float(model.states.log_share.double().exp() @ model.states.log_share.double())
    assert marginal > 8.5
    assert nll < 1.4  # the noise of the task is worth 0.96
    estimand = Estimand(0.9)

    def choice(states: np.ndarray) -> np.ndarray:
        return np.where(states[:, 0] <= states[:, 1], 0, 1)

    class Diagonal:
        act_dim = 4

        def act(self, obs, noise=None):
            return torch.eye(4)[torch.from_numpy(choice(obs.numpy()))]

    rng = np.random.default_rng(0)
    starts = rng.integers(0, [SIDE, SIDE, LEVELS], (60, 3))
    found = model_value(
        EvaluationModel(model, fitted.termination),
        Diagonal(),
        torch.tensor(starts, dtype=torch.float32),
        estimand=estimand,
        box=Box.unlimited(3),
        config=ModelValueConfig(rollouts=2),
    )
    exact = grid_values(choice, 0.9)[tuple(starts.T)]
    error = found.values.std(0).mean() / np.sqrt(found.values.size)
    assert found.values.mean() == pytest.approx(exact.mean(), rel=0.05, abs=4 * error)
