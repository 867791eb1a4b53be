"""A history on the whole road: fit, train, evaluate, judge, act."""

import numpy as np
import pytest

import mbrl
from mbrl.api.judging import _read_by
from mbrl.core.history import History

QUICK = {"progress": False}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def log():
    return mbrl.with_history(mbrl.load("pendulum-mixed"), 3)


@pytest.fixture(scope="module")
def run(log, store):
    return mbrl.train(log, "bc", updates=20, store=store, **QUICK)


def test_a_load_takes_the_history_as_an_option(log):
    assert mbrl.load("pendulum-mixed", history=3).content_hash == log.content_hash
    assert log.origin.options.history == 3


def test_a_policy_carries_it_from_the_log_to_the_simulator_and_to_the_machine(run, log, store, tmp_path):
    assert run.policy.stored.history == History(3, 2)
    result = mbrl.evaluate(run, episodes=2, store=store, **QUICK)
    assert len(result.evaluation.episode_returns) == 2
    file = run.policy.save(tmp_path / "policy.safetensors")
    policy = mbrl.Policy.load(file)
    controller, frames, actions = policy.live(), [], []
    for frame in log.episodes[0].observations[:4, :3]:
        frames.insert(0, frame)
        older = [frames[min(lag, len(frames) - 1)] for lag in (1, 2)]
        done = [*actions, 0.0, 0.0][:2]
        actions.insert(0, float(controller.act(frame)[0]))
        whole = np.concatenate([frame, *older, done]).astype(np.float32)
        assert policy.act(whole) == pytest.approx([actions[0]], abs=1e-5)
    controller.reset()
    assert float(controller.act(frames[-1])[0]) == actions[-1]
    with pytest.raises(mbrl.ConfigError, match="expected"):
        controller.act(np.zeros(11))


def test_a_bundle_tells_its_history_in_cells_of_a_table(run, tmp_path):
    pytest.importorskip("onnxruntime")
    facts = run.export(tmp_path / "bundle", guard=None).tables()[0]
    assert {type(cell) for row in facts.rows for cell in row} <= {str, float, int, bool, type(None)}
    assert dict(facts.rows)["history frames"] == 3


def test_estimates_read_the_log_as_the_policy_does(run, store):
    plain = mbrl.load("pendulum-mixed")
    assert _read_by(run, plain).info.history == History(3, 2)
    other = mbrl.train(mbrl.with_history(plain, 2), "bc", updates=2, store=store, **QUICK)
    with pytest.raises(mbrl.ConfigError, match="different histories"):
        _read_by([run, other], plain)


def test_a_policy_of_single_frames_is_refused_by_a_log_that_holds_more(log, store):
    single = mbrl.train(mbrl.load("pendulum-mixed"), "bc", updates=2, store=store, **QUICK)
    with pytest.raises(mbrl.ConfigError, match="reads 3 numbers"):
        single.policy.for_space(log.spec)
