"""Bundles on disk: what is in them, what refuses to be written or opened, and what a log says of them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.api.deploying import Export, deploy_check
from mbrl.api.importing import import_log
from mbrl.core.errors import ConfigError, DataError, FileError
from mbrl.data.dataset import Dataset
from mbrl.run.bundle import parity, write
from mbrl.run.bundle.open import chosen_episodes, open_bundle
from mbrl.run.bundle.write import BundleConfig, BundleParts, write_bundle
from mbrl.testing.samples import make_dataset
from tests.deploy.bundles import SMALL_GUARD, make_actor, make_bundle, stored, timed

pytest.importorskip("onnxruntime")

FILES = {
    "policy.onnx", "guard.onnx", "contract.json", "MODEL_CARD.md", "runtime.py", "log-schema.yaml",
}  # fmt: skip


def test_a_bundle_holds_what_it_says(tmp_path: Path) -> None:
    contract, _ = make_bundle(tmp_path / "b", log=timed(make_dataset(), 20.0), max_change=0.5)
    assert {path.name for path in (tmp_path / "b").iterdir()} == FILES
    assert open_bundle(tmp_path / "b") == contract
    assert contract.rate == pytest.approx(20.0)
    assert contract.runtime.stale_after == pytest.approx(0.125)
    assert [c.max_change for c in contract.action.channels] == [0.5, 0.5]
    assert [(c.low, c.high) for c in contract.action.channels] == [(-1.0, 1.0), (-2.0, 0.5)]
    lowest = min(float(e.observations[:, 1].min()) for e in make_dataset().episodes)
    assert contract.observation.channels[1].logged_low == pytest.approx(lowest)
    assert contract.parity.policy < 1e-6
    assert contract.parity.rows > 50
    assert contract.guard is not None
    assert contract.policy["algorithm"] == "toy"
    card = (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert "Nobody has asked" in card
    assert "20 steps per second" in card


def test_two_exports_are_the_same_files(tmp_path: Path) -> None:
    first, second = (make_bundle(tmp_path / name)[0] for name in "ab")
    assert first == second


def test_a_graph_that_does_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_actor(seed=9)
    real = write.write_policy
    monkeypatch.setattr(write, "write_policy", lambda policy, **how: real(other, **how))
    with pytest.raises(ConfigError, match="differs from what was trained"):
        make_bundle(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_parity_is_measured_in_half_ranges() -> None:
    """An action that is off by 0.1 in a range of 2.5 is off by 0.08 of its half."""
    policy = make_actor()
    obs = make_dataset().episodes[0].observations[:10]
    graph = write.write_policy(policy, history=1, stochastic=False).to_bytes({})
    exact = parity.policy_difference(policy, graph, obs, history=1, stochastic=False)
    moved = make_actor()
    act = moved.act
    moved.act = lambda o, noise=None: act(o, noise) + torch.tensor([0.0, 0.1])  # pyright: ignore
    shifted = parity.policy_difference(moved, graph, obs, history=1, stochastic=False)
    assert exact < 1e-6
    assert shifted == pytest.approx(0.1 / 1.25, abs=1e-5)


def test_a_number_that_is_none_is_no_parity() -> None:
    with pytest.raises(ConfigError, match="inf"):
        parity.check_parity(float("inf"), 1e-5, what="the policy")


def test_what_was_begun_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "model_card", fail)
    with pytest.raises(KeyboardInterrupt):
        make_bundle(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        make_bundle(tmp_path / "b")


def test_a_log_of_other_sizes_is_refused(tmp_path: Path) -> None:
    parts = BundleParts(stored(make_actor(obs_dim=4)), make_dataset())
    with pytest.raises(ConfigError, match="4 observation"):
        write_bundle(parts, tmp_path / "b", BundleConfig(guard=None))


@pytest.mark.parametrize("field", ["max_change", "rest"])
def test_a_number_for_each_channel(tmp_path: Path, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field} has 3 numbers for 2"):
        make_bundle(tmp_path / "b", **{field: (0.1, 0.1, 0.1)})


def test_without_a_guard_nothing_is_scored(tmp_path: Path) -> None:
    contract, _ = make_bundle(tmp_path / "b", guard=None)
    assert contract.guard is None
    controller = Export.load(tmp_path / "b").controller()
    controller.act([1e6, 1e6, 1e6])
    assert (controller.last.source, controller.last.alarm) == ("policy", False)
    assert "There is no guard" in (tmp_path / "b" / "MODEL_CARD.md").read_text()


def test_hostile_bundles_are_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    path = tmp_path / "b" / "contract.json"
    good = json.loads(path.read_text())

    def refused(error: type[Exception], match: str, **changes: Any) -> None:
        path.write_text(json.dumps({**good, **changes}))
        with pytest.raises(error, match=match):
            open_bundle(tmp_path / "b")

    refused(FileError, "files", files={**good["files"], "../../etc/passwd": "0" * 64})
    refused(FileError, "policy.onnx", files={**good["files"], "policy.onnx": "0" * 64})
    refused(FileError, "guard", guard=None)
    refused(FileError, "format", format=2)
    refused(FileError, "rest", runtime={**good["runtime"], "rest": [0.0]})
    path.write_text("{")
    with pytest.raises(FileError, match="not JSON"):
        open_bundle(tmp_path / "b")
    path.unlink()
    with pytest.raises(ConfigError, match="no bundle"):
        open_bundle(tmp_path / "b")


def drive(bundle: Path, log: Path, *, episodes: int = 2, steps: int = 30) -> list[np.ndarray]:
    """Logs of the toy system in closed loop; returns the frames of each episode."""
    clock = iter(np.arange(10_000) * 0.01)  # two readings a step: 50 steps a second
    found = []
    with Export.load(bundle).controller(log=log, guard=False, clock=lambda: float(next(clock))) as controller:
        for episode in range(episodes):
            if episode:
                controller.reset()
            rng, frames = np.random.default_rng(episode), []
            obs = rng.normal(size=3).astype(np.float32)
            for _ in range(steps):
                frames.append(obs)
                action = controller.act(obs)
                obs = (0.9 * obs + 0.1 * action.sum() + 0.01 * rng.normal(size=3)).astype(np.float32)
            found.append(np.array(frames))
    return found


@pytest.mark.parametrize("rate", [None, 50.0])
def test_the_log_of_the_runtime_is_a_dataset(tmp_path: Path, rate: float | None) -> None:
    log = make_dataset()
    info = dataclasses.replace(log.info, reward_rule="-obs_0**2 - 0.1 * act_1**2")
    log = (
        dataclasses.replace(log, info=info)
        if rate is None
        else timed(dataclasses.replace(log, info=info), rate)
    )
    make_bundle(tmp_path / "b", log=log)
    frames = drive(tmp_path / "b", tmp_path / "run.csv")
    made: Dataset = import_log(tmp_path / "b" / "log-schema.yaml", tmp_path / "run.csv").log
    assert (made.obs_names, made.act_names) == (log.obs_names, log.act_names)
    assert made.spec == log.spec
    assert len(made) == 2
    for episode, expected in zip(made.episodes, frames, strict=True):
        assert episode.observations == pytest.approx(expected, abs=1e-4)
        reward = -np.square(episode.observations[:-1, 0]) - 0.1 * np.square(episode.actions[:, 1])
        assert episode.rewards == pytest.approx(reward, abs=1e-5)
    assert make_bundle(tmp_path / "again", log=made)[0].frame_names == ("obs_0", "obs_1", "obs_2")


def test_a_check_says_what_the_runtime_would_have_done(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b", log=make_dataset(count=60), patience=3)
    same, far = make_dataset(count=20, seed=1), make_dataset(count=5)
    moved = []
    for episode in far.episodes:
        moved.append(dataclasses.replace(episode, observations=episode.observations + np.float32(40.0)))
    found = deploy_check(tmp_path / "b", same, progress=False)
    values = found.to_dict()
    assert values["steps"] == 600
    assert values["logged_alarm_rate"] < 0.05
    assert sum(values["sources"].values()) == 600
    assert 0 < values["milliseconds"]["p50"] <= values["milliseconds"]["p99"]
    policy = make_actor()
    obs = same.transitions().observation
    scaled = policy.scale(policy.act(torch.from_numpy(obs.copy()))).abs().numpy()
    assert values["saturation"]["act_0"] == pytest.approx((scaled[:, 0] >= 0.99).mean(), abs=0.01)
    odd = deploy_check(tmp_path / "b", dataclasses.replace(far, episodes=tuple(moved)), progress=False)
    assert odd.alarm_rate == 1.0
    assert odd.to_dict()["interventions"] == 5
    assert odd.to_dict()["longest_intervention"] >= 30 - 3 - 5  # after patience and forecasts
    assert any("not like the one" in message for message in odd.messages())
    assert "who would have acted" in str(odd)


def test_a_check_notices_a_machine_that_answers_otherwise(tmp_path: Path) -> None:
    """Noise of three times the deviation: steps surprise three times as much, episode by episode."""
    make_bundle(tmp_path / "b", log=make_dataset(count=60))
    ratios = []
    for noise in (0.0, 0.0283):  # on top of 0.01: together 0.03
        rng, moved = np.random.default_rng(1), []
        for episode in make_dataset(count=30, seed=1).episodes:
            obs = np.array(episode.observations)
            for t in range(len(episode)):
                obs[t + 1] = (
                    0.9 * obs[t] + 0.1 * episode.actions[t].sum() + rng.normal(size=3) * np.hypot(0.01, noise)
                )
            moved.append(dataclasses.replace(episode, observations=obs.astype(np.float32)))
        log = dataclasses.replace(make_dataset(), episodes=tuple(moved))
        found = deploy_check(tmp_path / "b", log, progress=False)
        ratios.append(found.to_dict()["surprise_ratio"])
        assert any("answers otherwise" in m for m in found.messages()) == (noise > 0)
    assert ratios[0][1] < 1.0 < ratios[0][2]
    assert ratios[1][0] / ratios[0][0] == pytest.approx(3.0, rel=0.15)


def test_a_check_takes_whole_episodes_evenly_spread() -> None:
    assert chosen_episodes(make_dataset(), 10**6) == list(range(12))
    assert chosen_episodes(make_dataset(), 120) == [0, 3, 7, 11]
    assert chosen_episodes(make_dataset(), 1) == [0]


def test_a_log_of_other_channels_is_refused(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b")
    log = make_dataset()
    other = dataclasses.replace(log, info=dataclasses.replace(log.info, obs_names=("x", "y", "z")))
    with pytest.raises(DataError, match=r"observation\.channels"):
        deploy_check(tmp_path / "b", other, progress=False)
    with pytest.raises(ConfigError, match="rows"):
        deploy_check(tmp_path / "b", log, rows=0, progress=False)


def test_the_guard_of_the_bundle_is_asked_for_less(tmp_path: Path) -> None:
    """A wider share of false alarms is a lower threshold."""
    shares = [
        make_bundle(tmp_path / str(k), guard={**SMALL_GUARD, "false_alarms": share})[0].guard
        for k, share in enumerate((0.005, 0.1))
    ]
    assert shares[0] is not None
    assert shares[1] is not None
    assert shares[0].rate.estimate < 0.03 < shares[1].rate.estimate
