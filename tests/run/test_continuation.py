import json
from pathlib import Path
from typing import Any

import pytest

from mbrl.core.progress import SilentProgress
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.metrics import read_metrics
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from tests.run.toy import TINY_DYNAMICS, write_dataset

INTERVALS = ("log_interval=5", "checkpoint_interval=10")
SMALL = ("algorithm.learner.hidden=[8]", "algorithm.learner.batch_size=16")


class Messages(SilentProgress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def config(dataset: Path, updates: int, *overrides: str, algorithm: str = "td3_bc") -> ResolvedConfig:
    values: dict[str, Any] = {"dataset": str(dataset), "algorithm": algorithm, "dynamics": TINY_DYNAMICS}
    changes = [f"algorithm.updates={updates}", *INTERVALS, *SMALL, *overrides]
    return resolve(arguments=values, overrides=changes)


def rows(run: RunFolder) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in read_metrics(run.path)
    ]


@pytest.mark.parametrize("before", [7, 10, 15])
def test_a_longer_training_goes_on_and_ends_where_one_told_at_once_does(
    dataset_path: Path, tmp_path: Path, before: int
) -> None:
    whole = train_policy_stage(config(dataset_path, 23), Workspace(RunStore(tmp_path / "whole")))
    store, told = RunStore(tmp_path / "parts"), Messages()
    short = train_policy_stage(config(dataset_path, before), Workspace(store))
    content = {path.name: path.read_bytes() for path in short.path.iterdir() if path.is_file()}
    longer = train_policy_stage(config(dataset_path, 23), Workspace(store, told))
    assert told.texts[1] == f"Continues from update {before} of {short.path}."
    assert longer.path.name == whole.path.name
    for name in ("policy.safetensors", "config.yaml"):
        assert (longer.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert rows(longer) == rows(whole)
    summaries = [run.summary() for run in (longer, whole)]
    for summary in summaries:
        summary.pop("seconds")
        summary["last_metrics"] = {k: v for k, v in summary["last_metrics"].items() if "time/" not in k}
    assert summaries[0] == summaries[1]
    assert longer.manifest()["continues"] == {"run": str(short.path), "updates": before}
    assert longer.manifest()["wall_seconds"] >= short.manifest()["wall_seconds"]
    assert content == {path.name: path.read_bytes() for path in short.path.iterdir() if path.is_file()}


def test_an_earlier_checkpoint_of_a_longer_training_serves_as_well(
    dataset_path: Path, tmp_path: Path
) -> None:
    store, told = RunStore(tmp_path / "parts"), Messages()
    long = train_policy_stage(config(dataset_path, 25), Workspace(store))
    shorter = train_policy_stage(config(dataset_path, 22), Workspace(store, told))
    assert told.texts[1] == f"Continues from update 20 of {long.path}."
    whole = train_policy_stage(config(dataset_path, 22), Workspace(RunStore(tmp_path / "whole")))
    assert (shorter.path / "policy.safetensors").read_bytes() == (
        whole.path / "policy.safetensors"
    ).read_bytes()
    assert rows(shorter) == rows(whole)


@pytest.mark.parametrize(
    ("algorithm", "override", "why"),
    [
        ("iql", "algorithm.learner.actor_schedule=cosine", "depend on the length"),
        ("bc", "algorithm.learner.schedule=cosine", "depend on the length"),
        ("bc", "keep_policies=true", "keep_policies"),
    ],
)
def test_where_that_is_another_training_it_says_so_and_starts_anew(
    dataset_path: Path, tmp_path: Path, algorithm: str, override: str, why: str
) -> None:
    store, told = RunStore(tmp_path), Messages()
    short = train_policy_stage(config(dataset_path, 6, override, algorithm=algorithm), Workspace(store))
    train_policy_stage(config(dataset_path, 12, override, algorithm=algorithm), Workspace(store, told))
    assert f"A training of 6 updates with the same settings is in {short.path}, but " in told.texts[1]
    assert why in told.texts[1]
    assert not any("Continues" in text for text in told.texts)


@pytest.mark.parametrize("override", ["seed=1", "algorithm.learner.discount=0.5"])
def test_other_settings_are_another_training(dataset_path: Path, tmp_path: Path, override: str) -> None:
    store, told = RunStore(tmp_path), Messages()
    train_policy_stage(config(dataset_path, 6), Workspace(store))
    train_policy_stage(config(dataset_path, 12, override), Workspace(store, told))
    assert not any("Continues" in text or "A training of" in text for text in told.texts)


@pytest.mark.parametrize("damage", ["manifest", "checkpoint", "metrics", "identity"])
def test_a_damaged_shorter_training_costs_what_it_would_have_saved(
    dataset_path: Path, tmp_path: Path, damage: str
) -> None:
    store, told = RunStore(tmp_path / "parts"), Messages()
    short = train_policy_stage(config(dataset_path, 6), Workspace(store))
    if damage == "manifest":
        (short.path / "manifest.json").write_text("{")
    elif damage == "checkpoint":
        for path in (short.path / "checkpoints").iterdir():
            path.write_bytes(path.read_bytes()[:-1])
    elif damage == "metrics":
        (short.path / "metrics.jsonl").write_text("x\n")
    else:
        manifest = {**short.manifest(), "identity": {"algorithm": 3}}
        (short.path / "manifest.json").write_text(json.dumps(manifest))
    longer = train_policy_stage(config(dataset_path, 12), Workspace(store, told))
    whole = train_policy_stage(config(dataset_path, 12), Workspace(RunStore(tmp_path / "whole")))
    assert (longer.path / "policy.safetensors").read_bytes() == (
        whole.path / "policy.safetensors"
    ).read_bytes()
    assert any("Continues" in text for text in told.texts) is (damage == "metrics")
