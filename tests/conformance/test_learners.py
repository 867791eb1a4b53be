"""Laws that every learner, every recipe and every shipped algorithm keeps; new entries are tested unasked."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.data.normaliser import fit_moments
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.envs.specs import load_task
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.nets.normaliser import Normaliser
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.config import find_part, parse_algorithm, part_names
from mbrl.run.documents import read_yaml, set_at
from mbrl.run.loop import LoopSettings, renew, train
from mbrl.uncertainty.held_out import held_out_measures
from tests.run.toy import SPACE, TINY_DYNAMICS, assert_same, make_dataset, transitions

UPDATES = 24
SETTINGS = LoopSettings(updates=UPDATES, log_interval=7, checkpoint_interval=5, config_hash="law")

SMALL: dict[str, Any] = {
    "updates": UPDATES,
    "learner.hidden": [8, 8],
    "learner.batch_size": 16,
    "refresh_interval": 10,
    "refresh_steps": 20,
    "warmup_steps": 20,
    "rollout.starts": 12,
    "rollout.horizon": 2,
    "rollout.respect_trusted_horizon": False,
    "states": 12,
    "sims": 8,
    "search_from": 5,
}


class Stop(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def dynamics() -> FittedDynamics:
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    return fit_dynamics(make_dataset(), config, RngStreams(0), measures=held_out_measures)


def normaliser() -> Normaliser:
    mean, std = fit_moments(make_dataset().transitions().observation)
    return Normaliser(torch.from_numpy(mean), torch.from_numpy(std))


def make_context(is_online: bool, dynamics: FittedDynamics) -> RecipeContext:
    if is_online:
        task = load_task("pendulum")
        return RecipeContext(task.space, Normaliser.identity(task.obs_dim), task=task)
    episode = torch.tensor(make_dataset().transitions().episode)
    return RecipeContext(SPACE, normaliser(), transitions(), dynamics, episode=episode)


def small_algorithm(name: str) -> tuple[str, Any]:
    tree = read_yaml(find_part("algorithms", name))
    known = {*RECIPES.get(tree["recipe"]).Config.model_fields}
    for key, value in SMALL.items():
        if key.partition(".")[0] in known:
            set_at(tree, tuple(key.split(".")), value)
    return parse_algorithm(tree, where=name)


def build(name: str, dynamics: FittedDynamics) -> tuple[Training, RecipeContext]:
    recipe_name, config = small_algorithm(name)
    recipe = RECIPES.get(recipe_name)
    context = make_context(recipe.is_online, dynamics)
    return recipe.build(config, context), context


def run(training: Training, folder: Path, seed: int = 0) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    train(training, folder=folder, rng=RngStreams(seed), settings=SETTINGS)
    return final(folder)


def final(folder: Path) -> dict[str, Any]:
    found = CheckpointFolder(folder / "checkpoints", "law").load_latest(pytest.fail)
    assert found is not None
    assert found[0] == UPDATES
    return {"learner": found[1]["learner"], "source": found[1]["source"]}


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def cut_at(training: Training, step: int) -> Training:
    """The same training, whose process dies in the middle of update `step`."""
    learner = copy.copy(training.learner)
    update, count = learner.update, [0]

    def dying(state: Any, batch: Any, generator: Any) -> Any:
        if count[0] == step:
            raise Stop
        count[0] += 1
        return update(state, batch, generator)

    learner.update = dying  # pyright: ignore[reportAttributeAccessIssue]
    return Training(
        learner,
        training.source,
        training.refresh,
        training.refresh_interval,
        training.batch_size,
        training.value_bounds,
    )


def test_every_recipe_and_learner_has_a_shipped_algorithm() -> None:
    algorithms = [small_algorithm(name) for name in part_names("algorithms")]
    assert {recipe for recipe, _ in algorithms} == set(RECIPES.names())
    assert {config.learner.name for _, config in algorithms} == set(LEARNERS.names())


@pytest.mark.parametrize("name", part_names("algorithms"))
def test_same_seed_same_bits_other_seed_other_bits(
    name: str, dynamics: FittedDynamics, tmp_path: Path
) -> None:
    first = run(build(name, dynamics)[0], tmp_path / "a")
    assert_same(first, run(build(name, dynamics)[0], tmp_path / "b"))
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    with pytest.raises(AssertionError):
        assert_same(first, run(build(name, dynamics)[0], tmp_path / "c", seed=1))


@pytest.mark.parametrize("cut", [3, 5, 10, 12, 23])
@pytest.mark.parametrize("name", part_names("algorithms"))
def test_a_resumed_run_repeats_the_uninterrupted_one(
    name: str, cut: int, dynamics: FittedDynamics, tmp_path: Path
) -> None:
    whole = run(build(name, dynamics)[0], tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(Stop):
        run(cut_at(build(name, dynamics)[0], cut), parts)
    assert_same(run(build(name, dynamics)[0], parts), whole)
    assert metrics(parts) == metrics(tmp_path / "whole")


@pytest.mark.parametrize("name", part_names("algorithms"))
def test_training_leaves_the_data_alone(name: str, dynamics: FittedDynamics, tmp_path: Path) -> None:
    training, context = build(name, dynamics)
    before = copy.deepcopy(context.transitions)
    _, tensors = dynamics.to_tensors()
    run(training, tmp_path)
    assert_same(dynamics.to_tensors()[1], tensors)
    if before is not None and context.transitions is not None:
        for field in ("observation", "action", "reward", "next_observation", "terminated"):
            assert torch.equal(getattr(before, field), getattr(context.transitions, field))


@pytest.mark.parametrize("name", part_names("algorithms"))
def test_the_evaluation_action_is_deterministic_and_inside_the_box(
    name: str, dynamics: FittedDynamics, tmp_path: Path
) -> None:
    training, context = build(name, dynamics)
    outcome = train(training, folder=tmp_path, rng=RngStreams(0), settings=SETTINGS)
    policy = training.learner.policy(outcome.state)
    obs = 100.0 * torch.randn(64, context.space.obs_dim, generator=torch.Generator().manual_seed(0))
    action = policy.act(obs)
    assert torch.equal(action, policy.act(obs))
    assert bool((action >= torch.tensor(context.space.act_low)).all())
    assert bool((action <= torch.tensor(context.space.act_high)).all())


class Audit(TorchDispatchMode):
    """Notes reads of a number out of a tensor, and tensors with a row for each logged transition.

    Args:
        rows: of the log.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.reads: list[str] = []
        self.copies: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func)
        if any(read in name for read in ("_local_scalar_dense", "equal.default", "is_nonzero")):
            self.reads.append(name)
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == self.rows:
                self.copies.append(name)
        return result


def test_the_audit_finds_what_it_looks_for() -> None:
    with Audit(5) as audit:
        weight = torch.ones(5, requires_grad=True)
        if float(weight.detach().sum()) > 0:
            (2 * weight).sum().backward()
    assert len(audit.reads) == 1
    assert len(audit.copies) >= 3  # two of ones, forward and backward


@pytest.mark.parametrize("name", part_names("algorithms"))
def test_an_update_reads_no_number_back_and_copies_no_dataset(
    name: str, dynamics: FittedDynamics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read stops the stream of a GPU; a copy of the log in every update is its size in traffic."""
    training, context = build(name, dynamics)
    state = training.learner.init(RngStreams(0).at("init"))
    renew(training, state, 0, RngStreams(0).at("rollout", 0))
    rows = 360 if context.transitions is None else len(context.transitions)
    audit = Audit(rows)
    for method in ("numpy", "tolist"):
        monkeypatch.setattr(torch.Tensor, method, lambda *_: pytest.fail("an update left torch"))
    with audit:
        for step in range(2):
            batch = training.source.sample(training.batch_size, RngStreams(0).at("batch", step))
            training.learner.update(state, batch, RngStreams(0).at("update", step))
    assert audit.reads == []
    assert audit.copies == []


@pytest.mark.parametrize("name", LEARNERS.names())
def test_update_mutates_the_state_and_nothing_else(name: str) -> None:
    entry = LEARNERS.get(name)
    learner = entry(entry.Config.model_validate({"hidden": (8, 8)}), LearnerContext(SPACE, normaliser(), 10))
    state = learner.init(RngStreams(0).at("init"))
    before = copy.deepcopy(state.state_dict())
    batch = transitions()
    snapshot = copy.deepcopy(batch)
    metric = learner.update(state, batch, RngStreams(0).at("update"))
    for field in ("observation", "action", "reward", "next_observation", "terminated", "from_model"):
        assert torch.equal(getattr(batch, field), getattr(snapshot, field))
    with pytest.raises(AssertionError):
        assert_same(before, state.state_dict())
    for value in metric.values():
        assert value.ndim == 0
        assert not value.requires_grad


@pytest.mark.parametrize("name", LEARNERS.names())
def test_a_state_survives_its_state_dict(name: str) -> None:
    entry = LEARNERS.get(name)
    learner = entry(entry.Config.model_validate({"hidden": (8, 8)}), LearnerContext(SPACE, normaliser(), 10))
    state, other = learner.init(RngStreams(0).at("init")), learner.init(RngStreams(9).at("init"))
    batch = transitions()
    learner.update(state, batch, RngStreams(0).at("update", 0))
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    for s in (state, other):
        learner.update(s, batch, RngStreams(0).at("update", 1))
    assert_same(state.state_dict(), other.state_dict())
    obs = torch.from_numpy(np.asarray(make_dataset().transitions().observation[:8]).copy())
    assert torch.equal(learner.policy(state).act(obs), learner.policy(other).act(obs))
