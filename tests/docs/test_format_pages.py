"""Tutorials about formats of others run as they stand on small logs; the table of formats leaves none out."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbrl.data.flat import FLAT_NAMES
from mbrl.data.formats.base import FORMATS, ReadOnlyFormat
from mbrl.data.options import LoadOptions
from tests.data import others
from tests.docs.test_tutorial import TUTORIALS, blocks, run_command

DOCS = TUTORIALS.parent


def swing(steps: int, seed: int, step: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """`[steps, 2]` angle and rate of a damped pendulum, and the `[steps]` torques that drive it."""
    rng = np.random.default_rng(seed)
    torques = np.clip(np.repeat(rng.normal(0, 1, steps // 10 + 1), 10)[:steps], -2, 2)
    states = np.zeros((steps, 2))
    states[0] = rng.normal(0, 1, 2)
    for t in range(steps - 1):
        angle, rate = states[t]
        states[t + 1, 1] = rate + step * (-9.81 * np.sin(angle) - 0.2 * rate + 3.0 * torques[t])
        states[t + 1, 0] = angle + step * states[t + 1, 1]
    return states, torques


def run_page(page: Path, folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs every block; returns the names of the Python ones, and what the commands printed."""
    names: dict[str, Any] = {}
    results: list[dict[str, Any]] = []
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif language == "yaml":
            file = re.search(r"^# (\S+\.yaml)$", text, re.MULTILINE)
            assert file is not None
            (folder / file[1]).write_text(text)
        elif language == "console":
            commands = re.findall(r"^\$ (mbrl .*)$", text, re.MULTILINE)
            assert commands
            results += [run_command(command, "") for command in commands]
    return names, results


@pytest.mark.slow
def test_the_page_of_lerobot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    logged = [swing(80, seed) for seed in range(12)]
    extra = {
        "observation.state": [states.astype(np.float32) for states, _ in logged],
        "action": [torques[:, None].astype(np.float32) for _, torques in logged],
    }
    others.write_lerobot(tmp_path / "so100_pick", "v3.0", lengths=[80] * 12, extra=extra)
    before_the_robot = (TUTORIALS / "lerobot.md").read_text(encoding="utf-8").partition("## 5. To the robot")
    assert before_the_robot[2]  # which needs columns of another robot, and is run by a test of its own
    (tmp_path / "lerobot.md").write_text(before_the_robot[0], encoding="utf-8")
    names, results = run_page(tmp_path / "lerobot.md", tmp_path)
    assert names["log"].info.obs_names == ("hip", "knee")
    assert names["episode"].observations.shape == (80, 2)
    inspected, imported = results[0], results[-1]
    texts = " ".join(finding["text"] for finding in inspected["findings"])
    assert inspected["may_train"]
    for said in ("rows dropped: no successor", "unsupported column left out", "no rewards", "action bounds"):
        assert said in texts
    assert imported["transitions"] == 12 * 79
    assert imported["content_hash"] == names["log"].content_hash


@pytest.mark.slow
def test_the_page_of_bags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rosbags")
    pytest.importorskip("pyarrow")
    from tests.data.tables.bags import START, STEP, Recorder

    monkeypatch.chdir(tmp_path)
    states, torques = swing(3000, 0)
    with Recorder(tmp_path / "run1.bag", "bag") as recorder:
        layout = recorder.make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
        for step, (angle, rate) in enumerate(states):
            stamp = START + step * STEP
            state = recorder.joints(stamp, ["shoulder"], [angle], velocity=[rate])
            recorder.write("/joint_states", state, stamp)
            if step % 2 == 0:
                data = np.array([torques[step]])
                command = recorder.make("std_msgs/msg/Float64MultiArray", layout=layout, data=data)
                recorder.write("/command", command, stamp)
    names, results = run_page(TUTORIALS / "ros-bags.md", tmp_path)
    assert names["table"].columns == ("position[shoulder]", "velocity[shoulder]")
    listed, written, imported = results[0]["topics"], results[1]["topics"], results[2]
    assert {name: topic["messages"] for name, topic in listed.items()} == {
        "/command": 1500,
        "/joint_states": 3000,
    }
    assert written["/command"]["columns"] == ["layout.data_offset", "data[0]"]
    assert imported["transitions"] == 3000 // 2 - 1
    assert imported["has_rewards"]
    assert results[3]["may_train"]


def test_the_table_of_formats_leaves_none_out() -> None:
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE))
    assert {name: "written" in how for name, how in rows.items()} == {
        name: not isinstance(FORMATS.get(name), ReadOnlyFormat) for name in FORMATS.names()
    }


def test_the_names_of_flat_arrays_are_those_that_are_read() -> None:
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    for key, names in FLAT_NAMES.items():
        if key != "is_successor_known":
            assert f"| {', '.join(f'`{name}`' for name in names)}" in text


def test_options_that_answer_are_options() -> None:
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    answers = re.findall(r"`(\w+)=(\w+)`", text)
    assert len(answers) >= 6
    for name, value in answers:
        extra = {"max_episode_steps": 5} if value == "limit" else {}
        assert getattr(LoadOptions.model_validate({name: value, **extra}), name) == value
