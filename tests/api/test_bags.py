"""Topics of a bag, listed and written, by Python and on the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mbrl
from mbrl.cli.app import app

pytest.importorskip("rosbags")
pytest.importorskip("pyarrow")

from tests.data.tables.bags import record


def test_topics_are_listed_and_the_next_step_is_named(tmp_path: Path):
    found = mbrl.topics(record(tmp_path, "mcap"))
    listed = found.to_dict()["topics"]
    assert listed["/joint_states"]["type"] == "sensor_msgs/msg/JointState"
    assert (listed["/joint_states"]["messages"], listed["/joint_states"]["file"]) == (6, None)
    assert "mbrl topics BAG --out FOLDER" in str(found)
    assert repr(found) == "BagResult('log', 3 topics)"


def test_the_command_writes_what_the_function_writes(tmp_path: Path):
    path = record(tmp_path, "db3")
    arguments = ["--topic", "/joint_states", "--topic", "/command"]
    result = CliRunner().invoke(
        app, ["topics", str(path), *arguments, "--out", str(tmp_path / "a"), "--json"]
    )
    assert result.exit_code == 0, result.stderr
    ours = mbrl.topics(path, ["/joint_states", "/command"], out=tmp_path / "b")
    printed = json.loads(result.stdout)["topics"]
    assert printed["/command"]["columns"] == list(ours.columns["/command"])
    for name, file in ours.written.items():
        assert Path(printed[name]["file"]).read_bytes() == file.read_bytes()
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "log_command.parquet",
        "log_joint_states.parquet",
    ]
    assert "Written" in str(ours)
    assert "mbrl import SCHEMA.yaml FOLDER" in str(ours)


def test_errors_are_one_paragraph(tmp_path: Path):
    path = record(tmp_path, "bag")
    result = CliRunner().invoke(
        app, ["topics", str(path), "--topic", "/comand", "--out", str(tmp_path / "a")]
    )
    assert result.exit_code == 1
    assert "Did you mean '/command'?" in " ".join(result.stderr.split())
    result = CliRunner().invoke(app, ["topics", str(tmp_path / "nothing.bag")])
    assert result.exit_code == 1
    assert "Internal error" not in result.stderr
    assert "Remedy" in result.stderr
