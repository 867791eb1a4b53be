"""A training that imitates: its second log, its identity, and the reward that it leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mbrl
from mbrl.core.errors import ConfigError
from mbrl.data.formats.base import FORMATS
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.judge.along import rule_of
from mbrl.run.preferences.reward import REWARD_FILE, open_reward
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from mbrl.run.train import train_policy_stage
from tests.run.toy import TINY_DYNAMICS, make_dataset

SMALL = ["algorithm.updates=12", "algorithm.learner.hidden=[8]", "algorithm.learner.batch_size=16"]
IN_MODEL = [
    "algorithm.rollout.starts=8", "algorithm.rollout.respect_trusted_horizon=false",
    "algorithm.refresh_interval=6", "algorithm.discriminator_hidden=[8]",
]  # fmt: skip


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    made = {"log": make_dataset(), "expert": make_dataset(3, 30, seed=5)}
    paths = [FORMATS.get("minari").write(data, folder / name) for name, data in made.items()]
    return paths[0], paths[1]


def config(logs: tuple[Path, Path], algorithm: str, *overrides: str, **changes: Any) -> ResolvedConfig:
    arguments = {"dataset": str(logs[0]), "expert": str(logs[1]), "algorithm": algorithm, **changes}
    more = IN_MODEL if algorithm in {"airl", "gail"} else []
    return resolve(arguments={"dynamics": TINY_DYNAMICS, **arguments}, overrides=[*SMALL, *more, *overrides])


@pytest.mark.parametrize("algorithm", ["airl", "demodice"])
def test_an_imitation_leaves_its_reward_and_says_how_it_compares(algorithm, logs, tmp_path):
    run = train_policy_stage(config(logs, algorithm), Workspace(RunStore(tmp_path)))
    stored = open_reward(run.path / REWARD_FILE)
    log = mbrl.load(logs[0])
    relabelled = mbrl.relabel(log, reward_model=run.path)
    rewards = np.concatenate([episode.rewards for episode in relabelled.episodes]).astype(np.float64)
    assert rewards.mean() == pytest.approx(0.0, abs=1e-4)
    assert rewards.std() == pytest.approx(1.0, abs=1e-4)
    assert stored.content in relabelled.info.provenance["reward"]
    logged = np.concatenate([episode.rewards for episode in log.episodes]).astype(np.float64)
    found = run.summary()["recovered_reward"]
    assert found["pearson"] == pytest.approx(np.corrcoef(rewards, logged)[0, 1], abs=1e-4)
    assert found["steps"] == len(logged)
    (text,) = [line for line in mbrl.Run.load(run.path).messages() if "recovered reward" in line]
    assert f"Pearson {found['pearson']:.2f}" in text


def test_the_result_depends_on_the_experts_episodes_and_on_no_reward(logs, tmp_path):
    workspace = Workspace(RunStore(tmp_path))
    first = train_policy_stage(config(logs, "demodice"), workspace)
    other = train_policy_stage(config(logs, "demodice", expert=str(logs[0])), workspace)
    assert first.path != other.path
    bare = make_dataset()
    import dataclasses

    hidden = dataclasses.replace(
        bare,
        episodes=tuple(
            dataclasses.replace(e, rewards=np.full(len(e), np.nan, np.float32), has_rewards=False)
            for e in bare.episodes
        ),
    )
    run = train_policy_stage(config(logs, "demodice"), Workspace(RunStore(tmp_path / "bare")), dataset=hidden)
    assert run.summary()["recovered_reward"] == {"steps": 360, "pearson": None, "spearman": None}
    policies = [mbrl.Run.load(found.path).policy for found in (first, run)]
    obs = bare.episodes[0].observations[:5]
    np.testing.assert_array_equal(*(policy.act(obs) for policy in policies))


def test_a_rule_that_would_read_rewards_is_not_taken_unasked(logs):
    assert rule_of(config(logs, "airl").run) == "last"
    assert rule_of(config(logs, "airl", "select=judge").run) == "judge"


def test_an_expert_is_refused_where_nobody_reads_it_and_missed_where_somebody_does(logs, tmp_path):
    workspace = Workspace(RunStore(tmp_path))
    with pytest.raises(ConfigError, match="imitates nobody"):
        train_policy_stage(config(logs, "bc"), workspace)
    with pytest.raises(ConfigError, match=r"name a log of an expert.*--expert"):
        train_policy_stage(config(logs, "smodice", expert=None), workspace)
    with pytest.raises(
        ConfigError, match=r"The expert's log .* has 3 observations .* Remedy: two logs of one"
    ):
        train_policy_stage(config(logs, "smodice", expert="pendulum-mixed"), workspace)
