"""A training that starts from another one's end: the same state, the same unit, the same bits again."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.data.open import open_dataset
from mbrl.data.relabel import relabel_dataset
from mbrl.run import train as train_module
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.loop import train
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from tests.run.toy import write_dataset

SMALL = ("algorithm.learner.hidden=[8]", "algorithm.learner.batch_size=16", "diagnostics=false",
         "log_interval=5", "checkpoint_interval=5")  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def first(log: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    store = RunStore(tmp_path_factory.mktemp("runs"))
    return train_policy_stage(config(log, 20), Workspace(store))


def config(log: Path, updates: int, *overrides: str, **arguments: Any) -> ResolvedConfig:
    values = {"dataset": str(log), "algorithm": "td3_bc", **arguments}
    return resolve(arguments=values, overrides=[f"algorithm.updates={updates}", *SMALL, *overrides])


def last_state(run: RunFolder) -> Any:
    found = CheckpointFolder(run.path / "checkpoints", str(run.manifest()["hash"])).load_latest(print)
    assert found is not None
    return found[1]["learner"]


def test_networks_and_optimisers_are_those_of_the_other_end(
    log: Path, first: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[Any] = []

    def watched(*args: Any, on_start: Any, **how: Any) -> Any:
        def look(state: Any) -> None:
            on_start(state)
            states.append(state.state_dict())

        return train(*args, on_start=look, **how)

    monkeypatch.setattr(train_module, "train", watched)
    run = train_policy_stage(config(log, 5, continue_from=str(first.path)), Workspace(RunStore(tmp_path)))
    before, seen = last_state(first), states[0]
    assert torch.equal(seen["actor"]["net.flat"], before["actor"]["net.flat"])
    assert seen["actor_optimiser"]["step"] == before["actor_optimiser"]["step"] > 0
    assert torch.equal(
        seen["critic_optimiser"]["adam"]["state"][0]["exp_avg"],
        before["critic_optimiser"]["adam"]["state"][0]["exp_avg"],
    )
    assert not torch.equal(last_state(run)["actor"]["net.flat"], before["actor"]["net.flat"])


def test_the_unit_of_rewards_stays_that_of_the_values(log: Path, first: RunFolder, tmp_path: Path) -> None:
    larger = relabel_dataset(open_dataset(log), reward="10 * (obs_0 - obs_1)")
    afresh = train_policy_stage(config(log, 5), Workspace(RunStore(tmp_path)), dataset=larger)
    warm = train_policy_stage(
        config(log, 5, continue_from=str(first.path)), Workspace(RunStore(tmp_path)), dataset=larger
    )
    assert warm.summary()["reward_unit"] == first.summary()["reward_unit"]
    assert afresh.summary()["reward_unit"] != first.summary()["reward_unit"]


def test_it_is_another_run_which_continues_to_the_same_bits(
    log: Path, first: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(log, 15, continue_from=str(first.path))
    whole = train_policy_stage(asked, Workspace(RunStore(tmp_path / "a")))
    assert (
        whole.path.name != train_policy_stage(config(log, 15), Workspace(RunStore(tmp_path / "a"))).path.name
    )
    store = Workspace(RunStore(tmp_path / "b"))

    def killed(*args: Any, on_checkpoint: Any, **how: Any) -> Any:
        def stop(step: int, state: Any, seconds: float) -> None:
            on_checkpoint(step, state, seconds)
            raise KeyboardInterrupt

        return train(*args, on_checkpoint=stop, **how)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            train_policy_stage(asked, store)
    again = train_policy_stage(asked, store)
    name = "policy.safetensors"
    assert (again.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_what_cannot_go_on_is_refused(log: Path, first: RunFolder, tmp_path: Path) -> None:
    workspace, start = Workspace(RunStore(tmp_path)), str(first.path)
    with pytest.raises(ConfigError, match="not both"):
        train_policy_stage(config(log, 5, warm_start=start, continue_from=start), workspace)
    with pytest.raises(ConfigError, match="it trained 'td3_bc', and this is 'bc'"):
        train_policy_stage(config(log, 5, algorithm="bc", continue_from=start), workspace)
    with pytest.raises(ConfigError, match="do not fit this training"):
        train_policy_stage(config(log, 5, "algorithm.learner.hidden=[9]", continue_from=start), workspace)
    iql = train_policy_stage(config(log, 5, algorithm="iql"), workspace)
    with pytest.raises(ConfigError, match="actor_schedule=constant"):
        train_policy_stage(config(log, 6, algorithm="iql", continue_from=str(iql.path)), workspace)
    constant = "algorithm.learner.actor_schedule=constant"
    train_policy_stage(config(log, 6, constant, algorithm="iql", continue_from=str(iql.path)), workspace)
