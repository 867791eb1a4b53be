"""Bags that the library rosbags writes, ROS 1 and both kinds of ROS 2, read as tables of numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.data.tables import rosbag
from mbrl.data.tables.rosbag import Topic, is_bag, list_topics, read_bag

pytest.importorskip("rosbags")

from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

KINDS = ("bag", "db3", "mcap")
START = 1_700_000_000_000_000_000
STEP = 20_000_000
LATE = 7_000_000  # from the header's stamp to the recorder


class Recorder:
    """Writes one bag of either version."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.is_ros1 = path, kind == "bag"
        self.store = get_typestore(Stores.ROS1_NOETIC if self.is_ros1 else Stores.ROS2_HUMBLE)
        plugin = StoragePlugin.MCAP if kind == "mcap" else StoragePlugin.SQLITE3
        self.writer = Writer1(path) if self.is_ros1 else Writer2(path, version=9, storage_plugin=plugin)
        self.links: dict[str, Any] = {}

    def __enter__(self) -> "Recorder":
        self.writer.open()
        return self

    def __exit__(self, *args: object) -> None:
        self.writer.close()

    def make(self, kind: str, **values: Any) -> Any:
        return self.store.types[kind](**values)

    def header(self, stamp: int) -> Any:
        time = self.make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
        more = {"seq": 0} if self.is_ros1 else {}
        return self.make("std_msgs/msg/Header", stamp=time, frame_id="base", **more)

    def write(self, topic: str, message: Any, time: int) -> None:
        kind = message.__msgtype__
        if topic not in self.links:
            self.links[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        pack = self.store.serialize_ros1 if self.is_ros1 else self.store.serialize_cdr
        self.writer.write(self.links[topic], time, pack(message, kind))

    def joints(self, stamp: int, names: Sequence[str], position: Sequence[float], **more: Any) -> Any:
        empty = np.zeros(0)
        return self.make(
            "sensor_msgs/msg/JointState",
            header=self.header(stamp),
            name=list(names),
            position=np.array(position, dtype=np.float64),
            velocity=np.array(more.get("velocity", empty), dtype=np.float64),
            effort=empty,
        )


def record(folder: Path, kind: str) -> Path:
    """Two joints at 50 Hz, commands without headers half as often, and a picture."""
    path = folder / ("log.bag" if kind == "bag" else "log")
    with Recorder(path, kind) as recorder:
        for step in range(6):
            stamp = START + step * STEP
            state = recorder.joints(stamp, ["shoulder", "elbow"], [step, -step], velocity=[0.5, step / 10])
            recorder.write("/joint_states", state, stamp + LATE)
            if step % 2 == 0:
                layout = recorder.make("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
                data = np.array([step / 2, 1.0])
                command = recorder.make("std_msgs/msg/Float64MultiArray", layout=layout, data=data)
                recorder.write("/command", command, stamp + LATE)
        picture = recorder.make(
            "sensor_msgs/msg/Image",
            header=recorder.header(START),
            height=16,
            width=32,
            encoding="mono8",
            is_bigendian=0,
            step=32,
            data=np.zeros(512, dtype=np.uint8),
        )
        recorder.write("/camera", picture, START + LATE)
    return path


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
