"""The task of sepsis: on tables made by hand, and on the package's own where it is installed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import ConfigError
from mbrl.study.icu_sepsis import ENDS, SepsisTask, dose_names
from tests.scripts.loading import load_script

STATES = 20
SURVIVAL = STATES + 1


def tables(folder: Path) -> Path:
    """Some states in a row: each goes on to the next, or by action 0 with chance 0.1 a step to an end."""
    size, actions = STATES + ENDS, 25
    transition, reward = np.zeros((size, actions, size)), np.zeros((size, actions, size))
    transition[np.arange(STATES), :, np.minimum(np.arange(STATES) + 1, STATES - 1)] = 0.8
    transition[:STATES, :, STATES] = 0.1
    transition[:STATES, :, SURVIVAL] = 0.1
    transition[:STATES, 1, STATES], transition[:STATES, 1, SURVIVAL] = 0.05, 0.15
    transition[STATES:, :, size - 1] = 1.0
    reward[:STATES, :, SURVIVAL] = 1.0
    start = np.zeros(size)
    start[:2] = 0.5
    clinicians = np.zeros((size, actions))
    clinicians[:STATES, :2] = 0.5
    centres = np.zeros((size, 47))
    centres[:STATES, 0] = np.arange(1, STATES + 1)
    np.savez(
        folder / "dynamics.npz", tx_mat=transition, r_mat=reward, d_0=start, expert_policy=clinicians,
        state_cluster_centers=centres,
    )  # fmt: skip
    lines = [" ".join(["1"] * size), *["0"] * size]
    (folder / "admissible_actions.txt").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> SepsisTask:
    return SepsisTask.read(tables(tmp_path_factory.mktemp("assets")))


def test_values_are_the_linear_solve(task):
    # Survival is 0.1 of the 0.2 that end a step under action 0, 0.15 under action 1.
    for policy, expected in (((1.0, 0.0), 0.5), ((0.0, 1.0), 0.75), ((0.5, 0.5), 0.625)):
        table = np.zeros_like(task.clinicians)
        table[:, :2] = policy
        assert task.value(table) == pytest.approx(expected)
    assert task.value(task.clinicians) == pytest.approx(0.625)
    assert task.best_policy()[:STATES].argmax(1).tolist() == [1] * STATES
    assert task.allowed[0].tolist() == [True, True] + [False] * 23
    assert task.allowed[STATES:].all()


def test_a_log_is_what_the_policy_did(task):
    log = task.log(800, seed=0)
    assert log.spec.choices == dose_names()
    rows = log.transitions()
    assert log.episode_returns.mean() == pytest.approx(0.625, abs=0.06)
    assert log.episode_lengths.mean() == pytest.approx(5.0, abs=0.5)
    assert rows.action[:, 0].mean() == pytest.approx(0.5, abs=0.03)
    assert rows.action[:, 2:].sum() == 0.0
    log_prob = np.concatenate([episode.behaviour_log_prob for episode in log.episodes])
    np.testing.assert_allclose(log_prob, np.log(0.5), rtol=1e-6)
    assert rows.action_mask is not None
    assert rows.action_mask[:, :2].all()
    assert not rows.action_mask[:, 2:].any()
    assert log.content_hash == task.log(800, seed=0).content_hash
    greedy = task.log(300, seed=0, policy=task.best_policy())
    assert greedy.episode_returns.mean() == pytest.approx(0.75, abs=0.08)


def test_what_is_missing_is_named_with_the_extra(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"healthcare"):
        SepsisTask.read(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed.*healthcare"):
        SepsisTask.load()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("icu_sepsis") is None, reason="needs icu-sepsis")
def test_the_package_holds_the_published_task():
    task = SepsisTask.load()
    assert task.value(task.clinicians) == pytest.approx(0.78, abs=0.005)
    assert task.value(task.best_policy()) == pytest.approx(0.88, abs=0.006)
    np.testing.assert_allclose(task.transition.sum(-1), 1.0, atol=1e-9)


def test_a_killed_measurement_goes_on_with_the_next_policy(task, tmp_path, monkeypatch):
    script = load_script("measure/sepsis")
    monkeypatch.setattr(script.SepsisTask, "load", staticmethod(lambda: task))
    told = iter(({"policy": "clone"}, {"policy": "spibb"}))
    begun = []

    def measure(task, stays, options, there):
        begun.append(sorted(there))
        common = {"stays": stays, "true": 0.5, "estimates": {}, "verdict": "cannot_tell", "seconds": 1.0}
        yield from (common | row for row in told)

    asked = ["--out", str(tmp_path / "found"), "--stays", "40", "--updates", "5"]
    monkeypatch.setattr(script, "measure", measure)
    assert script.main(asked) == 0
    assert script.main(asked) == 0
    told = iter([{"policy": "clone"}])
    assert script.main([*asked[:2], "--stays", "20", "--updates", "5"]) == 0
    assert begun == [[], ["clone", "spibb"], []]
    page = (tmp_path / "found" / "README.md").read_text()
    assert "| spibb | 0.5000 |" in page
    assert "sepsis.py --stays 20 40 --updates 5 --seed 0`" in page
    with pytest.raises(SystemExit, match="another --out"):
        script.main([*asked, "--seed", "1"])


@pytest.mark.slow
def test_candidates_of_a_small_log_are_judged_beside_their_truth(task, tmp_path, monkeypatch):
    script = load_script("measure/sepsis")
    monkeypatch.setattr(script.SepsisTask, "load", staticmethod(lambda: task))
    candidates, names = script.policies, []

    def first(train, model):
        made = candidates(train, model)
        names.extend(made)
        return {"clone": made["clone"]}

    monkeypatch.setattr(script, "policies", first)
    asked = ["--out", str(tmp_path), "--stays", "60", "--updates", "10", "--learners", "discrete_bc"]
    assert script.main([*asked, "--learner-updates", "5"]) == 0
    assert tuple(names) == script.TABULAR
    found = json.loads((tmp_path / "results.json").read_text())
    assert [row["policy"] for row in found["rows"]] == ["clone", "discrete_bc"]
    assert found["best"] == pytest.approx(task.value(task.best_policy()))
    clone = found["rows"][0]
    assert clone["true"] == pytest.approx(task.value(task.clinicians), abs=0.05)
    low, high = clone["estimates"]["model_value"]["ci95"]
    assert low < clone["true"] < high
