"""What the programs that measure make of their figures; the figures themselves are the package's."""

import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import mbrl
from mbrl.envs.specs import load_task
from tests.scripts.loading import load_script


def test_rates_of_alarms_are_resampled_by_episode():
    script = load_script("measure/deploy")
    log = mbrl.load("pendulum-mixed").select(range(4))
    steps = log.num_transitions - 4  # the last of an episode leads to no logged one
    alarms = np.zeros(steps, dtype=np.bool_)
    alarms[: steps // 4] = True  # all in the first of four episodes of one length
    found = script.rate(alarms, log)
    assert (found["rate"], found["low"], found["steps"]) == (pytest.approx(0.25), 0.0, steps)
    assert found["high"] == pytest.approx(0.75)
    gap = script.difference([3.0, 5.0], [1.0, 1.0])
    assert (gap["mean"], gap["low"], gap["high"]) == (3.0, 2.0, 4.0)


def test_each_fault_is_of_one_channel_of_an_episode():
    script = load_script("measure/deploy")
    log = mbrl.load("pendulum-mixed").select(range(3))
    for name, broken in script.faults(log):
        for k, (first, second) in enumerate(zip(log.episodes, broken.episodes, strict=True)):
            differs = (np.asarray(first.observations) != second.observations).any(0)
            assert np.flatnonzero(differs).tolist() == [k], name
            np.testing.assert_array_equal(first.actions, second.actions)


def test_a_choice_reaches_the_simulator_as_a_vector():
    script = load_script("measure/deploy")

    class Told:
        contract = {"action": {"ids": [3, 7]}}  # noqa: RUF012 - as a contract is read

    assert script.taken(Told(), np.int64(7)).tolist() == [0.0, 1.0]
    Told.contract = {"action": {}}
    assert script.taken(Told(), np.array([0.5])).tolist() == [0.5]


def test_the_grid_of_imitation_asks_methods_without_an_expert_once(tmp_path: Path):
    script = load_script("measure/imitation")

    class Asked:
        logs, seeds, methods, expert_episodes = ("pendulum-mixed",), (0, 1), ("bc", "mopo"), (1, 5)

    pieces = script.pieces_of(Asked)
    shown = [(piece.method, piece.demonstrated, piece.seed) for piece in pieces]
    assert shown == [(*one, seed) for seed in (0, 1) for one in (("bc", 1), ("bc", 5), ("mopo", 0))]
    row = {
        "log": "pendulum-mixed", "method": "airl", "expert_episodes": 5, "seed": 0, "updates": 9,
        "cpu_seconds": 1.6, "return": {"estimate": -150.0, "low": -160.04, "high": -140.0}, "score": None,
        "recovered_reward": {"pearson": 0.905, "spearman": None},
    }  # fmt: skip
    script.Piece("pendulum-mixed", "airl", 5, 0).path(tmp_path).write_text(json.dumps(row))
    assert (
        "| pendulum-mixed | airl | 5 | 0 | 9 | 2 | -150.0 [-160.0, -140.0] | - | 0.91, - |\n"
    ) in script.table(tmp_path)


def test_the_table_of_preferences_is_a_mean_over_seeds(tmp_path: Path):
    script = load_script("measure/preferences")
    for seed, (value, accuracy) in enumerate(((-500.0, 0.8), (-700.0, 0.9))):
        piece = script.Piece("pendulum-mixed", "reward", 200, 0.1, seed)
        row = {
            "log": piece.log, "method": piece.method, "pairs": 200, "noise": 0.1, "updates": 3000,
            "estimate": value, "accuracy": accuracy, "correlation": None,
        }  # fmt: skip
        piece.path(tmp_path).write_text(json.dumps(row))
    assert (
        "| pendulum-mixed | reward | 200 | 0.1 | 3,000 | 2 | -600.0 | -700.0 to -500.0 | 0.85 | - |\n"
    ) in script.write_table(tmp_path)


def test_real_logs_are_split_by_whole_episodes():
    script = load_script("measure/real")
    log = mbrl.load("pendulum-mixed")
    train, test = script.split("pendubot", log)
    assert len(train) + len(test) == len(log)
    assert test.episodes[1].observations is log.episodes[5].observations
    assert len(script.split("qube", log)[1]) == 8


def test_the_stages_of_a_large_log_tell_their_memory(tmp_path: Path):
    script = load_script("measure/large")
    log = script.make_log(tmp_path, 3000)
    found = script.do_stage("split and moments", log, 1)
    assert 0 < found["own"] <= found["resident"]
    rows = [
        {**found, "stage": "batches", "rate": 80.0},
        {**found, "stage": "batches in memory", "rate": 100.0},
    ]
    assert "batches: 80% of the rate in memory." in script.report(rows, 3000, 1, 10**6)


def test_an_optimiser_is_held_against_the_gain_that_is_best():
    script = load_script("measure/planners")
    tasks = script.Tasks(1, 0)
    error = script.action_error("mppi", {}, (0.9, 1), gain=0.8, sims=script.SIMS["mppi"], tasks=tasks)
    assert 0.0 <= error < script.TARGET


def test_late_actions_reach_the_simulator_in_their_order():
    script = load_script("measure/delay")

    class Told(gymnasium.Env):
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

        def reset(self, **how):
            self.seen = []
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.seen.append(float(action[0]))
            return np.zeros(1, np.float32), 0.0, False, False, {}

    inner = Told()
    env = script.DelayedActions(inner, 2)
    for _ in range(2):  # nothing is left of an episode before
        env.reset()
        for action in (0.25, 0.5, 0.75):
            env.step(np.array([action], np.float32))
        assert inner.seen == [0.0, 0.0, 0.25]


def test_the_table_of_delays_is_a_mean_over_seeds(tmp_path: Path):
    script = load_script("measure/delay")
    for seed, value in enumerate((-150.0, -250.0)):
        piece = script.Piece(3, 4, seed)
        row = {"delay": 3, "history": 4, "returns": [value], "score": 90.0 + seed}
        piece.path(tmp_path).write_text(json.dumps(row))
    assert "| 3 | 4 | 2 | -200 | -250 to -150 | 90.5 |" in script.table(tmp_path)
    task = load_task(script.delayed_task(3, tmp_path))
    assert (task.name, task.env_kwargs) == ("pendulum-delay-3", {"env_id": "Pendulum-v1", "delay": 3})
