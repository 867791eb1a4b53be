"""The file that a robot carries: limits, checks, history, guard, fallback, log; no torch."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.deploy import runtime as runtime_module
from mbrl.testing.samples import SPACE, make_dataset
from tests.deploy.bundles import make_actor, make_bundle, timed

pytest.importorskip("onnxruntime")
from mbrl.deploy.runtime import Controller

ORDINARY = np.array([0.1, -0.2, 0.15], np.float32)
FAR = np.array([50.0, -80.0, 90.0], np.float32)


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    make_bundle(tmp_path / "bundle", log=timed(make_dataset(), 50.0), patience=1)
    return tmp_path / "bundle"


def edit(bundle: Path, section: str, **values: Any) -> None:
    path = bundle / "contract.json"
    contract = json.loads(path.read_text())
    contract[section] |= values
    path.write_text(json.dumps(contract))


def decision(controller: Controller) -> runtime_module.Decision:
    assert controller.last is not None
    return controller.last


def test_it_is_short_enough_to_be_read() -> None:
    assert len(Path(runtime_module.__file__).read_text().splitlines()) < 200


def test_the_action_is_that_of_the_policy(tmp_path: Path) -> None:
    _, policy = make_bundle(tmp_path / "bundle")
    controller = Controller(tmp_path / "bundle")
    log = make_dataset()
    obs = log.episodes[1].observations[:20]
    import torch

    expected = policy.act(torch.from_numpy(obs.copy())).numpy()
    assert np.abs(expected).max() > 0.1
    for row, action in zip(obs, expected, strict=True):
        controller.act(row)
        assert decision(controller).proposed == pytest.approx(action, abs=1e-5)


def test_limits_and_changes_hold_whoever_acts(bundle: Path) -> None:
    edit(bundle, "runtime", coast_steps=0)
    edit(bundle, "action", channels=[
        {**channel, "max_change": 0.25}
        for channel in json.loads((bundle / "contract.json").read_text())["action"]["channels"]
    ])  # fmt: skip
    controller = Controller(bundle, fallback=lambda frame: np.array([99.0, -99.0]))
    low, high = np.array(SPACE.act_low), np.array(SPACE.act_high)
    before = None
    for k in range(40):
        action = controller.act(FAR + k if k % 3 else ORDINARY * k)
        assert (action >= low).all()
        assert (action <= high).all()
        assert before is None or (np.abs(action - before) <= 0.25 + 1e-6).all()
        before = action
    assert decision(controller).source == "fallback"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_reaches_the_policy(bundle: Path, bad: float) -> None:
    edit(bundle, "runtime", coast_steps=0)
    controller = Controller(bundle)
    safe = controller.act(ORDINARY)
    held = controller.act([0.1, bad, 0.15])
    assert decision(controller)[1:3] == ("hold", ("not_finite",))
    assert np.isnan(decision(controller).proposed).all()
    assert held == pytest.approx(safe)
    controller.act(ORDINARY)
    assert decision(controller).source == "policy"


def test_a_hold_ends_with_the_rest(bundle: Path) -> None:
    edit(bundle, "runtime", coast_steps=0, hold_steps=2, rest=[0.5, -1.5])
    controller = Controller(bundle)
    controller.act(ORDINARY)
    sources = []
    for _ in range(4):
        action = controller.act(np.full(3, np.nan))
        sources.append(decision(controller).source)
    assert sources == ["hold", "hold", "rest", "rest"]
    assert action == pytest.approx([0.5, -1.5])


def test_another_size_is_an_error(bundle: Path) -> None:
    with pytest.raises(ValueError, match="3 channels"):
        Controller(bundle).act([1.0, 2.0])


def test_old_observations_are_stale(bundle: Path) -> None:
    clock = Clock()
    controller = Controller(bundle, clock=clock)  # 2.5 steps of 20 ms
    controller.act(ORDINARY, stamp=99.96)
    assert decision(controller).reasons == ()
    clock.now = 100.02
    controller.act(ORDINARY + 0.01, stamp=99.969)
    assert decision(controller).reasons == ("stale",)
    clock.now = 100.03
    controller.act(ORDINARY + 0.02, stamp=99.969)  # not newer than the one before
    assert decision(controller).reasons == ("stale",)
    controller.act(ORDINARY + 0.03, stamp=100.03)
    assert decision(controller).reasons == ()


def test_a_frozen_sensor_is_stale(bundle: Path) -> None:
    edit(bundle, "runtime", frozen_after=3)
    controller = Controller(bundle, guard=False)
    seen = []
    for _ in range(5):
        controller.act(ORDINARY)
        seen.append("stale" in decision(controller).reasons)
    assert seen == [False, False, False, True, True]
    controller.act(ORDINARY + 1e-3)
    assert "stale" not in decision(controller).reasons


def scripted(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]
) -> None:
    """A guard that says what is written, and forecasts frames of 9."""
    told = iter(scores)
    nine = np.full(3, 9.0, np.float32)
    real = controller._previous

    def judge(stack: Any, action: Any) -> tuple[float, float, np.ndarray]:
        is_forecast = controller._previous is not None and stack is controller._previous[0]
        return (0.0, 0.0, nine) if is_forecast else (*next(told), nine)

    assert real is None
    monkeypatch.setattr(controller, "_judge", judge)


def sources_of(controller: Controller, steps: int, *, broken: Any = ()) -> list[str]:
    found = []
    for k in range(steps):
        controller.act(np.full(3, np.nan) if k in broken else ORDINARY + 0.01 * k)
        found.append(decision(controller).source)
    return found


FAR_SCORE, ODD, QUIET = (50.0, 0.0), (0.0, 50.0), (0.0, 0.0)


def test_novelty_hands_over_and_back(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(bundle, "runtime", patience=2, release=2)
    controller = Controller(bundle)
    script = [QUIET, FAR_SCORE, QUIET, FAR_SCORE, FAR_SCORE, QUIET, FAR_SCORE, QUIET, QUIET, QUIET]
    scripted(controller, monkeypatch, script)
    # Two steps far from the log in a row hand over, two quiet ones hand back.
    assert sources_of(controller, 10) == ["policy"] * 4 + ["hold"] * 4 + ["policy"] * 2


def test_novelty_is_only_told_of_where_nobody_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, _ = make_bundle(tmp_path / "alone")
    helped, _ = make_bundle(tmp_path / "helped", fallback=make_actor(seed=5))
    assert (alone.runtime.patience, helped.runtime.patience) == (None, 3)
    found = []
    for name in ("alone", "helped"):
        controller = Controller(tmp_path / name)
        scripted(controller, monkeypatch, [FAR_SCORE] * 4)
        found.append(sources_of(controller, 4))
        assert decision(controller).alarm
    assert found == [["policy"] * 4, ["policy"] * 2 + ["fallback"] * 2]


def test_a_frame_that_does_not_follow_is_replaced_by_its_forecast(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    policy = make_actor()
    controller = Controller(bundle)
    scripted(controller, monkeypatch, [QUIET, ODD, QUIET])
    controller.act(ORDINARY)
    action = controller.act(ORDINARY)
    assert decision(controller)[1:3] == ("coast", ("surprise",))
    assert action == pytest.approx(policy.act(torch.full((1, 3), 9.0)).numpy()[0], abs=1e-5)
    controller.act(ORDINARY)
    assert decision(controller)[1:3] == ("policy", ())


def test_forecasts_end_and_the_machine_is_believed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(bundle, "runtime", coast_steps=3)
    controller = Controller(bundle)
    scripted(controller, monkeypatch, [QUIET] + [ODD] * 5 + [QUIET, ODD])
    # Another machine surprises for good: it is not flown blind. One quiet step allows forecasts again.
    assert sources_of(controller, 8) == ["policy"] + ["coast"] * 3 + ["policy"] * 3 + ["coast"]


def test_nonsense_without_end_reaches_no_policy_for_long(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(bundle, "runtime", coast_steps=3, hold_steps=2, patience=3)
    controller = Controller(bundle)
    scripted(controller, monkeypatch, [QUIET] + [(50.0, 50.0)] * 8)
    assert sources_of(controller, 9) == ["policy"] + ["coast"] * 3 + ["hold"] * 2 + ["rest"] * 3


def test_errors_of_forecasts_may_add_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    controller = Controller(bundle)
    limit = controller.contract["guard"]["threshold"]
    scripted(controller, monkeypatch, [QUIET, ODD, (0.0, 1.9 * limit), (0.0, 1.9 * limit)])
    assert sources_of(controller, 4) == ["policy", "coast", "policy", "coast"]


def test_lost_frames_are_replaced_by_forecasts_for_a_while(bundle: Path) -> None:
    edit(bundle, "runtime", coast_steps=2, hold_steps=1)
    controller = Controller(bundle)
    found = sources_of(controller, 6, broken=(1, 2, 3, 4))
    assert found == ["policy", "coast", "coast", "hold", "rest", "policy"]


def test_what_is_far_from_the_log_is_an_alarm_at_once(bundle: Path) -> None:
    edit(bundle, "runtime", patience=1)
    controller = Controller(bundle)
    controller.act(FAR)
    assert (decision(controller).alarm, decision(controller).source) == (True, "hold")


def test_a_guard_that_only_watches_leaves_the_policy_alone(bundle: Path) -> None:
    controller = Controller(bundle, guard=False)
    controller.act(FAR)
    assert (decision(controller).alarm, decision(controller).source) == (True, "policy")


def test_a_score_that_is_no_number_is_an_alarm(bundle: Path) -> None:
    controller = Controller(bundle)
    controller.act(np.full(3, 3e38, np.float32))  # its square is no float32
    assert decision(controller).alarm


def test_surprise_is_of_what_was_executed(bundle: Path) -> None:
    episode = make_dataset().episodes[1]
    controller = Controller(bundle, guard=False)
    scores = []
    for told in (True, False):
        controller.reset()
        for t in range(3):
            controller.act(episode.observations[t])
            if told:
                controller.executed(episode.actions[t])
        scores.append(decision(controller).surprise)
    assert scores[0] < 1.2  # the logged action explains the logged step
    assert scores[1] != scores[0]


def test_the_fallback_policy_acts_when_the_guard_alarms(tmp_path: Path) -> None:
    import torch

    other = make_actor(seed=5)
    make_bundle(tmp_path / "bundle", fallback=other, patience=1, coast_steps=0)
    controller = Controller(tmp_path / "bundle")
    action = controller.act(FAR)
    assert decision(controller).source == "fallback"
    assert action == pytest.approx(other.act(torch.from_numpy(FAR[None])).numpy()[0], abs=1e-5)
    controller.act(np.full(3, np.nan))
    assert decision(controller).source == "hold"  # no policy sees what is not finite


def test_a_fallback_that_fails_holds(bundle: Path) -> None:
    controller = Controller(bundle, fallback=lambda frame: np.array([np.nan, 0.0]))
    controller.act(FAR)
    assert decision(controller)[1:3] == ("hold", ("novelty", "fallback"))


def test_history_must_be_complete(tmp_path: Path) -> None:
    import torch

    from mbrl.data.importing.schema import ImportSchema
    from mbrl.run.bundle.write import BundleConfig, BundleParts, write_bundle
    from tests.deploy.bundles import SMALL_GUARD, stacked_episode, stored

    frames = [e.observations[:, :1] for e in make_dataset().episodes]
    episodes = [
        stacked_episode(f, e.actions, 3) for f, e in zip(frames, make_dataset().episodes, strict=True)
    ]
    schema = ImportSchema.model_validate({
        "name": "h", "time": {"step": 0.02}, "observations": ["x"], "actions": ["u", "v"], "history": 3,
    })  # fmt: skip
    info = DatasetInfo(
        name="h", obs_names=schema.obs_names, act_names=("u", "v"), schema=schema.model_dump_json(),
        time_step=0.02,
    )  # fmt: skip
    policy = make_actor()
    log = Dataset(tuple(episodes), SPACE, info)
    config = BundleConfig.model_validate({"guard": SMALL_GUARD, "coast_steps": 0})
    contract = write_bundle(BundleParts(stored(policy), log), tmp_path / "bundle", config)
    assert (contract.observation.history, contract.frame_names) == (3, ("x",))
    clock = Clock()
    controller = Controller(tmp_path / "bundle", guard=False, clock=clock)
    rows = [0.1, 0.2, 0.3, np.nan, 0.4, 0.5, 0.6]
    reasons = []
    for x in rows:
        clock.now += 0.02
        controller.act([x], stamp=clock.now)
        reasons.append(decision(controller).reasons)
    assert reasons[:3] == [("history",), ("history",), ()]
    assert reasons[3:] == [("not_finite",), ("history",), ("history",), ()]
    expected = policy.act(torch.tensor([[0.6, 0.5, 0.4]])).numpy()[0]
    assert decision(controller).proposed == pytest.approx(expected, abs=1e-5)
    clock.now += 0.2  # frames are missing in between
    controller.act([0.7], stamp=clock.now)
    assert decision(controller).reasons == ("history",)


def test_draws_follow_the_seed(tmp_path: Path) -> None:
    from mbrl.run.bundle.write import BundleConfig, BundleParts, write_bundle
    from tests.deploy.bundles import SMALL_GUARD, stored

    config = BundleConfig.model_validate({"guard": SMALL_GUARD, "stochastic": True})
    parts = BundleParts(stored(make_actor("clipped_gaussian")), make_dataset())
    write_bundle(parts, tmp_path / "bundle", config)
    actions = [Controller(tmp_path / "bundle", seed=seed).act(ORDINARY).tolist() for seed in (0, 0, 1)]
    assert actions[0] == actions[1] != actions[2]


def test_a_changed_file_is_refused(bundle: Path) -> None:
    content = bytearray((bundle / "policy.onnx").read_bytes())
    content[-20] ^= 1
    (bundle / "policy.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="not the file"):
        Controller(bundle)


@pytest.mark.parametrize("fallback", ["policy", "other"])
def test_a_fallback_that_is_not_there_is_refused(bundle: Path, fallback: Any) -> None:
    with pytest.raises(ValueError, match="fallback"):
        Controller(bundle, fallback=fallback)


def test_the_log_says_what_was_done(bundle: Path, tmp_path: Path) -> None:
    clock = Clock()
    with Controller(bundle, log=tmp_path / "run.csv", clock=clock) as controller:
        for frame in (ORDINARY, FAR, np.full(3, np.nan)):
            clock.now += 0.02
            controller.act(frame)
        controller.reset()
        controller.act(ORDINARY)
    rows = list(csv.DictReader((tmp_path / "run.csv").read_text().splitlines()))
    assert [row["source"] for row in rows] == ["policy", "coast", "coast", "policy"]
    assert [row["reasons"] for row in rows] == ["", "surprise+novelty", "not_finite", ""]
    assert [row["episode"] for row in rows] == ["0", "0", "0", "1"]
    assert [float(row["time"]) for row in rows] == pytest.approx([0.02, 0.04, 0.06, 0.06])
    assert rows[2]["obs_1"] == ""
    assert float(rows[0]["obs_1"]) == pytest.approx(-0.2)
    assert float(rows[0]["act_0"]) == pytest.approx(float(rows[0]["proposed_act_0"]))
    with pytest.raises(FileExistsError):
        Controller(bundle, log=tmp_path / "run.csv")


BLOCKED = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "mbrl", "pydantic", "onnx", "scipy", "yaml"}:
            raise ImportError(f"{name} is not on this robot")
sys.meta_path.insert(0, Wall())
sys.path.insert(0, sys.argv[1])
from runtime import Controller
with Controller(sys.argv[1], log=sys.argv[2], guard=False) as controller:
    for k in range(5):
        action = controller.act([0.1, 0.01 * k, 0.2])
print(controller.last.source, action.tolist())
assert not {"torch", "mbrl"} & set(sys.modules)
"""


def test_it_runs_where_neither_torch_nor_this_package_is(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", BLOCKED, str(bundle), str(tmp_path / "log.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("policy")
    assert (tmp_path / "log.csv").read_text().count("\n") == 6
