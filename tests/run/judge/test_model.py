import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DiscretePolicy
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.dynamics.termination import NeverTerminates, TerminationHead
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.log.policies import DeterministicMode, is_stochastic
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.off_policy.value.model_value import model_value
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.fit import DYNAMICS_FILE, fit_dynamics_stage
from mbrl.run.judge import clone as clone_module
from mbrl.run.judge.clone import clone_behaviour
from mbrl.run.judge.model import ModelRequest, choose_model
from mbrl.run.judge.ope import OPESettings, ope_stage
from mbrl.run.policies import load_policy, save_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore, StageKey
from tests.off_policy.lqg import NoisyLinearPolicy, scalar_task
from tests.run.toy import SPACE, TINY_DYNAMICS, make_dataset, write_dataset


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def log(source: Path) -> Dataset:
    return open_dataset(str(source), LoadOptions())


def candidate(root: Path, source: Path, *, members: int = 3) -> tuple[Path, ResolvedConfig]:
    """A folder of a training as far as a model is looked for: its config."""
    resolved = resolve(
        arguments={
            "dataset": str(source),
            "algorithm": "bc",
            "dynamics": {**TINY_DYNAMICS, "members": members},
        }
    )
    folder = root / "toy" / "train_policy-bc"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(resolved.to_yaml())
    return folder, resolved


def choose(folder: Path, log: Dataset, workspace: Workspace, request: ModelRequest | None = None):
    return choose_model(folder, log, request or ModelRequest(), source="somewhere", workspace=workspace)


def test_a_run_takes_its_own_fit_only_if_asked_and_makes_it_where_it_is_missing(tmp_path, source, log):
    workspace, own = Workspace(RunStore(tmp_path / "runs")), ModelRequest(own=True)
    folder, resolved = candidate(tmp_path / "runs", source)
    assert choose(folder, log, workspace) is None
    made = choose(folder, log, workspace, own)
    assert made is not None
    assert made.fitted.dataset_hash == log.content_hash
    fitted, run = fit_dynamics_stage(resolved, log, workspace)  # the one that a model-based run would use
    assert made.file == run.path / DYNAMICS_FILE
    assert fitted.config == made.fitted.config
    assert choose(folder, log, workspace) is None  # nobody asked for it, though it is there
    found = choose(folder, log, workspace, own)
    assert found is not None
    assert found.identity() == made.identity()
    elsewhere = choose(folder, log, Workspace(RunStore(tmp_path / "other")), own)
    assert elsewhere is not None
    assert elsewhere.file == made.file  # beside the run itself
    key = StageKey("train_policy", "toy", "bc", 0, {})
    RunFolder(folder).begin(key, config=resolved.to_yaml(), facts={})
    (folder / "policies").mkdir()
    checkpoint = choose(folder / "policies" / "step-1.safetensors", log, workspace, own)
    assert checkpoint is not None
    assert checkpoint.file == made.file  # a policy of the run knows its run
    other = dataclasses.replace(log, episodes=log.episodes[:-1])
    refit = choose(folder, other, workspace, own)
    assert refit is not None
    assert refit.file != made.file  # a fit to other episodes is not taken unless it is named


def test_a_named_fit_is_used_whatever_it_was_fitted_to(tmp_path, source, log):
    workspace = Workspace(RunStore(tmp_path / "runs"))
    _, resolved = candidate(tmp_path / "a", source)
    _, run = fit_dynamics_stage(resolved, log, workspace)
    folder, _ = candidate(tmp_path / "b", source, members=4)
    other = dataclasses.replace(log, episodes=log.episodes[:-1])
    for path in (run.path, run.path / DYNAMICS_FILE):
        chosen = choose(folder, other, workspace, ModelRequest(dynamics=path))
        assert chosen is not None
        assert chosen.resolved.run.dynamics.members == 3  # its like is fitted to parts of the log
        assert chosen.resolved.run.dataset == "somewhere"
        assert chosen.for_evaluation(other).dataset_hash == log.content_hash
    never = choose(folder, log, workspace, ModelRequest(run.path, termination="never"))
    assert never is not None
    assert isinstance(never.for_evaluation(log).termination, NeverTerminates)
    learned = choose(folder, log, workspace, ModelRequest(run.path))
    assert learned is not None
    assert isinstance(learned.for_evaluation(log).termination, TerminationHead)
    assert learned.identity() != never.identity()
    with pytest.raises(ConfigError, match="known rule of termination"):
        choose(folder, log, workspace, ModelRequest(run.path, termination="task"))
    lqg = scalar_task().simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 3, 3, 0)
    with pytest.raises(ConfigError, match="3 observation and 2 action"):
        choose(folder, lqg, workspace, ModelRequest(run.path))


def policy_file(tmp_path: Path) -> Path:
    spec = ActorSpec("tanh_gaussian", SPACE, hidden=(4,))
    actor = build_actor(spec, Normaliser.identity(3), torch.Generator().manual_seed(0))
    return save_policy(tmp_path / "p.safetensors", actor, {"algorithm": "toy"})


@pytest.mark.slow
def test_the_report_holds_the_model_and_the_back_test(tmp_path, source, log, monkeypatch):
    monkeypatch.setattr(clone_module, "CLONE_UPDATES", 20)
    workspace = Workspace(RunStore(tmp_path / "runs"))
    folder, _ = candidate(tmp_path / "runs", source)
    chosen = choose(folder, log, workspace, ModelRequest(own=True))
    settings = OPESettings(discount=0.9, fqe=FQEConfig(hidden=(4,), updates=10), backtest=True)
    stored = load_policy(policy_file(tmp_path))
    run = ope_stage(stored, log, settings, workspace, chosen=chosen)
    report = run.summary()
    json.dumps(report, allow_nan=False)
    model = next(e for e in report["estimates"] if e["name"] == "model_value")
    assert model["point"] is not None
    steps = report["estimand"]["horizon"]
    assert len(report["diagnostics"]["stopped"]) == len(report["diagnostics"]["clip_rate"]) == steps
    assert 0 <= report["diagnostics"]["model_disagreement_share"] <= 1
    found = report["backtest"]
    assert "cannot carry values" in found["why_no_z"]["fqe"]
    assert set(found["z"]) == {"fqe", "model_value"}
    assert (found["z"]["model_value"] is None) == ("model_value" in found["why_no_z"])
    assert found["truth"]["mean"] == pytest.approx(report["baseline"]["value"], rel=0.2)
    fits = sorted(tmp_path.glob("runs/toy/fit_dynamics*"))
    assert len(fits) == 3  # the log, and each half of it
    again = ope_stage(stored, log, dataclasses.replace(settings, stochastic=True), workspace, chosen=chosen)
    assert again.path != run.path
    assert again.summary()["backtest"] == found  # made once for the log
    assert len(list(tmp_path.glob("runs/toy/backtest*"))) == 1
    without = ope_stage(stored, log, dataclasses.replace(settings, backtest=False), workspace)
    assert without.summary()["backtest"] is None
    assert "no estimator was asked" in without.summary()["why_not"]["backtest"]
    assert without.summary()["diagnostics"]["model_disagreement_share"] is None


def test_a_clone_draws_what_the_log_draws(monkeypatch):
    """Two policies share the log; their mean action was taken by nobody."""
    monkeypatch.setattr(clone_module, "CLONE_UPDATES", 400)
    dataset = make_dataset(count=4)
    spec = SpaceSpec(3, 2, (-1.0, -2.0), (1.0, 2.0))
    sides = [
        dataclasses.replace(e, actions=torch.full((len(e), 2), 0.8 * (-1) ** i).numpy())
        for i, e in enumerate(dataset.episodes)
    ]
    split = dataclasses.replace(dataset, episodes=tuple(sides), spec=spec)
    clone = clone_behaviour(split, torch.Generator().manual_seed(0))
    assert is_stochastic(clone)
    obs = torch.tensor(split.transitions().observation)
    drawn = clone.act(obs, torch.randn(len(obs), 2, generator=torch.Generator().manual_seed(1)))
    assert float((drawn[:, 0] > 0.5).float().mean()) == pytest.approx(0.5, abs=0.15)
    assert float((drawn[:, 0].abs() - 0.8).abs().median()) < 0.1


def test_a_clone_of_choices_has_their_probabilities(monkeypatch):
    """A mixture of densities over one-hot vectors would act by vectors that are no choices."""
    monkeypatch.setattr(clone_module, "CLONE_UPDATES", 400)
    rng = np.random.default_rng(0)
    n = 2000
    obs, mask = rng.normal(size=(n, 2)).astype(np.float32), np.ones((n, 3), dtype=np.bool_)
    mask[obs[:, 0] > 0, 2] = False
    chance = np.where(obs[:, 1:] > 0, [0.7, 0.3, 0.0], [0.2, 0.3, 0.5])
    chance = np.where(mask, chance, 0.0)
    chance /= chance.sum(1, keepdims=True)
    choice = (rng.random((n, 1)) > chance.cumsum(1)).sum(1)
    dataset = Dataset.from_arrays(
        obs, choice, np.zeros(n), np.zeros(n, dtype=np.bool_), np.arange(n) % 100 == 99, choices=3,
        infos={"action_mask": mask}, options=LoadOptions(order="trust"),
    )  # fmt: skip
    clone = clone_behaviour(dataset, torch.Generator().manual_seed(0))
    assert isinstance(clone, DiscretePolicy)
    found = clone.probs(torch.tensor(obs), torch.tensor(mask)).numpy()
    assert np.abs(found - chance).mean() < 0.05
    assert (found[~mask] == 0).all()
    continuous = clone_module.clone_identity(make_dataset().spec)
    assert (clone_module.clone_identity(dataset.spec)["logit_coef"], continuous["form"]) == (1e-4, "mixture")


def test_judges_are_taken_in_place_of_the_own_fit_and_the_own_fit_says_so(tmp_path, source, log):
    folder, resolved = candidate(tmp_path, source)
    run = resolved.run.model_copy(
        update={"judges": resolved.run.judges.model_copy(update={"max_updates": 20, "draws": "mean"})}
    )
    (folder / "config.yaml").write_text(dataclasses.replace(resolved, run=run).to_yaml())
    workspace = Workspace(RunStore(tmp_path))
    chosen = choose(folder, log, workspace, ModelRequest(judges=2))
    assert chosen is not None
    assert not chosen.is_own
    names = sorted(path.name[:20] for path in tmp_path.glob("*/fit_dynamics-*"))
    assert names == ["fit_dynamics-judge-s", "fit_dynamics-judge-s"]
    model = chosen.for_evaluation(log)
    assert model.dynamics.ensemble_size == 4
    assert model.limit == float("inf")
    assert 0 < model.threshold < float("inf")
    assert model.dataset_hash == log.content_hash
    assert chosen.identity() != choose(folder, log, workspace, ModelRequest(judges=1)).identity()
    again = choose(folder, log, workspace, ModelRequest(own=True))
    assert not again.is_own  # the run is model-free: it was trained in none
    resolved = resolve(arguments={"dataset": str(source), "algorithm": "mopo", "dynamics": TINY_DYNAMICS})
    (folder / "config.yaml").write_text(resolved.to_yaml())
    own = choose(folder, log, workspace, ModelRequest(own=True))
    assert own.is_own
    assert own.for_evaluation(log).is_own
    assert own.identity() != again.identity()


@pytest.mark.parametrize("margin", [0.05, None])
def test_judges_say_to_an_evaluation_what_they_say_to_a_training(tmp_path, source, log, margin):
    folder, resolved = candidate(tmp_path, source)
    asked = {"max_updates": 20, "draws": "mean", "box_margin": margin, "starts": 8, "termination": "never"}
    judges = resolved.run.judges.model_copy(update=asked)
    resolved = dataclasses.replace(resolved, run=resolved.run.model_copy(update={"judges": judges}))
    (folder / "config.yaml").write_text(resolved.to_yaml())
    workspace = Workspace(RunStore(tmp_path))
    chosen = choose(folder, log, workspace, ModelRequest(judges=2, termination="never"))
    policy = load_policy(policy_file(tmp_path)).policy
    (judged,) = chosen.judges.judge([policy])
    model = chosen.for_evaluation(log)
    found = model_value(
        model,
        DeterministicMode(policy),
        chosen.judges.starts,
        estimand=chosen.judges.horizon.estimand(1.0),
        box=model.box,
    )
    assert np.ptp(judged.returns) > 0.1
    np.testing.assert_allclose(found.values, judged.returns, rtol=1e-5, atol=1e-5)


def test_the_estimate_by_the_own_model_is_flagged_and_that_by_judges_is_not(tmp_path, source, log):
    folder, _ = candidate(tmp_path / "runs", source)
    values = {"dataset": str(source), "algorithm": "mopo", "dynamics": TINY_DYNAMICS}
    text = resolve(arguments=values, overrides=["judges.max_updates=20", "judges.draws=mean"]).to_yaml()
    (folder / "config.yaml").write_text(text)
    workspace = Workspace(RunStore(tmp_path / "runs"))
    stored = load_policy(policy_file(tmp_path))
    settings = OPESettings(discount=0.9, horizon=3, fqe=FQEConfig(hidden=(4,), updates=4), backtest=False)
    flags = {}
    for name, request in (("own", ModelRequest(own=True)), ("judges", ModelRequest(judges=2))):
        chosen = choose(folder, log, workspace, request)
        report = ope_stage(stored, log, settings, workspace, chosen=chosen).summary()
        (model,) = [one for one in report["estimates"] if one["name"] == "model_value"]
        assert model["point"] is not None
        flags[name] = model["flags"]
    assert "own_model" in flags["own"]
    assert "own_model" not in flags["judges"]
