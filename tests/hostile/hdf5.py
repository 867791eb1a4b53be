"""HDF5 files that lie or are damaged: D4RL's layout and Minari's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from tests.hostile import npz
from tests.hostile.case import Case

Fill = Callable[[h5py.File], object]
SPACE: Final = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-1.0], "high": [1.0]}


def flat_rows(episodes: int = 4, steps: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of a point that drifts by its action, without successors; every episode is cut."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (episodes, steps, 1))
    path = np.cumsum(0.1 * actions, axis=1)
    observations = np.concatenate(
        [path - 0.1 * actions, rng.normal(size=(episodes, 1, 1)) + 0 * path], axis=2
    )
    ends = np.tile(np.arange(steps) == steps - 1, episodes)
    return {
        "observations": observations.reshape(-1, 2),
        "actions": actions.reshape(-1, 1),
        "rewards": path.reshape(-1),
        "terminals": np.zeros(episodes * steps, dtype=bool),
        "timeouts": ends,
    }


def flat(name: str, words: str = "", /, fill: Fill | None = None, **changes: Any) -> Case:
    """A D4RL file with some keys replaced, None removing one, and more done to it by `fill`."""

    def make(folder: Path) -> Path:
        path = folder / "log.hdf5"
        with h5py.File(path, "w") as file:
            for key, values in (flat_rows() | changes).items():
                if values is not None:
                    file[key] = values
            if fill is not None:
                fill(file)
        return path

    return Case(f"d4rl: {name}", make, words=words)


def replaced(name: str, key: str, put: Callable[[h5py.File, Path], object], words: str = "") -> Case:
    """A D4RL file one array of which is something else."""

    def make(folder: Path) -> Path:
        other = folder / "other.hdf5"
        with h5py.File(other, "w") as file:
            file[key] = flat_rows()[key]
        path = folder / "log.hdf5"
        with h5py.File(path, "w") as file:
            for entry, values in flat_rows().items():
                if entry != key:
                    file[entry] = values
            put(file, other)
        return path

    return Case(f"d4rl: {name}", make, words=words)


def bytes_of(name: str, edit: Callable[[bytes], bytes], words: str = "") -> Case:
    """A D4RL file with its bytes changed."""

    def make(folder: Path) -> Path:
        path = folder / "log.hdf5"
        with h5py.File(path, "w") as file:
            for key, values in flat_rows().items():
                file[key] = values
        path.write_bytes(edit(path.read_bytes()))
        return path

    return Case(f"d4rl: {name}", make, words=words)


def interleaved(machines: int = 4) -> dict[str, np.ndarray]:
    """Rows of several machines in turn, each cut at the same time."""
    rows = [flat_rows(episodes=1, steps=60, seed=seed) for seed in range(machines)]
    return {
        key: np.stack([row[key] for row in rows], 1).reshape(-1, *rows[0][key].shape[1:]) for key in rows[0]
    }


def long_interleaved(machines: int = 4) -> dict[str, np.ndarray]:
    """The same without flags but at the very end: nothing but the rows themselves tells."""
    rows = [flat_rows(episodes=1, steps=300, seed=seed) for seed in range(machines)]
    whole = {
        key: np.stack([row[key] for row in rows], 1).reshape(-1, *rows[0][key].shape[1:]) for key in rows[0]
    }
    whole["timeouts"] = np.arange(machines * 300) == machines * 300 - 1
    return whole


def permuted() -> dict[str, np.ndarray]:
    """All rows in any order."""
    rows = flat_rows(episodes=10, steps=60)
    order = np.random.default_rng(0).permutation(600)
    return {key: values[order] for key, values in rows.items()}


def cycle(file: h5py.File) -> None:
    group = file.create_group("infos")
    group["again"] = group


def deep(file: h5py.File) -> None:
    group = file.create_group("infos")
    for _ in range(40):
        group = group.create_group("below")


def external(file: h5py.File, other: Path) -> None:
    (other.parent / "outside.bin").write_bytes(bytes(8 * 120))
    storage = [(str(other.parent / "outside.bin"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("rewards", shape=(120,), dtype="f8", external=storage)


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout(shape=(120,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(other), "rewards", shape=(120,))
    file.create_virtual_dataset("rewards", layout)


def claimed(shape: tuple[int, ...]) -> Callable[[h5py.File, Path], object]:
    chunks = tuple(min(size, 100) for size in shape)
    return lambda file, _: file.create_dataset("observations", shape=shape, dtype="f8", chunks=chunks)


def with_row(key: str, value: Any) -> np.ndarray:
    values = flat_rows()[key].astype(np.float64)
    values[17] = value
    return values


def d4rl_cases() -> tuple[Case, ...]:
    """The table of D4RL files."""
    rows = flat_rows()
    shuffled = rows["observations"][::-1]
    return (
        bytes_of("a signature alone", lambda content: content[:8], "truncated or damaged"),
        bytes_of("a half", lambda content: content[: len(content) // 2], "truncated or damaged"),
        bytes_of("nothing after the signature", lambda c: c[:8] + bytes(len(c) - 8), "truncated or damaged"),
        bytes_of("noise in the header", lambda c: c[:40] + bytes(range(200)) + c[240:], "truncated"),
        *(flat(f"without {key}", "missing", **{key: None}) for key in ("actions", "rewards", "terminals")),
        flat("without ends", "max_episode_steps", timeouts=None),
        flat("terminals NaN", "row 17", terminals=with_row("terminals", np.nan)),
        flat("terminals 0.3", "row 17", terminals=with_row("terminals", 0.3)),
        flat("terminals -1", "row 17", terminals=with_row("terminals", -1)),
        flat("timeouts 2", "row 17", timeouts=with_row("timeouts", 2)),
        flat("terminals of text", "neither 0 nor 1", terminals=np.array([b"False"] * 120)),
        flat("two terminals a row", "terminals", terminals=np.zeros((120, 2))),
        flat("both flags at the time limit", "overlap=truncated fits", terminals=rows["timeouts"]),
        flat("no rows", "no rows", **{key: values[:0] for key, values in rows.items()}),
        flat("rewards that are one number", "no rows", rewards=np.array(1.0)),
        flat("rewards of another length", "rows", rewards=np.zeros(7)),
        flat("observations of text", "numeric", observations=np.array([[b"x", b"y"]] * 120)),
        flat("images", "images", observations=np.zeros((120, 2, 16, 16))),
        flat("an offset of 1e9", "subtract a constant", observations=rows["observations"] + 1e9),
        flat("successors of another shape", "next_observations", next_observations=np.zeros((120, 5))),
        flat("successors of text", "next_observations", next_observations=np.array([[b"x", b"y"]] * 120)),
        flat("successors that are elsewhere", "lead elsewhere", next_observations=shuffled),
        flat("four machines in turn, cut together", "machines in turn", **interleaved()),
        flat("four machines in turn", "4 machines in turn", **long_interleaved()),
        flat("shuffled rows", "shuffled", **permuted()),
        flat(
            "half of the log-densities",
            "rows",
            lambda f: f.create_dataset("infos/action_log_probs", data=np.zeros(60)),
        ),
        flat(
            "log-densities of 1e6",
            "density",
            lambda f: f.create_dataset("infos/action_log_probs", data=np.full(120, 1e6)),
        ),
        flat("bounds of text", "not numbers", lambda f: f.attrs.update(act_low="a", act_high="b")),
        flat("bounds that are swapped", "empty", lambda f: f.attrs.update(act_low=[1.0], act_high=[-1.0])),
        flat("a description that is a number", "info", lambda f: f.attrs.update(info=7)),
        flat("a description of brackets", "info", lambda f: f.attrs.update(info="[" * 9000)),
        flat(
            "a description with a task 5", "task", lambda f: f.attrs.update(info='{"name": "x", "task": 5}')
        ),
        flat("a group that contains itself", "itself", cycle),
        flat("groups 40 deep", "deep", deep),
        replaced(
            "a link to another file",
            "rewards",
            lambda f, o: f.update(rewards=h5py.ExternalLink(str(o), "rewards")),
            "link to another file",
        ),
        replaced(
            "a link within the file",
            "rewards",
            lambda f, _: f.update(rewards=h5py.SoftLink("/actions")),
            "link",
        ),
        replaced(
            "a link to nothing", "rewards", lambda f, _: f.update(rewards=h5py.SoftLink("/nowhere")), "link"
        ),
        replaced("external storage", "rewards", external, "other files"),
        replaced("a virtual data set", "rewards", virtual, "other files"),
        replaced("218 TiB claimed", "observations", claimed((30_000_000, 1_000_000)), "times the size"),
        replaced("more than an address claimed", "observations", claimed((2**31, 2**31)), "times the size"),
        replaced("a group for an array", "rewards", lambda f, _: f.create_group("rewards"), "missing"),
        replaced(
            "an empty data space",
            "rewards",
            lambda f, _: f.create_dataset("rewards", data=h5py.Empty("f8")),
            "missing",
        ),
        replaced(
            "a compound type",
            "rewards",
            lambda f, _: f.create_dataset("rewards", data=np.zeros(120, [("a", "f8")])),
            "numeric",
        ),
        replaced(
            "references",
            "rewards",
            lambda f, _: f.create_dataset("rewards", shape=(120,), dtype=h5py.ref_dtype),
        ),
        replaced(
            "ragged rows",
            "observations",
            lambda f, _: f.create_dataset("observations", shape=(120,), dtype=h5py.vlen_dtype(np.float64)),
        ),
    )


def minari(
    name: str, words: str = "", edit: Fill | None = None, raw: bytes | None = None, **metadata: Any
) -> Case:
    """A Minari folder with metadata replaced, None removing a key, and more done to it by `edit`."""

    def make(folder: Path) -> Path:
        path = folder / "toy"
        (path / "data").mkdir(parents=True)
        arrays = npz.sound()
        with h5py.File(path / "data" / "main_data.hdf5", "w") as file:
            for index in range(npz.EPISODES):
                start = index * npz.STEPS
                group = file.create_group(f"episode_{index}")
                group["observations"] = arrays["observations"][start + index : start + index + npz.STEPS + 1]
                for key in ("actions", "rewards"):
                    group[key] = arrays[key][start : start + npz.STEPS]
                group["terminations"] = np.zeros(npz.STEPS, dtype=bool)
                group["truncations"] = np.arange(npz.STEPS) == npz.STEPS - 1
            if edit is not None:
                edit(file)
        values = {
            "total_episodes": 4,
            "total_steps": 120,
            "action_space": json.dumps(SPACE),
            "dataset_id": "toy",
        }
        kept = {key: value for key, value in (values | metadata).items() if value is not None}
        content = json.dumps(kept).encode() if raw is None else raw
        (path / "data" / "metadata.json").write_bytes(content)
        return path

    return Case(f"minari: {name}", make, words=words)


def space(name: str, words: str, /, **changes: Any) -> Case:
    """A Minari folder with a changed description of its actions."""
    kept = {key: value for key, value in (SPACE | changes).items() if value is not None}
    return minari(name, words, action_space=json.dumps(kept))


def put(group: str, key: str, values: Any) -> Fill:
    """Replaces one array of an episode."""

    def edit(file: h5py.File) -> None:
        parent = file[group]
        if key in parent:
            del parent[key]
        if values is not None:
            parent[key] = values

    return edit


def parts(group: str, key: str, **shapes: tuple[int, ...]) -> Fill:
    """Replaces one array of an episode by a dictionary of them."""

    def edit(file: h5py.File) -> None:
        del file[group][key]
        target = file[group].create_group(key)
        for name, shape in shapes.items():
            target[name] = np.zeros(shape)

    return edit


def attribute(group: str, value: Any) -> Fill:
    """Says of an episode whether its last observation is known."""
    return lambda file: file[group].attrs.update(is_final_observation_known=value)


def emptied(file: h5py.File) -> None:
    for key in list(file):
        del file[key]


def nested(depth: int) -> str:
    inner: dict[str, Any] = SPACE
    for _ in range(depth):
        inner = {"type": "Dict", "subspaces": {"a": inner}}
    return json.dumps(inner)


def minari_cases() -> tuple[Case, ...]:
    """The table of Minari folders."""
    first, steps = "episode_2", npz.STEPS
    box = {"type": "Box", "dtype": "float32", "shape": [10**12], "low": -1.0, "high": 1.0}
    observed = {"type": "Dict", "subspaces": {"a": box}}
    return (
        minari("metadata that is no JSON", "json", raw=b"{"),
        minari("metadata that is a list", "json object", raw=b"[]"),
        minari("empty metadata", "json", raw=b""),
        minari("metadata of bytes", "json", raw=bytes(range(256))),
        minari("metadata of brackets", "json", raw=b"[" * 200_000),
        minari("metadata nested 100,000 deep", "json", raw=b'{"a":' * 100_000),
        minari("a number of 5,000 digits", "json", raw=b'{"total_episodes": ' + b"9" * 5000 + b"}"),
        minari("episodes that are not there", "4 episodes", total_episodes=7),
        minari("episodes of text", "total_episodes", total_episodes="four"),
        minari("minus four episodes", "total_episodes", total_episodes=-4),
        minari("infinitely many episodes", "total_episodes", total_episodes=float("inf")),
        minari("steps that are not there", "120 steps", total_steps=999),
        minari("steps NaN", "total_steps", total_steps=float("nan")),
        minari("steps that are a list", "total_steps", total_steps=[120]),
        minari("a space that is no JSON", "action_space", action_space="{"),
        minari("a space that is a number", "action_space", action_space=5),
        minari("a space that is a list", "action_space", action_space="[1]"),
        minari("a space without a type", "action_space", action_space="{}"),
        minari("choices", "none of the 3 choices", action_space='{"type": "Discrete", "n": 3}'),
        minari(
            "many choices", "none of the 2 choices", action_space='{"type": "MultiDiscrete", "nvec": [2]}'
        ),
        minari("a tuple of spaces", "tuple", action_space='{"type": "Tuple", "subspaces": []}'),
        minari("a dictionary without parts", "dict", action_space='{"type": "Dict"}'),
        minari("a dictionary of numbers", "dict", action_space='{"type": "Dict", "subspaces": {"a": 1}}'),
        minari("dictionaries 100 deep", "deep", action_space=nested(100)),
        minari("brackets for a space", "action_space", action_space='{"a":' * 100_000),
        space("a box of 10**12", "shape", shape=[10**12]),
        space("a box of many axes", "shape", shape=[2] * 1000),
        space("a box of text", "shape", shape="wide"),
        space("a box of minus one", "shape", shape=[-1]),
        space("a box of true", "shape", shape=[True]),
        space("a box without a shape", "shape", shape=None),
        space("bounds of text", "not numbers", low=["a"]),
        space("bounds that are objects", "not numbers", low=[{"a": 1}]),
        space("bounds that are ragged", "numbers", low=[[1], [2, 3]]),
        space("bounds that are swapped", "empty", low=[1.0], high=[-1.0]),
        space("a bound NaN", "nan", low=[float("nan")]),
        space("three bounds", "3 bounds", low=[-1.0, -1.0, -1.0]),
        space("bounds for other actions", "action bounds", shape=[2], low=-1.0, high=1.0),
        minari("observations of 10**12", "observation_space", observation_space=json.dumps(observed)),
        minari("an environment that is a number", "env_spec", env_spec=5),
        minari("an environment that is no JSON", "env_spec", env_spec="{"),
        minari("an id that is a number", "id", env_spec='{"id": 5}'),
        minari("a limit of text", "max_episode_steps", env_spec='{"max_episode_steps": "x"}'),
        minari("a task that is a number", "task", task=5),
        minari("an id that is a list", "dataset_id", dataset_id=["toy"]),
        minari("an id of 5,000 characters", "5,000 characters", dataset_id="n" * 5000),
        minari("an id of two lines", "cannot be printed", dataset_id="a\nb"),
        minari("names that are text", "obs_names", obs_names="xy"),
        minari("names that are numbers", "obs_names", obs_names=[1, 2]),
        minari("too many names", "3 names", obs_names=["a", "b", "c"]),
        minari("names of 5,000 characters", "5,000 characters", obs_names=["a" * 5000, "b"]),
        minari("reference scores upside down", "ref_min_score", ref_min_score=10.0, ref_max_score=-10.0),
        minari("a reference score of text", "ref_min_score", ref_min_score="low"),
        minari("a reference score NaN", "ref_min_score", ref_min_score=float("nan")),
        minari("a negative time step", "time_step", time_step=-1),
        minari("a time step of text", "time_step", time_step="fast"),
        minari("a time step of true", "time_step", time_step=True),
        minari(
            "an episode that is an array",
            "not a group",
            lambda f: f.create_dataset("episode_4", data=[1.0]),
            total_episodes=5,
        ),
        minari("no episodes", "no episodes", emptied, total_episodes=0, total_steps=0),
        minari("an episode without rewards", "missing", put(first, "rewards", None)),
        minari("rewards of another length", "rows", put(first, "rewards", np.zeros(7)), total_steps=97),
        minari("actions of another width", "dimensions", put(first, "actions", np.zeros((steps, 4)))),
        minari("flags of text", "neither 0 nor 1", put(first, "terminations", np.array([b"False"] * steps))),
        minari("flags NaN", "neither 0 nor 1", put(first, "terminations", np.full(steps, np.nan))),
        minari("an early flag", "goes on", put(first, "terminations", np.arange(steps) == 3)),
        minari(
            "an observation NaN", "episode_2", put(first, "observations", np.full((steps + 1, 2), np.nan))
        ),
        minari("images", "images", put(first, "observations", np.zeros((steps + 1, 64, 64, 3), np.uint8))),
        minari(
            "images in a dictionary", "images", parts(first, "observations", camera=(steps + 1, 16, 16, 3))
        ),
        minari("a dictionary that does not line up", "line up", parts(first, "actions", a=(3, 1), b=(4, 1))),
        minari("an empty dictionary", "line up", parts(first, "actions")),
        minari(
            "log-densities of another length",
            "rows",
            put(first, "infos/behaviour_log_prob", np.zeros(2 * steps)),
        ),
        minari(
            "log-densities of 1e6", "density", put(first, "infos/behaviour_log_prob", np.full(steps, 1e6))
        ),
        minari(
            "time that runs backwards",
            "time goes",
            put(first, "infos/timestamps", np.arange(steps, -1.0, -1.0)),
        ),
        minari("an end known as text", "is_final_observation_known", attribute(first, "False")),
        minari("an end known as an array", "is_final_observation_known", attribute(first, np.zeros(7000))),
        minari("infos that contain themselves", "itself", lambda file: cycle(file[first])),
        minari(
            "an episode in another file",
            "link",
            lambda f: f.update(episode_4=h5py.ExternalLink("x", "/")),
            total_episodes=5,
        ),
    )
