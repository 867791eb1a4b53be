"""Small files in the layouts of other libraries; every number says where it belongs: 100 * episode + step."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LENGTHS = (4, 3, 5)


def states(index: int, rows: int) -> np.ndarray:
    """`[rows, 2]`, 100 * episode + step and its negative half."""
    count = 100.0 * index + np.arange(rows)
    return np.stack([count, -0.5 * count], axis=1).astype(np.float32)


def commands(index: int, rows: int) -> np.ndarray:
    """`[rows, 1]` in [-1, 1]."""
    return np.sin(states(index, rows)[:, :1]).astype(np.float32)


# --- LeRobot ---


def lerobot_features(**changes: Any) -> dict[str, Any]:
    """Descriptions of the columns, a change to None removing one."""
    numbers = {"dtype": "int64", "shape": [1], "names": None}
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["hip", "knee"]}},
        "observation.images.front": {
            "dtype": "video",
            "shape": [48, 64, 3],
            "names": ["height", "width", "c"],
        },
        "action": {"dtype": "float32", "shape": [1], "names": ["torque"]},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), numbers),
    }
    return {name: value for name, value in (features | changes).items() if value is not None}


def lerobot_frames(index: int, frames: int, first: int, fps: int = 50) -> dict[str, Any]:
    """Columns of one episode."""
    number = np.arange(frames)
    return {
        "observation.state": states(index, frames),
        "action": commands(index, frames),
        "timestamp": (number / fps).astype(np.float32),
        "frame_index": number,
        "episode_index": np.full(frames, index),
        "index": first + number,
        "task_index": np.zeros(frames, dtype=np.int64),
    }


def write_parquet(path: Path, columns: dict[str, Any], *, is_fixed: bool = True) -> Path:
    """A Parquet file; matrices as lists of either kind."""
    import pyarrow as pa
    from pyarrow import parquet

    arrays: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.ndim == 2:
            flat = pa.array(values.reshape(-1))
            fixed = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
            arrays[name] = fixed if is_fixed else fixed.cast(pa.list_(flat.type))
        else:
            arrays[name] = pa.array(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(arrays), path)
    return path


def write_lerobot(
    path: Path,
    version: str = "v2.1",
    *,
    lengths: Sequence[int] = LENGTHS,
    features: dict[str, Any] | None = None,
    extra: dict[str, list[np.ndarray]] | None = None,
    **info: Any,
) -> Path:
    """A dataset; `extra` are further columns, one array for each episode, `info` changes `meta/info.json`."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    episodes = [lerobot_frames(index, count, int(starts[index])) for index, count in enumerate(lengths)]
    for name, values in (extra or {}).items():
        for frames, part in zip(episodes, values, strict=True):
            frames[name] = part
    if version.startswith("v2"):
        for index, frames in enumerate(episodes):
            write_parquet(path / f"data/chunk-000/episode_{index:06d}.parquet", frames)
    else:  # two episodes in the first file
        for number, group in enumerate((episodes[:2], episodes[2:])):
            joined = {name: np.concatenate([part[name] for part in group]) for name in group[0]}
            write_parquet(path / f"data/chunk-000/file-{number:03d}.parquet", joined, is_fixed=False)
    described = {
        "codebase_version": version,
        "robot_type": "leg",
        "total_episodes": len(lengths),
        "total_frames": int(np.sum(lengths)),
        "fps": 50,
        "splits": {"train": "0:2", "test": "2:3"},
        "features": lerobot_features() if features is None else features,
    }
    (path / "meta").mkdir()
    content = {key: value for key, value in (described | info).items() if value is not None}
    (path / "meta" / "info.json").write_text(json.dumps(content))
    return path


# --- robomimic ---


def write_robomimic(
    path: Path,
    *,
    lengths: Sequence[int] = LENGTHS,
    done_mode: int | None = 1,
    next_obs: bool = True,
    rewards: bool = True,
    images: bool = True,
) -> Path:
    """Demonstrations of two vectors and an image; `done_mode` is the library's, None writes no flags."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = int(np.sum(lengths))
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for index, steps in enumerate(lengths):
            group = data.create_group(f"demo_{index}")
            group.attrs["num_samples"] = steps
            rows = states(index, steps + 1)
            keys = ("obs", "next_obs") if next_obs else ("obs",)
            for key, part in zip(keys, (rows[:-1], rows[1:]), strict=False):
                group[f"{key}/joint_pos"] = part
                group[f"{key}/gripper"] = part[:, :1] / 100
                if images:
                    group[f"{key}/agentview_image"] = np.zeros((steps, 16, 16, 3), dtype=np.uint8)
            group["actions"] = commands(index, steps)
            if rewards:
                group["rewards"] = np.arange(steps) == steps - 1
            is_success = np.arange(steps) >= steps - 2  # the library marks every state of success
            if done_mode is not None:
                group["dones"] = (is_success if done_mode == 0 else np.arange(steps) == steps - 1).astype(
                    np.int64
                )
        file["mask/train"] = np.array([b"demo_0", b"demo_2"])
        file["mask/valid"] = np.array([b"demo_1"])
    return path


# --- OGBench ---


def ogbench_arrays(lengths: Sequence[int] = LENGTHS) -> dict[str, np.ndarray]:
    """T + 1 rows for each trajectory, the last with a meaningless action of 9."""
    rows = [states(index, steps + 1) for index, steps in enumerate(lengths)]
    acts = [np.append(commands(index, steps), [[9.0]], axis=0) for index, steps in enumerate(lengths)]
    ends = [np.arange(steps + 1) == steps for steps in lengths]
    return {
        "observations": np.concatenate(rows),
        "actions": np.concatenate(acts).astype(np.float32),
        "terminals": np.concatenate(ends).astype(np.float32),
        "qpos": np.concatenate(rows)[:, :1],
        "qvel": np.concatenate(rows)[:, 1:],
    }


def write_ogbench(path: Path) -> Path:
    """The archive."""
    np.savez(path, **ogbench_arrays())
    return path


# --- NeoRL ---


def neorl_arrays(lengths: Sequence[int] = LENGTHS) -> dict[str, np.ndarray]:
    """Every trajectory is done at its end, the index holds the ends."""
    rows = [states(index, steps + 1) for index, steps in enumerate(lengths)]
    return {
        "obs": np.concatenate([part[:-1] for part in rows]),
        "next_obs": np.concatenate([part[1:] for part in rows]),
        "action": np.concatenate([commands(index, steps) for index, steps in enumerate(lengths)]),
        "reward": np.concatenate([np.full((steps, 1), index) for index, steps in enumerate(lengths)]) * 1.0,
        "done": np.concatenate([np.arange(steps) == steps - 1 for steps in lengths])[:, None].astype(float),
        "index": np.cumsum(lengths).astype(float),
    }


def write_neorl(path: Path) -> Path:
    """The archive without the flag, whose meaning is asked about."""
    np.savez(path, **{key: values for key, values in neorl_arrays().items() if key != "done"})
    return path


# --- d3rlpy ---


def write_d3rlpy(path: Path, *, lengths: Sequence[int] = LENGTHS, is_tuple: bool = False) -> Path:
    """`ReplayBuffer.dump`: every second episode terminated."""
    with h5py.File(path, "w") as file:
        file["columns"] = ["observations", "actions", "rewards", "terminated"]
        file["num_episodes"] = len(lengths)
        for index, steps in enumerate(lengths):
            rows = states(index, steps)
            if is_tuple:
                file[f"observations_{index}_0"], file[f"observations_{index}_1"] = rows[:, :1], rows[:, 1:]
            else:
                file[f"observations_{index}"] = rows
            file[f"actions_{index}"] = commands(index, steps)
            file[f"rewards_{index}"] = np.full((steps, 1), float(index))
            file[f"terminated_{index}"] = index % 2 == 1
        file["version"] = "2.1"
    return path


def write_d3rlpy_1(path: Path, *, discrete: bool = False) -> Path:
    """`MDPDataset.dump` of version 1: every second episode terminated, ends of either kind marked."""
    ends = np.concatenate([np.arange(steps) == steps - 1 for steps in LENGTHS])
    number = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    acts = np.concatenate([commands(index, steps) for index, steps in enumerate(LENGTHS)])
    with h5py.File(path, "w") as file:
        file["observations"] = np.concatenate([states(index, steps) for index, steps in enumerate(LENGTHS)])
        file["actions"] = (acts[:, 0] > 0).astype(np.int32) if discrete else acts
        file["rewards"] = number.astype(np.float32)
        file["terminals"] = (ends & (number % 2 == 1)).astype(np.float32)
        file["episode_terminals"] = ends.astype(np.float32)
        file["discrete_action"] = discrete
        file["version"] = "1.0"
    return path


# --- Minari, Arrow and Parquet ---


def write_minari_arrow(path: Path, kind: str = "parquet", *, lengths: Sequence[int] = LENGTHS) -> Path:
    """The layout as the library writes it: T + 1 rows, padded, a folder for each episode."""
    import pyarrow as pa
    from pyarrow import dataset as arrow

    box = {"type": "Box", "dtype": "float32"}
    metadata = {
        "total_episodes": len(lengths),
        "total_steps": int(np.sum(lengths)),
        "data_format": kind,
        "dataset_id": "leg/test-v0",
        "observation_space": json.dumps({**box, "shape": [2], "low": [-1e4] * 2, "high": [1e4] * 2}),
        "action_space": json.dumps({**box, "shape": [1], "low": [-1.0], "high": [1.0]}),
    }
    (path / "data").mkdir(parents=True)
    (path / "data" / "metadata.json").write_text(json.dumps(metadata))
    for index, steps in enumerate(lengths):
        padded = np.append(commands(index, steps), np.zeros((1, 1), dtype=np.float32), axis=0)
        ends = np.append(np.arange(steps) == steps - 1, [False])
        rows = pa.RecordBatch.from_pydict(
            {
                "episode_id": np.full(steps + 1, index, dtype=np.int32),
                "observations": pa.FixedSizeListArray.from_arrays(states(index, steps + 1).reshape(-1), 2),
                "actions": pa.FixedSizeListArray.from_arrays(padded.reshape(-1), 1),
                "rewards": np.append(np.full(steps, float(index)), 0.0),
                "terminations": ends & (index % 2 == 1),
                "truncations": ends & (index % 2 == 0),
            }
        )
        arrow.write_dataset(
            rows,
            path / "data",
            format=kind,
            partitioning=["episode_id"],
            existing_data_behavior="overwrite_or_ignore",
        )
    return path


BANDIT_HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0"
BANDIT_ROWS = (
    "0,2019-11-24 00:00:00,3,2,0,0.25,81ce,0.5",
    "1,2019-11-24 00:00:01,0,1,1,0.5,03a5,0.0",
    "2,2019-11-24 00:00:02,3,3,0,0.125,81ce,1.5",
    "3,2019-11-24 00:00:03,1,1,1,1.0,03a5,0.0",
)


def write_open_bandit(path: Path) -> Path:
    """Four decisions in the layout of the Open Bandit Dataset."""
    path.write_text("\n".join([BANDIT_HEADER, *BANDIT_ROWS]) + "\n")
    return path
