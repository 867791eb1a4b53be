"""Bags of both versions of ROS, as the library rosbags writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
