"""Files of other libraries that lie or are damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from tests.data import others
from tests.hostile import npz
from tests.hostile.case import Case

LONG: Final = (40, 40, 40)
"""Steps of the episodes: so many that a sound file has 117 transitions at least."""

FLAT: Final = ("obs", "action", "reward", "terminated", "truncated", "next_obs", "done", "act_low", "info")
KEYS: Final = {
    "ogbench": ("observations", "actions", "terminals", "qpos", "qvel"),
    "neorl": ("obs", "next_obs", "action", "reward", "done", "index"),
}
write_parquet = others.write_parquet
Fill = Callable[[h5py.File], object]


# --- flat archives ---


def flat(name: str, words: str = "", /, **changes: Any) -> Case:
    """Flat rows with successors, under names of Gymnasium; None removes one."""

    def make(folder: Path) -> Path:
        rows = npz.sound()
        obs = rows["observations"].reshape(npz.EPISODES, npz.STEPS + 1, 2)
        arrays = {
            "obs": obs[:, :-1].reshape(-1, 2),
            "action": rows["actions"],
            "reward": rows["rewards"],
            "terminated": np.zeros(npz.ROWS, dtype=bool),
            "truncated": np.tile(np.arange(npz.STEPS) == npz.STEPS - 1, npz.EPISODES),
            "next_obs": obs[:, 1:].reshape(-1, 2),
        }
        return npz.write(folder / "log.npz", arrays | changes)

    return Case(f"flat_npz: {name}", make, words=words)


def with_row(value: Any) -> np.ndarray:
    flags = np.zeros(npz.ROWS)
    flags[17] = value
    return flags


def flat_cases() -> tuple[Case, ...]:
    """The table of flat archives."""
    ends = np.tile(np.arange(npz.STEPS) == npz.STEPS - 1, npz.EPISODES)
    none = {"terminated": None, "truncated": None}
    return (
        flat("without actions", "missing", action=None),
        flat("without rewards", "rewards=ignore", reward=None),
        flat("without ends", "missing", **none),
        flat("done alone", "dones=truncated", done=ends, **none),
        flat("done that is NaN", "row 17", done=with_row(np.nan), **none),
        flat("done of text", "neither 0 nor 1", done=np.array(["no"] * npz.ROWS), **none),
        flat("done of another length", "flags are needed", done=np.zeros(7), **none),
        flat("done beside terminations", "there are terminated and done", done=ends),
        flat("two names of observations", "names of the same", observations=np.zeros((npz.ROWS, 2))),
        flat("terminations 0.3", "row 17", terminated=with_row(0.3)),
        flat("both flags", "overlap=truncated fits", terminated=ends),
        flat("one flag for each episode", "lengths", terminated=np.zeros(4), truncated=np.ones(4)),
        flat(
            "no rows", "no rows", **dict.fromkeys(("obs", "action", "reward", "next_obs"), np.zeros((0, 1)))
        ),
        flat("an action of one number", "", action=np.array(1.0)),
        flat("successors of text", "next_obs", next_obs=np.array([["x", "y"]] * npz.ROWS)),
        flat("shuffled successors", "lead elsewhere", next_obs=np.zeros((npz.ROWS, 2))),
        flat("bounds of text", "not numbers", act_low=np.array(["x"]), act_high=np.array(["y"])),
        flat("images", "images", obs=np.zeros((npz.ROWS, 2, 16, 16)), next_obs=None),
    )


# --- OGBench and NeoRL ---


def archive(kind: str, name: str, words: str = "", /, **changes: Any) -> Case:
    """An archive of OGBench or NeoRL with some keys replaced."""

    def make(folder: Path) -> Path:
        arrays = {"ogbench": others.ogbench_arrays, "neorl": others.neorl_arrays}[kind](LONG)
        return npz.write(folder / "log.npz", arrays | changes)

    return Case(f"{kind}: {name}", make, words=words)


def archive_cases() -> tuple[Case, ...]:
    """The table of OGBench's and NeoRL's archives."""
    rows, steps = sum(LONG) + len(LONG), sum(LONG)
    return (
        archive("ogbench", "flags of text", "neither 0 nor 1", terminals=np.array(["0"] * rows)),
        archive("ogbench", "flags 0.3", "neither 0 nor 1", terminals=np.full(rows, 0.3)),
        archive("ogbench", "no end", "not whole", terminals=np.zeros(rows)),
        archive("ogbench", "an end in every row", "no steps", terminals=np.ones(rows)),
        archive("ogbench", "fewer observations", "where the actions have", observations=np.zeros((7, 2))),
        archive("ogbench", "no rows", "where the actions have", actions=np.zeros((0, 1))),
        archive("ogbench", "actions of one number", "where the actions have", actions=np.array(1.0)),
        archive("ogbench", "images", "images", observations=np.zeros((rows, 16, 16, 3), np.uint8)),
        archive("ogbench", "an observation NaN", "not finite", observations=np.full((rows, 2), np.nan)),
        archive("neorl", "done", "dones=limit"),
        archive("neorl", "an index that falls", "do not rise", index=np.array([80.0, 40.0, 120.0])),
        archive("neorl", "an index beyond the rows", "do not rise", index=np.array([1e300])),
        archive("neorl", "an index of NaN", "rows are needed", index=np.array([np.nan])),
        archive("neorl", "an index of text", "rows are needed", index=np.array(["40"])),
        archive("neorl", "no index", "rows are needed", index=np.array([])),
        archive("neorl", "an index below 0", "rows are needed", index=np.array([-5.0, 120.0])),
        archive("neorl", "fewer rewards", "where the actions have", reward=np.zeros(7)),
        archive("neorl", "done within a trajectory", "within", done=np.arange(steps) == 3),
        archive("neorl", "no rows", "where the actions have", action=np.zeros((0, 1))),
    )


# --- HDF5 of robomimic and d3rlpy ---


def hdf5(kind: str, name: str, words: str = "", /, fill: Fill | None = None) -> Case:
    """A file of robomimic, d3rlpy or its version 1, with more done to it."""
    writers: dict[str, Callable[[Path], Path]] = {
        "robomimic": lambda path: others.write_robomimic(path, lengths=LONG, done_mode=None, images=False),
        "d3rlpy": lambda path: others.write_d3rlpy(path, lengths=LONG),
        "d3rlpy 1": others.write_d3rlpy_1,
    }

    def make(folder: Path) -> Path:
        path = writers[kind](folder / "log.hdf5")
        if fill is not None:
            with h5py.File(path, "a") as file:
                fill(file)
        return path

    return Case(f"{kind}: {name}", make, words=words)


def put(key: str, values: Any) -> Fill:
    """Replaces an array."""

    def fill(file: h5py.File) -> None:
        if key in file:
            del file[key]
        file[key] = values

    return fill


def hdf5_cases() -> tuple[Case, ...]:
    """The table of both."""
    demo = "data/demo_1"
    ends = np.arange(40) == 39
    return (
        hdf5("robomimic", "a demonstration that is an array", "not a group", put(demo, np.zeros(3))),
        hdf5("robomimic", "no observations", "simulator states", lambda f: f.__delitem__(f"{demo}/obs")),
        hdf5(
            "robomimic",
            "observations that are an array",
            "simulator states",
            put("data/demo_0/obs", np.zeros(3)),
        ),
        hdf5("robomimic", "no actions", "missing", lambda f: f.__delitem__(f"{demo}/actions")),
        hdf5("robomimic", "fewer actions", "there are 7 actions", put(f"{demo}/actions", np.zeros((7, 1)))),
        hdf5("robomimic", "an action of one number", "", put(f"{demo}/actions", 1.0)),
        hdf5("robomimic", "texts observed", "obs_keys", put(f"{demo}/obs/joint_pos", np.array([b"x"] * 40))),
        hdf5("robomimic", "wider observations", "dimensions", put(f"{demo}/obs/gripper", np.zeros((40, 3)))),
        hdf5("robomimic", "done", "dones=truncated", put(f"{demo}/dones", ends)),
        hdf5("robomimic", "done of 2", "neither 0 nor 1", put(f"{demo}/dones", np.full(40, 2))),
        hdf5("robomimic", "done of another length", "flags are needed", put(f"{demo}/dones", np.zeros(3))),
        hdf5("robomimic", "rewards of text", "numeric", put(f"{demo}/rewards", np.array([b"x"] * 40))),
        hdf5("robomimic", "a mask of numbers", "names of demonstrations", put("mask/train", np.zeros(3))),
        hdf5(
            "robomimic",
            "an environment of brackets",
            "json",
            lambda f: f["data"].attrs.update(env_args="[" * 9000),
        ),
        hdf5(
            "robomimic",
            "an environment named 5",
            "env_name",
            lambda f: f["data"].attrs.update(env_args='{"env_name": 5}'),
        ),
        hdf5(
            "robomimic",
            "a link to another file",
            "link",
            lambda f: f["data"].__setitem__("demo_9", h5py.ExternalLink("other.hdf5", "/")),
        ),
        hdf5("d3rlpy", "another number of episodes", "counts 9", put("num_episodes", 9)),
        hdf5("d3rlpy", "a number of episodes in words", "counts", put("num_episodes", "three")),
        hdf5("d3rlpy", "an end of 0.3", "neither 0 nor 1", put("terminated_1", 0.3)),
        hdf5("d3rlpy", "an end in words", "neither 0 nor 1", put("terminated_1", "yes")),
        hdf5("d3rlpy", "no end", "missing", lambda f: f.__delitem__("terminated_1")),
        hdf5("d3rlpy", "no observations", "missing", lambda f: f.__delitem__("observations_1")),
        hdf5("d3rlpy", "a reward NaN", "row 3", put("rewards_1", np.where(np.arange(40) == 3, np.nan, 0.0))),
        hdf5("d3rlpy", "images", "images", put("observations_0", np.zeros((40, 3, 16, 16), np.uint8))),
        hdf5("d3rlpy 1", "fewer ends", "rows", put("episode_terminals", np.zeros(3))),
        hdf5("d3rlpy 1", "ends of 2", "neither 0 nor 1", put("episode_terminals", np.full(12, 2.0))),
        hdf5("d3rlpy 1", "choices", "no integers", put("discrete_action", True)),
    )


# --- LeRobot ---


def lerobot(name: str, words: str = "", /, *, columns: dict[str, Any] | None = None, **info: Any) -> Case:
    """A dataset whose second episode has other columns, None removing one, or with another description."""

    def make(folder: Path) -> Path:
        path = others.write_lerobot(folder / "log", lengths=LONG, **info)
        if columns is not None:
            replaced = frames() | columns
            rows = {key: values for key, values in replaced.items() if values is not None}
            others.write_parquet(path / "data/chunk-000/episode_000001.parquet", rows)
        return path

    return Case(f"lerobot: {name}", make, words=words)


def frames() -> dict[str, Any]:
    """Columns of the second episode."""
    return others.lerobot_frames(1, 40, 40)


def lerobot_bytes(name: str, at: str, edit: Callable[[bytes], bytes], words: str = "") -> Case:
    """A dataset one file of which has other bytes."""

    def make(folder: Path) -> Path:
        path = others.write_lerobot(folder / "log", lengths=LONG)
        (path / at).write_bytes(edit((path / at).read_bytes()))
        return path

    return Case(f"lerobot: {name}", make, words=words)


def feature(**changes: Any) -> dict[str, Any]:
    """Features with another description of the state."""
    state = others.lerobot_features()["observation.state"]
    return others.lerobot_features(**{"observation.state": state | changes})


def lerobot_cases() -> tuple[Case, ...]:
    """The table of LeRobot's."""
    info, data = "meta/info.json", "data/chunk-000/episode_000001.parquet"
    number = np.arange(40)
    holes: list[Any] = [[0.0, 1.0]] * 40
    return (
        lerobot_bytes("an empty description", info, lambda _: b"", "json"),
        lerobot_bytes("a description of brackets", info, lambda _: b"[" * 90_000, "json"),
        lerobot_bytes("a description that is a list", info, lambda _: b"[1]", "json object"),
        lerobot_bytes("an empty file", data, lambda _: b"", "neither parquet nor arrow"),
        lerobot_bytes("a pointer of Git LFS", data, lambda _: b"version https://git-lfs", "git lfs"),
        lerobot_bytes("half a file", data, lambda c: c[: len(c) // 2], "truncated or damaged"),
        lerobot_bytes("a file without its end", data, lambda c: c[:-9], "truncated or damaged"),
        lerobot_bytes("noise in its footer", data, lambda c: c[:-300] + bytes(292) + c[-8:]),
        lerobot("no version", "codebase_version", codebase_version=None),
        lerobot("a version that is a number", "codebase_version", codebase_version=3),
        lerobot("version 1", "convert", codebase_version="v1.6"),
        lerobot("no rate", "fps", fps=None),
        lerobot("a rate of 0", "fps", fps=0),
        lerobot("a rate in words", "fps", fps="30"),
        lerobot("a rate of 1e300", "fps", fps=1e300),
        lerobot("no features", "no vector", features={}),
        lerobot("features that are a list", "features", features=[1]),
        lerobot("a feature that is a number", "observation.state", features={"observation.state": 5}),
        lerobot("a shape in words", "no vector", features=feature(shape="2")),
        lerobot("a shape of text", "no vector", features=feature(shape=["2"])),
        lerobot("a shape of 10^12", "no vector", features=feature(shape=[10**12])),
        lerobot("a shape of -2", "no vector", features=feature(shape=[-2])),
        lerobot("another shape", "describes 5 numbers", features=feature(shape=[5])),
        lerobot("an image as the state", "images", features=feature(dtype="image")),
        lerobot("names of 5,000 characters", "5,000 characters", features=feature(names=["n" * 5000, "b"])),
        lerobot("99 episodes", "99 are stated", total_episodes=99),
        lerobot("frames in words", "total_frames", total_frames="many"),
        lerobot("splits of words", "", splits=[1]),
        lerobot("no state", "missing", columns={"observation.state": None}),
        lerobot("no number of the episode", "missing", columns={"episode_index": None}),
        lerobot("fractional frames", "one number per frame", columns={"frame_index": number + 0.5}),
        lerobot("frames that jump", "follows frame", columns={"frame_index": 2 * number}),
        lerobot("frames there twice", "follows frame", columns={"episode_index": np.zeros(40, dtype=int)}),
        lerobot("a state of text", "numbers are needed", columns={"observation.state": ["x"] * 40}),
        lerobot("ragged states", "numbers in a row", columns={"observation.state": [*holes[:-1], [1.0]]}),
        lerobot("an empty state", "null", columns={"observation.state": [*holes[:-1], None]}),
        lerobot("a number that is empty", "null", columns={"observation.state": [*holes[:-1], [1.0, None]]}),
        lerobot("a state NaN", "not finite", columns={"observation.state": np.full((40, 2), np.nan)}),
        lerobot("time that stands still", "time goes", columns={"timestamp": np.full(40, 7.0)}),
        lerobot("time that is NaN", "time goes", columns={"timestamp": np.full(40, np.nan)}),
    )


# --- Minari's Arrow and Parquet ---


def minari_arrow(
    name: str,
    words: str = "",
    /,
    kind: str = "arrow",
    edit: Callable[[Path], object] | None = None,
    **info: Any,
) -> Case:
    """A dataset with other metadata, and more done to its folder."""

    def make(folder: Path) -> Path:
        path = others.write_minari_arrow(folder / "log", kind, lengths=LONG)
        file = path / "data" / "metadata.json"
        changed = json.loads(file.read_text()) | info
        file.write_text(json.dumps({key: value for key, value in changed.items() if value is not None}))
        if edit is not None:
            edit(path / "data")
        return path

    return Case(f"minari_arrow: {name}", make, words=words)


def in_file(edit: Callable[[bytes], bytes], kind: str = "arrow") -> Callable[[Path], object]:
    """Changes the bytes of the second episode."""

    def change(root: Path) -> None:
        file = root / "1" / f"part-0.{kind}"
        file.write_bytes(edit(file.read_bytes()))

    return change


def minari_arrow_cases() -> tuple[Case, ...]:
    """The table of Minari's."""
    discrete = json.dumps({"type": "Discrete", "n": 3})
    return (
        minari_arrow("no metadata", "no format", edit=lambda root: (root / "metadata.json").unlink()),
        minari_arrow(
            "metadata of brackets", "json", edit=lambda root: (root / "metadata.json").write_text("[" * 9000)
        ),
        minari_arrow(
            "a missing episode", "metadata counts 3", edit=lambda root: (root / "1").rename(root / "x")
        ),
        minari_arrow("choices", "none of the 3 choices", action_space=discrete),
        minari_arrow(
            "bounds of another size",
            "bounds",
            action_space=json.dumps({"type": "Box", "shape": [3], "low": [-1] * 3, "high": [1] * 3}),
        ),
        *(
            minari_arrow(f"{name}, {kind}", words, kind, in_file(edit, kind))
            for kind in ("arrow", "parquet")
            for name, edit, words in (
                ("half a file", lambda c: c[: len(c) // 2], "truncated or damaged"),
                ("nothing", lambda _: b"", "neither parquet nor arrow"),
                ("noise in the middle", lambda c: c[:600] + bytes(range(256)) + c[856:], ""),
                ("noise at the end", lambda c: c[:-200] + bytes(190) + c[-10:], ""),
            )
        ),
    )


# --- what is recognised and not read ---


def foreign(name: str, file: str, content: bytes, words: str) -> Case:
    """A file of a few bytes."""

    def make(folder: Path) -> Path:
        path = folder / file
        path.write_bytes(content)
        return path

    return Case(f"foreign: {name}", make, words=words)


def foreign_cases() -> tuple[Case, ...]:
    """The table of what belongs to other tools."""
    return (
        foreign("a pickle", "log.pkl", b"\x80\x05}.", "a pickle"),
        foreign("a pickle of the first protocol", "log.pickle", b"(dp0\n.", "a pickle"),
        foreign("a video", "cam.mp4", b"\0\0\0 ftypisom", "a video"),
        foreign("a MATLAB file", "log.mat", b"MATLAB 5.0 MAT-file", "a matlab file"),
        foreign("a bag of ROS 1", "log.bag", b"#ROSBAG V2.0\n", "a ros bag"),
        foreign("MCAP", "log.mcap", b"\x89MCAP0\r\n", "a ros bag"),
        foreign("a bag of ROS 2", "log.db3", b"SQLite format 3\0", "a ros bag"),
        foreign("a table", "log.parquet", b"PAR1" + bytes(40), "a table"),
        foreign("a TensorFlow record", "log.tfrecord-00000-of-00001", bytes(40), "rlds"),
        foreign("a checkpoint", "log.pt", b"PK\x05\x06" + bytes(18), "torch.save"),
    )


def cases() -> tuple[Case, ...]:
    """The table."""
    return (
        *flat_cases(),
        *archive_cases(),
        *hdf5_cases(),
        *lerobot_cases(),
        *minari_arrow_cases(),
        *foreign_cases(),
    )


def sound() -> tuple[Case, ...]:
    """What the inputs were made from."""
    return (
        flat("sound"),
        archive("ogbench", "sound"),
        archive("neorl", "sound", done=None),
        hdf5("robomimic", "sound"),
        hdf5("d3rlpy", "sound"),
        lerobot("sound"),
        minari_arrow("sound"),
        minari_arrow("sound Parquet", "", "parquet"),
    )
