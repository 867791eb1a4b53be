import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.run.collect import list_collections, load_collection
from mbrl.run.config import describe_parts, find_part, is_comparison, part_names, resolve, stable_hash
from mbrl.run.documents import parse_yaml, read_yaml


def failure(*overrides: str, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(arguments={"algorithm": "mopo", **arguments}, overrides=overrides)
    return str(caught.value)


def test_unknown_keys_are_named_with_the_near_miss_and_the_legal_ones() -> None:
    text = failure("algorithm.rollout.horizn=3")
    assert "Unknown key algorithm.rollout.horizn. Did you mean 'horizon'? Legal keys here: " in text
    assert "starts" in text
    assert "real_ratio" not in text.partition("Legal keys")[2]
    assert "Did you mean 'real_ratio'?" in failure("algorithm.real-ratio=0.5")
    assert "Did you mean 'entropy_coef'?" in failure("algorithm.learner.entropy_coeff=0.1")
    assert "Unknown key sed" in failure("sed=3")
    assert "Did you mean 'seed'?" in failure("sed=3")
    assert "Did you mean 'hidden'?" in failure("dynamics.termination.hiden=[3]")


def test_values_out_of_range_are_named_with_the_bound() -> None:
    text = failure("algorithm.real_ratio=1.5")
    assert "algorithm.real_ratio = 1.5 must be less than or equal to 1" in text
    assert "seed = -1 must be greater than or equal to 0" in failure("seed=-1")


def test_wrong_types_are_errors() -> None:
    assert "algorithm.learner.critics = [5]" in failure("algorithm.learner.critics=[5]")
    assert "algorithm.penalty.coef = 'much' must be a valid number" in failure("algorithm.penalty.coef=much")
    assert "algorithm.learner.critic_layer_norm = 'maybe'" in failure(
        "algorithm.learner.critic_layer_norm=maybe"
    )


def test_unknown_names_list_the_legal_ones() -> None:
    text = failure("algorithm.recipe=mopos")
    assert "algorithm.recipe = 'mopos' is unknown. Did you mean 'mopo'? Legal names: " in text
    assert "Did you mean 'sac'?" in failure("algorithm.learner.name=sacc")
    assert "Unknown name 'mop' for algorithms. Did you mean 'mopo'?" in failure(algorithm="mop")
    text = failure("on_divergence=stopp")
    assert "on_divergence = 'stopp' is not legal. Did you mean 'stop'? Legal values: warn, stop." in text


def test_all_problems_are_told_at_once() -> None:
    text = failure("algorithm.real_ratio=2", "algorithm.retain=0", "algorithm.x=1")
    assert all(key in text for key in ("algorithm.real_ratio", "algorithm.retain", "algorithm.x"))
    assert "\n" not in text


def test_booleans_parse() -> None:
    run = resolve(
        arguments={"algorithm": "mopo"}, overrides=["algorithm.learner.critic_layer_norm=false"]
    ).run
    assert run.tree()["algorithm"]["learner"]["critic_layer_norm"] is False


def test_later_beats_earlier_and_every_origin_is_kept(tmp_path: Path) -> None:
    experiment = tmp_path / "mine.yaml"
    experiment.write_text("dataset: x\nalgorithm: bc\nseed: 3\nlog_interval: 7\n")
    resolved = resolve(
        experiment,
        arguments={"seed": 4, "threads": None},
        overrides=["algorithm.learner.learning_rate=1e-4", "log_interval=9"],
    )
    run = resolved.run
    assert (run.seed, run.log_interval, run.dataset, resolved.name) == (4, 9, "x", "bc")
    lines = {line.strip() for line in resolved.to_yaml().splitlines()}
    assert {
        "seed: 4  # command line",
        "log_interval: 9  # --set",
        "dataset: x  # mine.yaml",
        "threads: 1  # default",
        "learning_rate: 0.0001  # --set",
        "recipe: model_free  # bc.yaml",
    } <= lines


def test_a_written_config_resolves_to_itself(tmp_path: Path) -> None:
    resolved = resolve(arguments={"algorithm": "mopo", "seed": 5}, overrides=["algorithm.rollout.horizon=2"])
    path = tmp_path / "config.yaml"
    path.write_text(resolved.to_yaml())
    assert resolve(path).run == resolved.run


def test_a_shipped_file_is_described_by_the_first_words_above_it() -> None:
    found = describe_parts("algorithms")
    assert tuple(found) == part_names("algorithms")
    assert found["bc"] == "Behaviour cloning with a deterministic policy: the baseline to beat"
    assert found["mopo-published"] == "MOPO with the values of OfflineRL-Kit for halfcheetah-medium-v2"
    assert found["sac_n"] == "SAC-N sized for CPUs: the least of ten critics, two layers"
    assert all(found.values())


@pytest.mark.parametrize("name", part_names("algorithms"))
def test_every_algorithm_validates_and_round_trips(name: str) -> None:
    run = resolve(arguments={"algorithm": name}).run
    assert parse_yaml(resolve(arguments={"algorithm": name}).to_yaml(), where="x") == run.tree()
    assert isinstance(run.algorithm, RECIPES.get(run.recipe).Config)


RUNS = [n for n in part_names("experiments") if not is_comparison(read_yaml(find_part("experiments", n)))]


@pytest.mark.parametrize("name", RUNS)
def test_every_experiment_validates(name: str) -> None:
    assert resolve(name).run.tree() == resolve(name).run.tree()


@pytest.mark.parametrize("name", part_names("dynamics"))
def test_every_dynamics_config_validates(name: str) -> None:
    resolve(arguments={"algorithm": "bc", "dynamics": name})


@pytest.mark.parametrize("name", list_collections())
def test_every_dataset_recipe_validates(name: str) -> None:
    config = load_collection(name)
    assert sum(config.part_steps()) == config.steps
    assert name.startswith(f"{config.task}/")


def test_the_hash_ignores_the_order_of_keys_and_nothing_else() -> None:
    assert stable_hash({"a": 1, "b": [1, 2]}) == stable_hash({"b": [1, 2], "a": 1})
    assert stable_hash({"a": 1}) != stable_hash({"a": 2})
    assert stable_hash({"a": [1, 2]}) != stable_hash({"a": [2, 1]})


def test_the_hash_is_the_same_in_another_process() -> None:
    program = "from mbrl.run.config import stable_hash; print(stable_hash({'b': 0.1, 'a': {'c': None}}))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == stable_hash({"a": {"c": None}, "b": 0.1})


def test_a_key_without_its_section_is_told_where_it_lives():
    with pytest.raises(
        ConfigError, match=r"Unknown key max_updates\. Did you mean dynamics\.max_updates or judges"
    ):
        resolve(arguments={"dataset": "d", "algorithm": "bc"}, overrides=["max_updates=5"])
