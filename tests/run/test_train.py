import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.algorithms.mopo import MOPO
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.dynamics.fit import DynamicsFit, split_for
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.evaluate import evaluate_stage
from mbrl.run.fit import fit_dynamics_stage
from mbrl.run.inputs import load_run_dataset
from mbrl.run.loop import renew
from mbrl.run.policies import open_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from mbrl.run.train import check_actions, make_recipe_context, train_policy_stage
from mbrl.testing import samples
from tests.run.toy import TINY_DYNAMICS, make_dataset, write_dataset

SMALL = [
    "algorithm.updates=20",
    "algorithm.learner.hidden=[8]",
    "algorithm.learner.batch_size=16",
    "log_interval=5",
    "checkpoint_interval=10",
]
SMALL_MOPO = [
    *SMALL,
    "select=last",
    "algorithm.rollout.starts=8",
    "algorithm.rollout.respect_trusted_horizon=false",
    "algorithm.refresh_interval=10",
]


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def config(dataset: Path, algorithm: str, *overrides: str, **arguments: Any) -> ResolvedConfig:
    values = {"dataset": str(dataset), "algorithm": algorithm, "dynamics": TINY_DYNAMICS, **arguments}
    return resolve(arguments=values, overrides=[*(SMALL_MOPO if algorithm == "mopo" else SMALL), *overrides])


def test_an_ensemble_is_fitted_once_and_shared(dataset_path: Path, tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path))
    first = train_policy_stage(config(dataset_path, "mopo"), workspace)
    fits = list(tmp_path.glob("*/fit_dynamics*"))
    assert len(fits) == 1
    stamp = (fits[0] / "DONE").stat().st_mtime_ns
    second = train_policy_stage(config(dataset_path, "mopo", "algorithm.penalty.coef=2"), workspace)
    assert first.path != second.path
    assert [path.name for path in tmp_path.glob("*/fit_dynamics*")] == [fits[0].name]
    assert (fits[0] / "DONE").stat().st_mtime_ns == stamp
    train_policy_stage(config(dataset_path, "mopo", seed=1), workspace)
    assert len(list(tmp_path.glob("*/fit_dynamics*"))) == 2


def test_what_does_not_enter_a_result_does_not_enter_its_hash(dataset_path: Path, tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path))
    first = train_policy_stage(config(dataset_path, "bc"), workspace)
    again = train_policy_stage(config(dataset_path, "bc", "log_interval=3", "dynamics.members=4"), workspace)
    assert again == first
    other = train_policy_stage(config(dataset_path, "bc", "algorithm.learner.learning_rate=1e-3"), workspace)
    assert other != first


def test_a_run_folder_holds_everything(dataset_path: Path, tmp_path: Path) -> None:
    run = train_policy_stage(config(dataset_path, "bc"), Workspace(RunStore(tmp_path)))
    names = {path.name for path in run.path.iterdir()}
    assert {
        "config.yaml",
        "manifest.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "policy.safetensors",
        "summary.json",
        "DONE",
    } <= names
    summary, manifest = run.summary(), run.manifest()
    assert summary["updates"] == 20
    assert summary["online"] is False
    assert summary["last_metrics"]["step"] == 20
    assert manifest["dataset_hash"] == make_dataset().content_hash
    assert resolve(run.path / "config.yaml").run == config(dataset_path, "bc").run


@pytest.mark.parametrize("policy_data", ["all", "train"])
def test_policies_learn_from_the_episodes_that_are_asked_for(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy_data: str
) -> None:
    """All rows by default; what the dynamics hold out stays unseen where the training split is asked for."""
    seen: list[torch.Tensor] = []
    build = MOPO.build

    def spy(algorithm: Any, context: RecipeContext) -> Training:
        assert context.transitions is not None
        seen.append(context.transitions.observation)
        return build(algorithm, context)

    monkeypatch.setattr(MOPO, "build", staticmethod(spy))
    resolved = config(dataset_path, "mopo", f"policy_data={policy_data}", seed=5)
    train_policy_stage(resolved, Workspace(RunStore(tmp_path)))
    fit = DynamicsFit(make_dataset(), resolved.run.dynamics, RngStreams(5))
    part = make_dataset() if policy_data == "all" else fit.split.train
    np.testing.assert_array_equal(seen[0].numpy(), part.transitions().observation)
    held = {row.tobytes() for row in fit.split.holdout.transitions().observation}
    assert any(row.tobytes() in held for row in seen[0].numpy()) == (policy_data == "all")


def test_imagined_steps_earn_what_the_rule_of_the_log_says(dataset_path: Path, tmp_path: Path) -> None:
    plain = open_dataset(str(dataset_path), LoadOptions())
    names = {"obs_names": ("a", "b", "c"), "act_names": ("u", "v"), "reward_rule": "-next_a ** 2 + v"}
    log = dataclasses.replace(plain, info=dataclasses.replace(plain.info, **names))
    workspace, resolved = (
        Workspace(RunStore(tmp_path)),
        config(dataset_path, "mopo", "algorithm.penalty.coef=0"),
    )
    fitted, _ = fit_dynamics_stage(resolved, log, workspace)
    context = make_recipe_context(resolved.run, log, None, lambda: fitted)
    training = RECIPES.get(resolved.run.recipe).build(resolved.run.algorithm, context)
    state = training.learner.init(RngStreams(0).at("init"))
    renew(training, state, 0, RngStreams(0).at("rollout"))
    batch = training.source.sample(64, RngStreams(0).at("batch"))
    rows = batch.from_model
    assert rows.any()
    earned = -(batch.next_observation[rows, 0] ** 2) + batch.action[rows, 1]
    torch.testing.assert_close(batch.reward[rows], earned)
    learned = dataclasses.replace(resolved, run=resolved.run.model_copy(update={"reward": "learned"}))
    assert fit_dynamics_stage(learned, log, workspace)[0].known_reward is None
    assert fit_dynamics_stage(resolved, plain, workspace)[0].known_reward is None


@pytest.mark.parametrize("policy_data", ["all", "train"])
def test_the_normaliser_knows_what_the_policy_learns_from(
    dataset_path: Path, tmp_path: Path, policy_data: str
) -> None:
    resolved = config(dataset_path, "bc", f"policy_data={policy_data}")
    run = train_policy_stage(resolved, Workspace(RunStore(tmp_path)))
    dataset = load_run_dataset(resolved.run, Workspace(RunStore(tmp_path)))
    parts = {"all": dataset, "train": split_for(resolved.run.dynamics, dataset, RngStreams(0)).train}
    mean = open_policy(run.path).policy.normaliser.mean.numpy()
    for name, part in parts.items():
        rows = part.transitions().observation.astype(np.float64)
        assert np.allclose(mean, rows.mean(0), rtol=1e-5) == (name == policy_data)


def test_an_interrupted_fit_continues_to_the_same_bits(
    dataset_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved, dataset = config(dataset_path, "bc"), make_dataset()
    whole, _ = fit_dynamics_stage(resolved, dataset, Workspace(RunStore(tmp_path / "whole")))
    epochs = [0]
    run_epoch = DynamicsFit.run_epoch

    def dying(fit: DynamicsFit) -> None:
        if epochs[0] == 3:
            raise KeyboardInterrupt
        epochs[0] += 1
        run_epoch(fit)

    monkeypatch.setattr(DynamicsFit, "run_epoch", dying)
    workspace = Workspace(RunStore(tmp_path / "parts"))
    with pytest.raises(KeyboardInterrupt):
        fit_dynamics_stage(resolved, dataset, workspace)
    monkeypatch.undo()
    parts, run = fit_dynamics_stage(resolved, dataset, workspace)
    assert run.manifest()["resumes"] == 1
    first, second = whole.to_tensors(), parts.to_tensors()
    assert json.dumps(first[0]) == json.dumps(second[0])
    for name, value in first[1].items():
        assert torch.equal(value, second[1][name]), name


def test_evaluation_needs_a_simulator(dataset_path: Path, tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path))
    run = train_policy_stage(config(dataset_path, "bc"), workspace)
    with pytest.raises(ConfigError, match="logs of a task without a simulator"):
        evaluate_stage(open_policy(run.path), workspace)


def test_a_task_of_other_sizes_is_refused(dataset_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Task 'hopper' has 11 observation and 3 action dimensions"):
        train_policy_stage(config(dataset_path, "bc", task="hopper"), Workspace(RunStore(tmp_path)))


def test_an_online_run_says_so_everywhere_and_is_evaluated_once(tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path))
    small = [*SMALL, "algorithm.warmup_steps=20", "algorithm.refresh_steps=20", "keep_policies=true"]
    small.append("evaluation.episodes=4")
    resolved = resolve(arguments={"algorithm": "sac_online", "task": "pendulum"}, overrides=small)
    run = train_policy_stage(resolved, workspace)
    assert run.path.parent.name == "online-pendulum"
    assert run.summary()["online"] is True
    assert run.manifest()["online"] is True
    assert open_policy(run.path).facts["online"] is True
    kept = sorted(path.name for path in (run.path / "policies").iterdir())
    assert kept == ["step-000000010.safetensors", "step-000000020.safetensors"]
    assert len(evaluate_stage(open_policy(run.path), workspace).summary()["episode_returns"]) == 4
    first = evaluate_stage(open_policy(run.path), workspace, episodes=2)
    summary = first.summary()
    assert len(summary["episode_returns"]) == 2
    assert summary["seed"] == 0
    assert evaluate_stage(open_policy(run.path), workspace, episodes=2).summary() == summary
    assert evaluate_stage(open_policy(run.path), workspace, episodes=3) != first


def test_an_online_recipe_takes_no_dataset(dataset_path: Path, tmp_path: Path) -> None:
    resolved = resolve(arguments={"algorithm": "sac_online", "dataset": str(dataset_path)})
    with pytest.raises(ConfigError, match="trains in a simulator"):
        train_policy_stage(resolved, Workspace(RunStore(tmp_path)))


def test_a_method_for_other_actions_is_refused_before_anything_is_fitted() -> None:
    log = samples.make_dataset(space=samples.CHOICES)
    resolved = resolve(arguments={"algorithm": "mopo"})
    with pytest.raises(
        ConfigError, match=r"3 choices \(down, stay, up\)\. Remedy: take the algorithm 'discrete_mopo'"
    ):
        check_actions(resolved, log, None)
    box = samples.make_dataset()
    with pytest.raises(ConfigError, match="Remedy: take the algorithm 'mopo'"):
        check_actions(resolve(arguments={"algorithm": "discrete_mopo"}), box, None)
    with pytest.raises(ConfigError, match="Remedy: take one of awac, bc,"):
        check_actions(resolve(arguments={"algorithm": "dqn"}), box, None)
    check_actions(resolved, box, None)
