"""Bags that the library rosbags writes, ROS 1 and both kinds of ROS 2, read as tables of numbers."""

from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.data.tables import rosbag
from mbrl.data.tables.rosbag import Topic, is_bag, list_topics, read_bag

pytest.importorskip("rosbags")

from tests.data.tables.bags import KINDS, LATE, START, STEP, Recorder, record


@pytest.fixture(params=KINDS)
def bag(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return record(tmp_path, request.param)


def test_topics_are_listed(bag: Path):
    assert is_bag(bag)
    assert list_topics(bag) == (
        Topic("/camera", "sensor_msgs/msg/Image", 1),
        Topic("/command", "std_msgs/msg/Float64MultiArray", 3),
        Topic("/joint_states", "sensor_msgs/msg/JointState", 6),
    )


def test_numbers_are_columns_by_their_paths(bag: Path):
    states, commands = read_bag(bag, ["/joint_states", "/command"])
    names = ("position[shoulder]", "position[elbow]", "velocity[shoulder]", "velocity[elbow]")
    assert (states.name, states.columns) == ("/joint_states", names)
    assert states.column("position[elbow]").tolist() == [0, -1, -2, -3, -4, -5]
    assert states.column("velocity[elbow]").tolist() == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert commands.columns == ("layout.data_offset", "data[0]", "data[1]")
    assert commands.column("data[0]").tolist() == [0, 1, 2]


def test_headers_tell_when_it_was_measured(bag: Path):
    """Seconds since the earliest stamp of all topics; what has no header has the time of the recorder."""
    states, commands = read_bag(bag, ["/joint_states", "/command"])
    assert states.start == commands.start == START
    assert states.stamps.tolist() == pytest.approx([0.00, 0.02, 0.04, 0.06, 0.08, 0.10], abs=1e-12)
    assert commands.stamps.tolist() == pytest.approx([0.007, 0.047, 0.087], abs=1e-12)
    assert commands.notes == {"messages without a header stamp: time of the recorder": 3}
    (recorded,) = read_bag(bag, ["/joint_states"], clock="log")
    assert recorded.start == START + LATE
    assert recorded.notes == {}


def test_without_a_choice_every_topic_is_read(bag: Path):
    tables = {table.name: table for table in read_bag(bag)}
    assert sorted(tables) == ["/camera", "/command", "/joint_states"]
    assert tables["/camera"].columns == ("height", "width", "is_bigendian", "step")
    assert tables["/camera"].notes["data left out: more than 256 entries"] == 1


def test_the_file_in_the_folder_is_read_too(tmp_path: Path):
    folder = record(tmp_path, "mcap")
    (file,) = folder.glob("*.mcap")
    assert is_bag(file)
    assert read_bag(file, ["/command"])[0].column("data[0]").tolist() == [0, 1, 2]


def test_messages_out_of_order_are_sorted_and_counted(tmp_path: Path):
    with Recorder(tmp_path / "log.bag", "bag") as recorder:
        for step, stamp in enumerate((0, 2, 1, 3)):
            message = recorder.joints(START + stamp * STEP, ["a"], [stamp])
            recorder.write("/joints", message, START + step * STEP)
    (table,) = read_bag(tmp_path / "log.bag")
    assert table.column("position[a]").tolist() == [0, 1, 2, 3]
    assert table.notes == {"messages out of order, sorted by time": 1}


def test_joints_that_come_and_go_are_gaps(tmp_path: Path):
    """Drivers send the joints of each board in turn, under one topic."""
    with Recorder(tmp_path / "log.bag", "bag") as recorder:
        for step, names in enumerate((["a"], ["b"], ["a", "b"])):
            stamp = START + step * STEP
            recorder.write("/joints", recorder.joints(stamp, names, [step] * len(names)), stamp)
    (table,) = read_bag(tmp_path / "log.bag")
    assert np.array_equal(table.values, [[0, np.nan], [np.nan, 1], [2, 2]], equal_nan=True)


def test_an_unknown_topic_names_the_one_that_was_meant(bag: Path):
    with pytest.raises(DataError, match=r"Did you mean '/joint_states'\? Its topics: /camera, /command"):
        read_bag(bag, ["/joint_state"])


def test_a_topic_of_texts_has_nothing_to_read(tmp_path: Path):
    with Recorder(tmp_path / "log.bag", "bag") as recorder:
        recorder.write("/said", recorder.make("std_msgs/msg/String", data="go"), START)
    with pytest.raises(DataError, match="no topic holds numbers"):
        read_bag(tmp_path / "log.bag")
    with pytest.raises(DataError, match=r"1 messages without numbers \(data left out: no number\)"):
        read_bag(tmp_path / "log.bag", ["/said"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.02, 0.4, 0.9])
def test_a_bag_that_was_cut_is_refused_by_name(tmp_path: Path, kind: str, keep: float):
    path = record(tmp_path, kind)
    file = path if path.is_file() else next(entry for entry in path.iterdir() if entry.suffix == f".{kind}")
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError) as caught:
        read_bag(path)
    assert caught.value.file == path
    assert caught.value.remedy


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = record(tmp_path, "bag")
    monkeypatch.setitem(__import__("sys").modules, "rosbags.highlevel", None)
    with pytest.raises(MissingExtraError, match=r"mbrl-offline\[rosbag\]"):
        read_bag(path)


def test_a_text_is_no_bag(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("not a log")
    assert not is_bag(tmp_path / "notes.txt")
    assert not is_bag(tmp_path)


def test_too_many_numbers_are_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rosbag, "MAX_COLUMNS", 2)
    with Recorder(tmp_path / "log.bag", "bag") as recorder:
        recorder.write("/joints", recorder.joints(START, ["a", "b", "c"], [1, 2, 3]), START)
    with pytest.raises(DataError, match="more than 2 numbers"):
        read_bag(tmp_path / "log.bag")


def test_a_name_of_a_type_that_is_code_is_not_run(tmp_path: Path):
    """The library makes classes of definitions in a bag; its grammar lets through what is a name alone."""
    from rosbags.rosbag1 import Writer

    trap = tmp_path / "sprung"
    for index, name in enumerate((f"a/msg/B:\n    open({str(trap)!r}, 'w')\nclass C", "a/msg/B(print('x'))")):
        path = tmp_path / f"log{index}.bag"
        with Writer(path) as writer:
            link = writer.add_connection("/x", name, msgdef="float64 data\n", md5sum="*" * 32)
            writer.write(link, START, bytes(8))
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_bag(path)
        assert caught.value.file == path
    assert not trap.exists()
