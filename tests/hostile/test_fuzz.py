"""Fuzzing of headers and metadata: a file is read, or refused by an error that names it."""

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mbrl.core.errors import ConfigError, DataError
from mbrl.data.info import DatasetInfo
from mbrl.data.inspection.report import inspect_log
from mbrl.data.open import open_dataset, parse_log
from mbrl.envs.specs import load_task
from mbrl.run.config import resolve
from mbrl.run.policies import open_policy
from mbrl.run.store import RunFolder
from tests.hostile import hdf5, npz, others, policies
from tests.hostile.case import limits

pytestmark = pytest.mark.slow

SOUND = {"npz": npz.case("sound"), "d4rl": hdf5.flat("sound"), "minari": hdf5.minari("sound")}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
BOX = st.fixed_dictionaries(
    {"type": st.sampled_from(["Box", "Dict", "Discrete", "Tuple", ""])},
    optional={"shape": JSON, "low": JSON, "high": JSON, "subspaces": JSON, "dtype": JSON},
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "total_episodes": JSON,
        "total_steps": JSON,
        "action_space": JSON | BOX | BOX.map(json.dumps),
        "observation_space": JSON | BOX.map(json.dumps),
        "env_spec": JSON | JSON.map(json.dumps),
        **dict.fromkeys(("dataset_id", "task", "time_step", "obs_names", "act_names", "ref_min_score"), JSON),
    },
)
ARRAYS = hnp.arrays(
    st.one_of(hnp.scalar_dtypes(), hnp.unicode_string_dtypes(max_len=4), hnp.byte_string_dtypes(max_len=4)),
    st.sampled_from([(), (0,), (4,), (120,), (124,), (120, 1), (124, 2), (4, 1), (2, 2, 2)]),
)


@functools.cache
def sound_bytes(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = SOUND[name].make(Path(folder))
        return (path if path.is_file() else path / "data" / "main_data.hdf5").read_bytes()


def check_refusal(act: Callable[[], object], place: str) -> None:
    """Does something; where that is refused, the message must name the place and a remedy, in few words."""
    refusal = None
    try:
        act()
    except (DataError, ConfigError) as error:
        refusal = error
    if refusal is not None:
        assert place in str(refusal)
        assert "Remedy: " in str(refusal)
        assert len(str(refusal)) < 3000


def open_or_refuse(path: Path) -> None:
    """Opens and inspects; a refusal must name the file and a remedy."""
    with limits():
        check_refusal(functools.partial(open_dataset, path), str(path))
        check_refusal(lambda: inspect_log(parse_log(path)).to_json(), str(path))


@pytest.mark.parametrize("name", sorted(SOUND))
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_bytes(name: str, data: st.DataObject):
    content = bytearray(sound_bytes(name))
    places = st.integers(0, len(content) - 1) | st.integers(0, min(len(content), 4000) - 1)
    for place in data.draw(st.lists(places, max_size=12)):
        content[place] = data.draw(st.integers(0, 255))
    keep = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("log.npz" if name == "npz" else "main_data.hdf5")
        path.write_bytes(content[:keep])
        open_or_refuse(path)


@settings(max_examples=100)
@given(METADATA)
def test_metadata_of_any_kind(metadata: dict[str, Any]):
    with tempfile.TemporaryDirectory() as folder:
        path = hdf5.minari("fuzz", "", None, None, **metadata).make(Path(folder))
        open_or_refuse(path)


@settings(max_examples=100)
@given(st.sampled_from([*npz.sound(), "timestamps", "behaviour_log_prob", "infos/x", "info"]), ARRAYS)
def test_arrays_of_any_kind(key: str, values: np.ndarray):
    with tempfile.TemporaryDirectory() as folder:
        open_or_refuse(npz.write(Path(folder) / "log.npz", npz.sound() | {key: values}))


@settings(max_examples=60)
@given(st.sampled_from(list(hdf5.flat_rows())), ARRAYS.filter(lambda a: a.dtype.kind not in "UmMc?O"))
def test_flat_arrays_of_any_kind(key: str, values: np.ndarray):
    with tempfile.TemporaryDirectory() as folder:
        open_or_refuse(hdf5.flat("fuzz", "", None, **{key: values}).make(Path(folder)))


@settings(max_examples=100)
@given(JSON, st.data())
def test_policy_headers_of_any_kind(value: Any, data: st.DataObject):
    header, body = policies.sound()
    entries = json.loads(header)
    own = json.loads(entries["__metadata__"]["mbrl"])
    at = data.draw(st.sampled_from([(), ("actor",), ("actor", "space"), ("facts",)]))
    place: Any = own
    for key in at:
        place = place[key]
    place[data.draw(st.sampled_from(sorted(place)))] = value
    entries["__metadata__"]["mbrl"] = json.dumps(own)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        path.write_bytes(policies.packed(json.dumps(entries), body))
        with limits():
            check_refusal(lambda: open_policy(path), str(path))


@settings(max_examples=100)
@given(st.data())
def test_policies_of_damaged_bytes(data: st.DataObject):
    content = bytearray(policies.packed(*policies.sound()))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=12)):
        content[place] = data.draw(st.integers(0, 255))
    keep = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.safetensors"
        path.write_bytes(content[:keep])
        with limits():
            check_refusal(lambda: open_policy(path), str(path))


@settings(max_examples=100)
@given(JSON)
def test_manifests_of_any_kind(value: Any):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.json"
        path.write_text(json.dumps(value))
        check_refusal(RunFolder(Path(folder)).manifest, str(path))


@settings(max_examples=100)
@given(JSON.map(json.dumps) | st.text(max_size=60))
def test_configs_of_any_kind(text: str):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        with pytest.raises(ConfigError) as caught:
            resolve(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 3000


@settings(max_examples=100)
@given(JSON | st.text(max_size=40))
def test_descriptions_of_any_kind(value: Any):
    text = value if isinstance(value, str) else json.dumps(value)
    check_refusal(lambda: DatasetInfo.from_json(text, file="log.npz"), "log.npz")


@settings(max_examples=100)
@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_task_files_of_any_kind(text: str):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        with pytest.raises(ConfigError) as caught:
            load_task(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 3000


INFO = st.fixed_dictionaries(
    {"codebase_version": st.just("v2.1"), "fps": JSON | st.just(50)},
    optional={
        "features": st.dictionaries(
            st.sampled_from(["observation.state", "action", "observation.images.a", "x"]),
            JSON | st.fixed_dictionaries({"dtype": JSON | st.just("float32"), "shape": JSON, "names": JSON}),
            max_size=4,
        ),
        **dict.fromkeys(("total_episodes", "total_frames", "splits", "robot_type"), JSON),
    },
)
COLUMNS = hnp.arrays(
    st.one_of(
        hnp.integer_dtypes(endianness="="),
        hnp.floating_dtypes(endianness="=", sizes=(32, 64)),
        hnp.boolean_dtypes(),
    ),
    st.sampled_from([(40,), (40, 1), (40, 2), (7,), (0,)]),
)


@settings(max_examples=60)
@given(INFO)
def test_lerobot_descriptions_of_any_kind(info: dict[str, Any]):
    with tempfile.TemporaryDirectory() as folder:
        open_or_refuse(others.lerobot("fuzz", "", **info).make(Path(folder)))


@settings(max_examples=60)
@given(st.sampled_from(sorted(others.frames())), COLUMNS)
def test_lerobot_columns_of_any_kind(name: str, values: np.ndarray):
    with tempfile.TemporaryDirectory() as folder:
        path = others.lerobot("fuzz").make(Path(folder))
        frames = others.frames() | {name: values}
        count = min(len(column) for column in frames.values())
        file = path / "data/chunk-000/episode_000001.parquet"
        others.write_parquet(file, {key: column[:count] for key, column in frames.items()})
        open_or_refuse(path)


@settings(max_examples=60)
@given(st.sampled_from(sorted(others.FLAT)), ARRAYS)
def test_flat_archives_of_any_kind(key: str, values: np.ndarray):
    with tempfile.TemporaryDirectory() as folder:
        open_or_refuse(others.flat("fuzz", "", **{key: values}).make(Path(folder)))


@settings(max_examples=60)
@given(st.sampled_from(["ogbench", "neorl"]), st.data())
def test_archives_of_any_kind(kind: str, data: st.DataObject):
    key = data.draw(st.sampled_from(others.KEYS[kind]))
    with tempfile.TemporaryDirectory() as folder:
        open_or_refuse(others.archive(kind, "fuzz", "", **{key: data.draw(ARRAYS)}).make(Path(folder)))


@settings(max_examples=60)
@given(
    st.sampled_from(
        [
            ("robomimic", "data/demo_1/actions"),
            ("robomimic", "data/demo_1/dones"),
            ("robomimic", "mask/train"),
            ("robomimic", "data/demo_1/obs/joint_pos"),
            ("robomimic", "data/demo_1/next_obs/joint_pos"),
            ("d3rlpy", "observations_1"),
            ("d3rlpy", "actions_1"),
            ("d3rlpy", "terminated_1"),
            ("d3rlpy", "num_episodes"),
            ("d3rlpy 1", "episode_terminals"),
            ("d3rlpy 1", "discrete_action"),
        ]
    ),
    ARRAYS.filter(lambda a: a.dtype.kind not in "UmMc?O"),
)
def test_hdf5_of_others_of_any_kind(place: tuple[str, str], values: np.ndarray):
    kind, key = place
    with tempfile.TemporaryDirectory() as folder:
        open_or_refuse(others.hdf5(kind, "fuzz", "", others.put(key, values)).make(Path(folder)))


@settings(max_examples=60)
@given(st.data())
def test_damaged_columns(data: st.DataObject):
    """Bytes of Parquet and Arrow files, which a library in C++ reads."""
    kind = data.draw(st.sampled_from(["lerobot", "arrow", "parquet"]))
    with tempfile.TemporaryDirectory() as folder:
        case = others.lerobot("fuzz") if kind == "lerobot" else others.minari_arrow("fuzz", "", kind)
        path = case.make(Path(folder))
        file = sorted(path.rglob("*.parquet" if kind == "lerobot" else f"*.{kind}"))[1]
        content = bytearray(file.read_bytes())
        places = st.integers(0, len(content) - 1) | st.integers(max(0, len(content) - 900), len(content) - 1)
        for place in data.draw(st.lists(places, max_size=8)):
            content[place] = data.draw(st.integers(0, 255))
        keep = data.draw(st.integers(0, len(content)) | st.just(len(content)))
        file.write_bytes(content[:keep])
        open_or_refuse(path)


@settings(max_examples=60)
@given(st.sampled_from(["bag", "db3", "mcap"]), st.data())
def test_damaged_bags(kind: str, data: st.DataObject):
    pytest.importorskip("rosbags")
    from mbrl.data.tables.rosbag import list_topics, read_bag
    from tests.data.tables.bags import record

    with tempfile.TemporaryDirectory() as folder:
        path = record(Path(folder), kind)
        files = [path] if path.is_file() else sorted(path.iterdir())
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
            content[place] = data.draw(st.integers(0, 255))
        keep = data.draw(st.integers(0, len(content)) | st.just(len(content)))
        file.write_bytes(content[:keep])
        with limits():
            check_refusal(functools.partial(list_topics, path), str(path))
            check_refusal(functools.partial(read_bag, path), str(path))
