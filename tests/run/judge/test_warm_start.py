"""A training that begins with the policy of another, and is never below it by the rule that chooses."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.progress import SilentProgress
from mbrl.off_policy.value.judged import JudgedValue, choose_best
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.judge import judges
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import load_policy, open_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from tests.run.toy import TINY_DYNAMICS, write_dataset

JUDGES = ["judges.max_updates=40", "judges.draws=mean", "judges.starts=6", "judges.horizon=5"]
SMALL = [
    "algorithm.updates=20",
    "algorithm.learner.hidden=[8]",
    "algorithm.learner.batch_size=16",
    "log_interval=5",
    "checkpoint_interval=10",
    "diagnostics=false",
    "select.kept=4",
]
MODEL = [
    *JUDGES,
    "algorithm.recipe=model_based",
    "algorithm.rollout.starts=8",
    "algorithm.rollout.respect_trusted_horizon=false",
]


class Kill(SilentProgress):
    """Dies at the n-th sign of life of one kind of work."""

    def __init__(self, work: str, at: int) -> None:
        self.work, self.left, self.now = work, at, ""

    def start(self, name: str, total: int) -> None:
        self.now = name

    def advance(self, done: int, **figures: float) -> None:
        if self.now == self.work:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt


class Told(SilentProgress):
    def __init__(self, kill_at: int = 10**9) -> None:
        self.texts: list[str] = []
        self.left = kill_at

    def message(self, text: str) -> None:
        self.texts.append(text)

    def advance(self, done: int, **figures: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return RunStore(tmp_path_factory.mktemp("runs"))


def config(dataset: Path, *overrides: str, algorithm: str = "td3_bc") -> ResolvedConfig:
    values: dict[str, Any] = {"dataset": str(dataset), "algorithm": algorithm, "dynamics": TINY_DYNAMICS}
    return resolve(arguments=values, overrides=[*SMALL, *overrides])


def in_model(dataset: Path, start: RunFolder, *overrides: str, algorithm: str = "td3_bc") -> ResolvedConfig:
    return config(dataset, *MODEL, f"warm_start={start.path}", *overrides, algorithm=algorithm)


@pytest.fixture(scope="module")
def start(dataset_path: Path, store: RunStore) -> RunFolder:
    return train_policy_stage(config(dataset_path), Workspace(store))


@pytest.fixture(scope="module")
def improved(dataset_path: Path, store: RunStore, start: RunFolder) -> RunFolder:
    return train_policy_stage(in_model(dataset_path, start), Workspace(store))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_policy(path).network.state_dict())


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_start_is_the_first_contestant_and_the_result_is_never_below_it(
    improved: RunFolder, start: RunFolder
):
    found = improved.summary()["selection"]
    assert [one["changes"]["updates"] for one in found["contestants"]] == [0, 5, 10, 15, 20]
    assert_equal(
        weights(improved.path / found["contestants"][0]["path"]), weights(start.path / "policy.safetensors")
    )
    lows = [one["low"] for one in found["contestants"]]
    assert lows[found["chosen"]] == max(lows) >= lows[0]
    assert open_policy(improved.path, "last").facts["updates"] == 20


def _value(low: float) -> JudgedValue:
    shape = (2, 3)
    return JudgedValue(
        torch.full(shape, low, dtype=torch.float64).numpy(),
        torch.tensor([0, 1]).numpy(),
        torch.ones(shape, dtype=torch.int64).numpy(),
        torch.zeros(shape, dtype=torch.bool).numpy(),
    )


@pytest.mark.parametrize(
    ("bounds", "chosen", "tau"),  # trainings that differ by one setting are found apart in the store
    [
        ([3.0, 2.0, 1.0, 2.5, 2.9], 0, 0.01),  # everything that was learned is worse
        ([3.25, 3.25, 3.25, 3.25, 3.25], 0, 0.02),  # nothing is better
        ([float("nan")] * 5, 0, 0.03),  # nobody can tell
        ([3.0, 2.0, 4.0, float("nan"), 1.0], 10, 0.04),
    ],
)
def test_the_start_stays_unless_judges_prefer_another(
    dataset_path: Path,
    store: RunStore,
    start: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    bounds: list[float],
    chosen: int,
    tau: float,
):
    def judge(_self: Any, policies: Any, **_: Any) -> list[JudgedValue]:
        assert len(policies) == 5
        return [_value(bound) for bound in bounds]

    monkeypatch.setattr(judges.Judges, "judge", judge)
    monkeypatch.setattr("mbrl.run.judge.along.find_exploitation", lambda *_: _NoExploitation())
    own = in_model(dataset_path, start, f"algorithm.learner.polyak_tau={tau}")
    run = train_policy_stage(own, Workspace(store))
    assert open_policy(run.path).facts["updates"] == chosen
    if chosen == 0:
        assert_equal(weights(run.path / "policy.safetensors"), weights(start.path / "policy.safetensors"))


class _NoExploitation:
    def to_json(self) -> None:
        return None


def test_nothing_finite_takes_what_is_named_else_the_last():
    nothing = [float("nan")] * 3
    assert choose_best(nothing) == 2
    assert choose_best(nothing, otherwise=0) == 0
    assert choose_best([float("nan"), 1.0], otherwise=0) == 1


def test_actor_critics_and_targets_are_those_of_the_start_before_the_first_update(
    dataset_path: Path, store: RunStore, start: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    seen: list[dict[str, Any]] = []
    from mbrl.learners.td3_bc import TD3BC

    real: Callable[..., Any] = TD3BC.update

    def update(self: Any, state: Any, *rest: Any) -> Any:
        if not seen:
            seen.append(state.state_dict())
        return real(self, state, *rest)

    monkeypatch.setattr(TD3BC, "update", update)
    told = Told()
    asked = in_model(dataset_path, start, "select=last", "algorithm.updates=3")
    train_policy_stage(asked, Workspace(store, told))
    folder = CheckpointFolder(start.path / "checkpoints", str(start.manifest()["hash"]))
    found = folder.load_latest(told.message)
    assert found is not None
    theirs = found[1]["learner"]
    for name in ("actor", "critic", "target_critic"):
        assert_equal(seen[0][name], theirs[name])
    assert_equal(seen[0]["target_actor"], theirs["actor"])
    assert seen[0]["actor_optimiser"]["step"] == seen[0]["updates"] == 0
    starts = [text for text in told.texts if text.startswith("Starts from")]
    assert starts == [f"Starts from {start.path} (td3_bc-s0): actor and critics."]


def test_killed_anywhere_and_resumed_the_result_is_the_same(
    dataset_path: Path, start: RunFolder, improved: RunFolder, tmp_path: Path
):
    other, kills = RunStore(tmp_path), 0
    run = None
    for at in (1, 3, 9, 14, 10**9):
        try:
            run = train_policy_stage(in_model(dataset_path, start), Workspace(other, Told(at)))
            break
        except KeyboardInterrupt:
            kills += 1
    assert run is not None
    assert kills >= 3
    for name in ("policy.safetensors", "policy-last.safetensors", "kept/step-000000000.safetensors"):
        assert (run.path / name).read_bytes() == (improved.path / name).read_bytes()
    assert run.path.name == improved.path.name


def test_the_start_is_part_of_the_identity_by_its_content(start: RunFolder, improved: RunFolder):
    assert improved.manifest()["identity"]["warm_start"] == {
        "run": start.manifest()["hash"],
        "policy": load_policy(start.path / "policy.safetensors").content,
    }


def test_a_start_without_critics_gives_its_actor_alone(dataset_path: Path, store: RunStore):
    clone = train_policy_stage(config(dataset_path, algorithm="bc"), Workspace(store))
    told = Told()
    run = train_policy_stage(in_model(dataset_path, clone), Workspace(store, told))
    assert any("the actor; critics begin anew" in text for text in told.texts)
    assert run.summary()["selection"]["contestants"][0]["changes"] == {"updates": 0}


def test_a_model_free_training_may_start_warm_as_well(dataset_path: Path, start: RunFolder, tmp_path: Path):
    changes = (f"warm_start={start.path}", "algorithm.learner.critic_layer_norm=false")
    run = train_policy_stage(
        config(dataset_path, *changes, algorithm="rebrac"), Workspace(RunStore(tmp_path))
    )
    assert run.summary().get("selection") is None  # the last one, as everywhere without a model


def test_a_start_of_its_own_is_the_model_free_training_bit_for_bit_and_may_be_taken(
    dataset_path: Path, store: RunStore
):
    def in_model_alone(*changes: str) -> ResolvedConfig:
        own = ("algorithm.logged_updates=12", "algorithm.refresh_interval=4")
        return config(dataset_path, *MODEL, *own, *changes)

    run = train_policy_stage(in_model_alone(), Workspace(store))
    found = run.summary()["selection"]["contestants"]
    assert [one["changes"]["updates"] for one in found] == [5, 10, 12, 15, 20]
    alone = train_policy_stage(config(dataset_path, "algorithm.updates=12"), Workspace(store))
    assert_equal(
        weights(run.path / "kept" / "step-000000012.safetensors"), weights(alone.path / "policy.safetensors")
    )
    rows = [row for row in read_metrics(run.path) if "event" not in row]
    assert ["rollout/length" in row for row in rows] == [False, False, True, True]
    last = in_model_alone("select=last")
    with pytest.raises(KeyboardInterrupt):  # at the checkpoint of update 10, before anything is imagined
        train_policy_stage(last, Workspace(store, Kill("train", 3)))
    resumed = train_policy_stage(last, Workspace(store))
    assert_equal(weights(resumed.path / "policy.safetensors"), weights(run.path / "policy-last.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["algorithm.logged_updates=1500"], "multiple of refresh_interval=1000"),
        (["algorithm.logged_updates=2000", "algorithm.updates=2000"], "less than updates=2000"),
        (["algorithm.logged_updates=1000", "algorithm.recipe=mobile"], "needs imagined rows.*warm_start"),
    ],
)
def test_a_start_of_its_own_that_cannot_be_is_refused(dataset_path: Path, changes: list[str], message: str):
    algorithm = "mobile" if "algorithm.recipe=mobile" in changes else "td3_bc"
    values = {"dataset": str(dataset_path), "algorithm": algorithm}
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        resolve(arguments=values, overrides=["algorithm.recipe=model_based", *changes])


@pytest.mark.parametrize(
    ("changes", "algorithm", "message"),
    [
        (["algorithm.learner.hidden=[9]"], "td3_bc", r"hidden=\[8\].*hidden=\[9\].*learner\.hidden=\[8\]"),
        ([], "cql", r"kind=deterministic.*kind=tanh_gaussian.*trained by cql"),
        ([], "iql", r"kind=clipped_gaussian.*trained by iql or awac"),
        (["algorithm.learner.critic_layer_norm=true"], "td3_bc", r"critic\.net\.flat is.*critic_layer_norm"),
        (["algorithm.learner.discount=0.9"], "td3_bc", r"discount by 0\.99.*learner\.discount=0\.99"),
        (["algorithm.reward_transform=none"], "td3_bc", r"in units of.*reward_transform=standardise"),
        (["algorithm.learner.vae_hidden=[8]"], "bcq", r"'bcq'.*has no actor"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_fitted(
    dataset_path: Path, start: RunFolder, tmp_path: Path, changes: list[str], algorithm: str, message: str
):
    with pytest.raises(ConfigError, match=f"(?s)warm_start=.*{message}"):
        train_policy_stage(
            in_model(dataset_path, start, *changes, algorithm=algorithm), Workspace(RunStore(tmp_path))
        )
    assert not list(tmp_path.glob("*/fit_dynamics-*"))


def test_a_start_that_is_none_or_for_another_machine_is_refused(
    dataset_path: Path, start: RunFolder, tmp_path: Path
):
    workspace = Workspace(RunStore(tmp_path))
    nowhere = dataclasses.replace(start, path=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a run folder"):
        train_policy_stage(in_model(dataset_path, nowhere), workspace)
    pendulum = resolve(
        arguments={"dataset": "pendulum-mixed", "algorithm": "td3_bc"},
        overrides=[*SMALL, f"warm_start={start.path}"],
    )
    with pytest.raises(ConfigError, match=r"reads 3 numbers and acts with 2.*'pendulum-mixed' has 3 and 1"):
        train_policy_stage(pendulum, workspace)
    online = resolve(
        arguments={"task": "pendulum", "algorithm": "sac_online"}, overrides=[f"warm_start={start.path}"]
    )
    with pytest.raises(ConfigError, match="trains in a simulator"):
        train_policy_stage(online, workspace)
