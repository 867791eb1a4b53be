"""Fits in the store, logs that they relabel, runs that imagine by them, and policies that rank by them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import mbrl
from mbrl.api.preferences import (
    best_of,
    fit_reward,
    inspect_preferences,
    next_pairs,
    synthetic_preferences,
)
from mbrl.core.errors import ConfigError, DataError, FileError
from mbrl.core.progress import SilentProgress
from mbrl.preferences.fit import RewardConfig
from mbrl.preferences.segments import log_steps
from mbrl.run.config import resolve
from mbrl.run.inputs import known_reward, reward_identity
from mbrl.run.preferences import reward as stage_module
from mbrl.run.preferences.queue import read_queue
from mbrl.run.preferences.reward import fit_reward_stage, open_reward
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from mbrl.testing.samples import make_dataset

LOG = make_dataset()
ANSWERS = synthetic_preferences(LOG, pairs=30, length=5).preferences
SMALL = RewardConfig(members=2, hidden=(8,), max_updates=30, look_interval=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> "mbrl.api.preferences.RewardModel":
    store = tmp_path_factory.mktemp("runs")
    return fit_reward(LOG, ANSWERS, store=store, progress=False, **SMALL.model_dump())


def test_a_fit_is_found_again_and_another_one_is_another(tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path), SilentProgress())
    first = fit_reward_stage(LOG, ANSWERS, SMALL, workspace)
    assert fit_reward_stage(LOG, ANSWERS, SMALL, workspace).path == first.path
    fewer = dataclasses.replace(ANSWERS, answers=ANSWERS.answers[:20])
    assert fit_reward_stage(LOG, fewer, SMALL, workspace).path != first.path


def test_a_killed_stage_goes_on_to_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_reward_stage(LOG, ANSWERS, SMALL, Workspace(RunStore(tmp_path / "a"), SilentProgress()))
    real, looks = stage_module.fit_reward, []

    def killed(fit, state, *, on_look):
        def look(state) -> None:
            on_look(state)
            looks.append(state.updates)
            if len(looks) == 2:
                raise KeyboardInterrupt

        return real(fit, state, on_look=look)

    monkeypatch.setattr(stage_module, "fit_reward", killed)
    workspace = Workspace(RunStore(tmp_path / "b"), SilentProgress())
    with pytest.raises(KeyboardInterrupt):
        fit_reward_stage(LOG, ANSWERS, SMALL, workspace)
    again = fit_reward_stage(LOG, ANSWERS, SMALL, workspace)
    assert looks == [10, 20, 30]
    assert (again.path / "reward.safetensors").read_bytes() == (
        whole.path / "reward.safetensors"
    ).read_bytes()


def test_the_report_says_what_speaks_against_the_model(model) -> None:
    assert any("held-out pairs judge the model" in text for text in model.report.warnings)
    assert any("4 of 12 episodes terminate" in text for text in model.report.warnings)
    assert model.report.correlation is not None
    assert "reliability" in str(model)
    assert set(model.to_dict()) >= {"held_out", "answers", "path"}


def test_a_relabelled_log_names_the_old_one_the_model_and_how_members_were_joined(
    model, tmp_path: Path
) -> None:
    new = mbrl.relabel(LOG, reward_model=model.path, pessimism=1.5, offset=0.25, out=tmp_path / "new")
    assert new.info.derived_from == LOG.content_hash
    assert new.info.provenance["reward"] == f"reward model {model.stored.content}, mean - 1.5 std + 0.25"
    wanted = model.stored.model.reward(*log_steps(LOG), pessimism=1.5).numpy() + np.float32(0.25)
    np.testing.assert_allclose(np.concatenate([e.rewards for e in new.episodes]), wanted, atol=1e-6)
    assert new.content_hash != LOG.content_hash
    with pytest.raises(ConfigError, match="one reward"):
        mbrl.relabel(LOG, reward="obs_0", reward_model=model)


def test_imagined_steps_earn_what_logged_ones_do(model, tmp_path: Path) -> None:
    new = mbrl.relabel(LOG, reward_model=model, pessimism=0.5, offset=2.0)
    path = model.stored.path
    run = resolve(arguments={"algorithm": "mopo", "reward": str(path)}).run
    rule = known_reward(run, new)
    assert rule is not None
    episode = new.episodes[3]
    obs = torch.tensor(episode.observations)
    found = rule(obs[:-1], torch.tensor(episode.actions), obs[1:])
    np.testing.assert_allclose(found.numpy(), episode.rewards, atol=1e-5)
    assert reward_identity(run) == {"reward": model.stored.content}
    with pytest.raises(ConfigError, match="mbrl relabel LOG --reward-model"):
        known_reward(run, LOG)


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"no model")
    with pytest.raises(FileError, match="reward model"):
        open_reward(path)
    with pytest.raises(DataError, match="are about the log"):
        inspect_preferences(make_dataset(seed=4), ANSWERS)


def test_pairs_to_ask_are_written_and_read(model, tmp_path: Path) -> None:
    queue = next_pairs(LOG, model, count=6, length=5, known=ANSWERS, out=tmp_path / "q.jsonl")
    assert read_queue(tmp_path / "q.jsonl", LOG) == queue.pairs
    with pytest.raises(ConfigError, match="reward model"):
        next_pairs(LOG)
    with pytest.raises(DataError, match="are about the log"):
        read_queue(tmp_path / "q.jsonl", make_dataset(seed=4))


def test_the_best_of_n_is_saved_and_loaded_like_any_policy(model, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    clone = mbrl.train(LOG, "bc", learner={"form": "gaussian", "hidden": [8]}, updates=3, diagnostics=False,
                       store=store, progress=False)  # fmt: skip
    values = mbrl.train(LOG, "iql", learner={"hidden": [8]}, updates=3, diagnostics=False, store=store,
                        progress=False)  # fmt: skip
    obs = LOG.episodes[0].observations[:5]
    for part in ({"reward_model": model}, {"critic": values.path}):
        policy = best_of(clone, candidates=4, pessimism=1.0, store=store, **part)
        again = mbrl.Policy.load(policy.save(tmp_path / f"{next(iter(part))}.safetensors"))
        np.testing.assert_array_equal(again.act(obs), policy.act(obs))
        assert again.name == "bc-best-of-4"
        assert not again.is_stochastic
    with pytest.raises(ConfigError, match="no density to draw from"):
        best_of(mbrl.train(LOG, "bc", learner={"hidden": [8]}, updates=1, diagnostics=False, store=store,
                           progress=False), reward_model=model)  # fmt: skip
    with pytest.raises(ConfigError, match="keeps no critics"):
        best_of(clone, critic=clone.path, store=store)


def test_a_direct_method_reads_its_answers_and_is_another_run_for_others(tmp_path: Path) -> None:
    folder = mbrl.save(LOG, tmp_path / "log")
    path = tmp_path / "answers.jsonl"

    def train():
        return mbrl.train(folder, "cpl", preferences=str(path), learner={"hidden": [8], "clone_updates": 2},
                          updates=4, diagnostics=False, store=tmp_path / "runs", progress=False)  # fmt: skip

    synthetic_preferences(folder, pairs=10, length=5, out=path)
    first = train()
    assert train().path == first.path
    path.unlink()
    synthetic_preferences(folder, pairs=10, length=5, seed=1, out=path)
    assert train().path != first.path
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        train()
    with pytest.raises(ConfigError, match="needs answers about the log"):
        mbrl.train(folder, "cpl", updates=4, store=tmp_path / "runs", progress=False)
