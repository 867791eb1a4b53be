import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mbrl.core.errors import ConfigError, StorageError
from mbrl.run import files
from mbrl.run.files import BusyError, locked, write_text
from mbrl.run.store import RunStore, StageKey, find_run

ROOT = Path(__file__).resolve().parents[2]


def key(**changes: Any) -> StageKey:
    fields: dict[str, Any] = {
        "stage": "train_policy",
        "dataset": "hopper/medium v0",
        "label": "mopo",
        "seed": 3,
        "identity": {"a": 1, "b": {"c": [1, 2]}},
    }
    return StageKey(**{**fields, **changes})


def test_folders_read_well_and_depend_on_the_identity() -> None:
    assert str(key().folder) == f"hopper-medium-v0/train_policy-mopo-s3-{key().digest[:8]}"
    assert key().digest == key(dataset="x", label="y", identity={"b": {"c": [1, 2]}, "a": 1}).digest
    others = [key(seed=4), key(stage="evaluate"), key(identity={"a": 1, "b": {"c": [2, 1]}})]
    assert len({key().digest, *(other.digest for other in others)}) == 4


def test_config_and_manifest_come_first_and_resumes_are_counted(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.locked(key()) as run:
        run.begin(key(), config="a: 1\n", facts={"threads": 1})
        assert (run.path / "config.yaml").read_text() == "a: 1\n"
        manifest = run.manifest()
        assert (manifest["resumes"], manifest["wall_seconds"], manifest["threads"]) == (0, 0.0, 1)
        assert {"version", "commit", "packages", "machine"} <= manifest.keys()
        assert not run.is_done
        run.add_seconds(2.0)
        run.begin(key(), config="a: 1\n", facts={})
        run.add_seconds(1.0)
        assert run.add_seconds(3.0) == 5.0  # of the same process: replaces the figure before
        assert (run.manifest()["resumes"], run.manifest()["wall_seconds"]) == (1, 5.0)
        run.finish({"x": 1})
    assert run.is_done
    assert run.summary() == {"x": 1}
    assert [found.path for found in store.runs()] == [run.path]


def test_find_run_says_what_is_wrong(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(ConfigError, match="is not a run folder"):
        find_run(tmp_path, stage="train_policy")
    with store.locked(key()) as run:
        run.begin(key(), config="", facts={})
        with pytest.raises(ConfigError, match="not finished"):
            find_run(run.path, stage="train_policy")
        run.finish({})
    with pytest.raises(ConfigError, match="of stage train_policy; a run of stage fit_dynamics"):
        find_run(run.path, stage="fit_dynamics")
    assert find_run(run.path, stage="train_policy") == run


_HOLD = """
import os, sys
from pathlib import Path
from mbrl.run.files import locked
with locked(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    os._exit(9)  # as a kill would: nothing is cleaned up
"""


def test_a_second_process_is_kept_out_and_a_dead_one_is_not(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(lock)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        with pytest.raises(BusyError, match=rf"Process {pid} works in"), locked(lock):
            pass
        process.communicate("\n", timeout=60)
    with locked(lock):
        assert lock.read_text() == str(os.getpid())


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def crash(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", crash)
    with pytest.raises(
        StorageError, match=r"x\.txt cannot be written: disk full, 3 bytes are needed\. Remedy: "
    ):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["x.txt"]


def test_a_run_that_goes_on_elsewhere_says_where_it_began(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with store.locked(key()) as run:
        for device, began in (("cuda:0", None), ("cpu", "cuda:0"), ("cpu", "cuda:0")):
            run.begin(key(), config="a: 1\n", facts={"device": device})
            manifest = run.manifest()
            assert (manifest["device"], manifest.get("began_on")) == (device, began)
