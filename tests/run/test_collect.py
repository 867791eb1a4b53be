import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.progress import SilentProgress
from mbrl.data.formats.base import FORMATS
from mbrl.envs.specs import load_task
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.normaliser import Normaliser
from mbrl.run.collect import (
    CollectionConfig,
    collect_dataset,
    find_policy,
    list_collections,
    load_collection,
)
from mbrl.run.policies import save_policy
from mbrl.run.validation import validate

TASK = load_task("pendulum")


def make_actor() -> TanhGaussianActor:
    spec = ActorSpec("tanh_gaussian", TASK.space, (8,))
    return TanhGaussianActor(spec, Normaliser.identity(3), torch.Generator().manual_seed(0))


def mixed(path: Path) -> CollectionConfig:
    parts = [{"policy": "random", "share": 0.4}, {"policy": str(path), "share": 0.6}]
    return CollectionConfig.model_validate({"task": "pendulum", "steps": 500, "parts": parts})


def test_every_episode_carries_the_density_of_the_policy_that_acted(tmp_path: Path) -> None:
    actor = make_actor()
    path = save_policy(tmp_path / "actor.safetensors", actor, {})
    dataset = collect_dataset(mixed(path), name="pendulum/toy", seed=0, progress=SilentProgress())
    assert [len(episode) for episode in dataset.episodes] == [200, 200, 100]
    first, *others = dataset.episodes
    assert first.behaviour_log_prob is not None
    np.testing.assert_allclose(first.behaviour_log_prob, -np.log(2.0), rtol=1e-6)
    for episode in others:
        assert episode.behaviour_log_prob is not None
        obs, action = torch.tensor(episode.observations[:-1]), torch.tensor(episode.actions)
        np.testing.assert_allclose(
            episode.behaviour_log_prob, actor.log_prob(obs, action).detach(), atol=1e-5
        )


def test_the_file_says_where_it_comes_from(tmp_path: Path) -> None:
    path = save_policy(tmp_path / "actor.safetensors", make_actor(), {})
    dataset = collect_dataset(mixed(path), name="pendulum/toy", seed=7, progress=SilentProgress())
    written = FORMATS.get("minari").write(dataset, tmp_path / "out")
    read = FORMATS.get("minari").read(written)
    assert read.content_hash == dataset.content_hash
    assert (read.info.name, read.info.task, read.info.env_id) == ("pendulum/toy", "pendulum", "Pendulum-v1")
    assert (read.info.ref_min_score, read.info.ref_max_score) == (TASK.ref_min_score, TASK.ref_max_score)
    assert read.info.provenance["seed"] == "7"
    assert "mujoco" in json.loads(read.info.provenance["package_versions"])
    assert json.loads(read.info.provenance["recipe"])["parts"][0] == {"policy": "random", "share": 0.4}


def test_seeds_and_parts_have_streams_of_their_own() -> None:
    parts = [{"policy": "random", "share": 0.5}, {"policy": "random", "share": 0.5}]
    config = CollectionConfig.model_validate({"task": "pendulum", "steps": 400, "parts": parts})
    one, same, other = (
        collect_dataset(config, name="x", seed=seed, progress=SilentProgress()) for seed in (0, 0, 1)
    )
    assert one.content_hash == same.content_hash
    starts = [episode.observations[0].tobytes() for d in (one, other) for episode in d.episodes]
    assert len(set(starts)) == 4


def test_shares_must_add_up_and_steps_are_all_given_out() -> None:
    with pytest.raises(ConfigError, match=r"shares must add up to 1, not 0\.9"):
        validate(
            CollectionConfig, {"task": "pendulum", "parts": [{"policy": "random", "share": 0.9}]}, where="x"
        )
    parts = [{"policy": "random", "share": 1 / 3}] * 3
    config = CollectionConfig.model_validate({"task": "pendulum", "steps": 100, "parts": parts})
    assert config.part_steps() == [33, 33, 34]


def test_unknown_policies_and_recipes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no policy 'randm' for the task pendulum\. Did you mean 'random'"):
        find_policy("randm", TASK)
    with pytest.raises(ConfigError, match=r"Unknown dataset recipe 'pendulum/medum'\. Did you mean"):
        load_collection("pendulum/medum")


def test_a_policy_of_another_task_is_refused(tmp_path: Path) -> None:
    path = save_policy(tmp_path / "actor.safetensors", make_actor(), {})
    with pytest.raises(ConfigError, match="acts on"):
        find_policy(str(path), load_task("hopper"))


@pytest.mark.parametrize("name", list_collections())
def test_every_shipped_recipe_finds_its_policies(name: str) -> None:
    config = load_collection(name)
    for part in config.parts:
        assert find_policy(part.policy, load_task(config.task)).act_dim == load_task(config.task).act_dim
