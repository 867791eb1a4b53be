"""Trials become versions of a log, on which a training goes on: lineage, budget, shares, the same bits."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mbrl
from mbrl.api.finetuning import finetune
from mbrl.core.errors import ConfigError, DataError
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.merging.merge import episode_sources, merge_datasets, sources_of
from mbrl.data.relabel import relabel_dataset
from mbrl.data.stacking.choose import apply_history
from mbrl.envs.behaviour import Noisy
from mbrl.nets.random_policy import random_policy
from mbrl.run.config import resolve
from mbrl.run.finetune import rounds as rounds_module
from mbrl.run.finetune.rounds import split_budget
from mbrl.run.finetune.versions import (
    append_trials,
    as_logged,
    lineage_of,
    mixing_weights,
    require_budget,
)
from mbrl.run.fit import load_dynamics
from mbrl.run.store import RunStore
from mbrl.testing.samples import TINY_DYNAMICS, make_dataset, make_episodes

LOG = make_dataset()  # 12 episodes of 30 steps
ROLLOUT = {"starts": 8, "respect_trusted_horizon": False}
SMALL = {"updates": 20, "learner": {"hidden": [8], "batch_size": 16}, "diagnostics": False, "progress": False}


def trials(count: int = 2, seed: int = 5) -> Dataset:
    return dataclasses.replace(LOG, episodes=make_episodes(count, seed=seed), origin=None)


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory: pytest.TempPathFactory) -> mbrl.Run:
    return mbrl.train(short_log(), "td3_bc", store=tmp_path_factory.mktemp("runs"), **SMALL)


def short_log() -> Dataset:
    return mbrl.load("pendulum-mixed").select(range(2))


def test_a_version_names_the_one_before_and_what_was_added() -> None:
    first, second = trials(), trials(3, seed=6)
    two = append_trials(LOG, first, budget=10, policy="ab")
    three = append_trials(two, second, budget=12)
    found = lineage_of(three)
    assert found is not None
    assert (found.version, found.episodes, found.budget, found.old_sources) == (3, 5, 12, 1)
    assert found.appended_to == two.content_hash
    assert found.trials == second.content_hash
    assert [source.content_hash for source in sources_of(three)] == [
        LOG.content_hash, first.content_hash, second.content_hash
    ]  # fmt: skip
    assert episode_sources(three).tolist() == [0] * 12 + [1] * 2 + [2] * 3
    assert (two.info.name, three.info.name) == ("toy-v2", "toy-v3")
    for mine, theirs in zip(three.episodes, [*LOG.episodes, *first.episodes, *second.episodes], strict=True):
        np.testing.assert_array_equal(mine.observations, theirs.observations)
    assert lineage_of(LOG) is None


def test_half_of_a_batch_is_old_and_rows_of_a_half_weigh_the_same() -> None:
    """360 old steps, 60 and 90 new ones: 1/2, and the other half as 2 to 3."""
    version = append_trials(append_trials(LOG, trials(), budget=9), trials(3, seed=6), budget=9)
    assert mixing_weights(version, old_share=0.5) == pytest.approx([0.5, 0.2, 0.3])
    assert mixing_weights(version, old_share=0.2) == pytest.approx([0.2, 0.32, 0.48])
    merged = merge_datasets([LOG, trials(4, seed=9)])  # the old log may be of several logs: 360 and 120 steps
    assert mixing_weights(append_trials(merged, trials(), budget=9), old_share=0.5) == pytest.approx(
        [0.375, 0.125, 0.5]
    )


def test_the_budget_counts_trials_of_all_batches() -> None:
    with pytest.raises(ConfigError, match="No budget of trials is stated"):
        require_budget(LOG, 2, None)
    version = append_trials(LOG, trials(), budget=5)
    assert require_budget(version, 3, None) == 5
    with pytest.raises(ConfigError, match="The budget is 5 trials; 2 are used, and 4 more would make 6"):
        require_budget(version, 4, None)
    assert require_budget(version, 4, 6) == 6
    assert split_budget(11, 3) == [4, 4, 3]
    with pytest.raises(ConfigError, match="2 trials of the budget are left, for 3 batches"):
        split_budget(2, 3)


def test_trials_earn_and_end_as_their_log_says() -> None:
    ruled = relabel_dataset(LOG, reward="2 * obs_0", termination="obs_1 > 5")
    found = as_logged(trials(), ruled)
    np.testing.assert_allclose(found.episodes[0].rewards, 2 * found.episodes[0].observations[:-1, 0])
    assert not found.episodes[0].terminated  # the simulator ended it, and the log's rule does not
    assert found.info.termination_rule == ruled.info.termination_rule
    append_trials(ruled, found, budget=2)
    by_model = relabel_dataset(LOG, function=lambda obs, act, nxt: obs[:, 0], function_name="model x")
    with pytest.raises(ConfigError, match="rewards of the log 'toy' are those of model x"):
        as_logged(trials(), by_model)


def test_trials_of_single_frames_are_stacked_as_their_log_is() -> None:
    stacked = apply_history(LOG, 2)
    found = as_logged(trials(), stacked)
    assert found.spec == stacked.spec
    append_trials(stacked, found, budget=2)


def test_trials_of_another_machine_are_refused_by_the_field() -> None:
    space = SpaceSpec(obs_dim=3, act_dim=2, act_low=(-1.0, -3.0), act_high=(1.0, 0.5))
    other = dataclasses.replace(trials(), spec=space)
    with pytest.raises(DataError, match="action bounds"):
        append_trials(LOG, as_logged(other, LOG), budget=2)
    with pytest.raises(DataError, match="same content"):
        append_trials(append_trials(LOG, trials(), budget=9), trials(), budget=9)


def test_noise_is_in_halves_of_the_range_and_stays_in_the_box() -> None:
    space = SpaceSpec(obs_dim=1, act_dim=2, act_low=(-1.0, -2.0), act_high=(1.0, 0.0))
    policy = Noisy(random_policy(space), space, 0.5)  # whose best action is the middle: 0 and -1
    obs = torch.zeros(2, 1)
    noise = torch.tensor([[1.0, -1.0], [9.0, 9.0]])
    assert policy.act(obs, noise).tolist() == [[0.5, -1.5], [1.0, 0.0]]
    assert policy.act(obs).tolist() == [[0.0, -1.0]] * 2


def test_nothing_is_run_unless_somebody_says_where(pendulum: mbrl.Run) -> None:
    before = sorted(pendulum.path.parents[1].rglob("*"))
    with pytest.raises(ConfigError, match="nothing is run unasked"):
        finetune(pendulum, budget=3)
    with pytest.raises(ConfigError, match="nothing is run unasked"):
        finetune(pendulum, budget=3, simulator=True, trials="x")
    with pytest.raises(ConfigError, match="No budget"):
        finetune(pendulum, simulator=True, progress=False)
    assert sorted(pendulum.path.parents[1].rglob("*")) == before


def test_batches_in_the_simulator_go_on_to_the_same_bits(
    pendulum: mbrl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"simulator": True, "budget": 3, "batches": 2, "updates": 10, "plan": False, "progress": False}
    whole = finetune(pendulum, store=tmp_path / "a", **how)
    assert [one.batch.episodes for one in whole.rounds] == [2, 1]
    assert [one.batch.version for one in whole.rounds] == [2, 3]
    assert whole.rounds[0].batch.appended_to == short_log().content_hash
    assert whole.rounds[1].batch.appended_to == whole.rounds[0].batch.content_hash
    assert mbrl.load(whole.rounds[1].version).content_hash == whole.run.dataset_hash
    assert whole.left == 0
    config = resolve(whole.run.path / "config.yaml").run
    assert config.weights == pytest.approx((0.5, 1 / 3, 1 / 6))
    assert config.continue_from == str(whole.rounds[0].run.path.resolve())
    # Killed after the second batch, and asked again.
    real, calls = rounds_module.train_policy_stage, []

    def killed(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(rounds_module, "train_policy_stage", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(pendulum, store=tmp_path / "b", **how)
    again = finetune(pendulum, store=tmp_path / "b", **how)
    name = "policy.safetensors"
    assert (again.run.path / name).read_bytes() == (whole.run.path / name).read_bytes()
    assert json.loads(json.dumps(again.to_dict()))["rounds"][1]["content_hash"] == (
        whole.rounds[1].batch.content_hash
    )
    with pytest.raises(ConfigError, match="0 trials of the budget are left"):
        finetune(again.run, **how)


def test_a_training_that_had_a_start_of_its_own_goes_on(pendulum: mbrl.Run, tmp_path: Path) -> None:
    model = {"recipe": "model_based", "refresh_interval": 10, "logged_updates": 10, "rollout": ROLLOUT}
    run = mbrl.train(
        short_log(), "td3_bc", dynamics=TINY_DYNAMICS, warm_start=pendulum, select="last",
        store=tmp_path / "runs", **SMALL, **model,
    )  # fmt: skip
    how = {"simulator": True, "budget": 1, "batches": 1, "updates": 10, "plan": False, "progress": False}
    found = resolve(finetune(run, store=tmp_path / "more", **how).run.path / "config.yaml").run
    assert (found.warm_start, found.algorithm.start_updates) == (None, 0)
    assert found.continue_from == str(run.path.resolve())


def test_trials_of_a_machine_are_taken_as_they_are_logged(pendulum: mbrl.Run, tmp_path: Path) -> None:
    first, second = (
        mbrl.collect("pendulum", policy="random", steps=400, seed=seed, progress=False) for seed in (1, 2)
    )
    how = {"updates": 10, "plan": False, "progress": False, "store": tmp_path / "runs"}
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(json.dumps(TINY_DYNAMICS))
    planned = {**how, "plan": True, "dynamics": str(tiny)}
    one = finetune(pendulum, trials=mbrl.save(first, tmp_path / "first"), budget=4, **planned)
    assert one.left == 2
    assert "mbrl export" in one.messages()[-1]
    fits = [run for run, told in RunStore(tmp_path / "runs").manifests() if told["stage"] == "fit_dynamics"]
    assert [run.manifest()["dataset_hash"] for run in fits] == [one.version.content_hash]
    assert list(one.plan or ()) == load_dynamics(fits[0]).report.gaps.next_to_log()
    two = finetune(one.run, trials=second, **how)
    assert (two.lineage.version, two.lineage.budget, two.left) == (3, 4, 0)
    assert not two.rounds[0].batch.in_simulator
    assert two.rounds[0].batch.mean_return == pytest.approx(float(second.episode_returns.mean()))
    at_once = finetune(pendulum, trials=[first, second], budget=4, **how)
    assert at_once.run.path == two.run.path
    with pytest.raises(ConfigError, match="The budget is 4 trials; 4 are used"):
        finetune(two.run, trials=first, **how)


def test_a_training_without_a_log_of_rewards_cannot_go_on(tmp_path: Path) -> None:
    clone = mbrl.train(short_log(), "bc", store=tmp_path, **SMALL)
    with pytest.raises(ConfigError, match="which has no log of rewards"):
        finetune(clone, simulator=True, budget=1, progress=False)
