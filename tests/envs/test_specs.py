import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mbrl.core.assets import configs_dir
from mbrl.core.errors import ConfigError
from mbrl.envs.make import make_env
from mbrl.envs.specs import TaskSpec, find_task, list_tasks, load_named_task, load_task, own_task_hash

SHIPPED = (
    "acrobot",
    "ant",
    "cartpole",
    "four_tank",
    "halfcheetah",
    "hopper",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "mountain_car",
    "pendulum",
    "pipeline",
    "pusher",
    "reacher",
    "reactor",
    "walker2d",
)
MINIMAL = {"name": "rig", "obs_dim": 3, "act_dim": 2, "act_low": [-1, -5], "act_high": [1, 0.5]}


def test_the_shipped_tasks_are_these() -> None:
    assert list_tasks() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_task_round_trips_and_matches_its_simulator(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert TaskSpec.model_validate(yaml.safe_load(yaml.safe_dump(task.model_dump(mode="json")))) == task
    env = make_env(task)  # raises where sizes or bounds differ
    assert env.spec is not None
    assert env.spec.max_episode_steps == task.max_episode_steps
    env.close()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("halfcheetah", -280.178953, 12135.0),
        ("hopper", -20.272305, 3234.3),
        ("walker2d", 1.629008, 4592.3),
        ("ant", -325.6, 3879.7),
    ],
)
def test_the_d4rl_reference_scores(name: str, low: float, high: float) -> None:
    task = load_task(name)
    assert (task.ref_min_score, task.ref_max_score) == (low, high)
    assert "D4RL" in task.ref_source


def test_a_task_without_a_simulator_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    task = load_task(path)
    assert task.env_id is None
    assert task.termination is None
    assert task.space.act_low == (-1.0, -5.0)
    assert task.space.act_high == (1.0, 0.5)
    with pytest.raises(ConfigError, match="has no simulator"):
        make_env(task)


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rig.yml"
    path.write_text("name: rig\nobs_dim: 1\nact_dim: 1\nact_low: [-3e-4]\nact_high: [3e-4]\n")
    assert load_task(str(path)).act_high == (3e-4,)


def test_an_unknown_name_lists_the_legal_ones() -> None:
    with pytest.raises(ConfigError, match=r"'hopp'.*ant, cartpole, four_tank, halfcheetah, hopper.*\.yaml"):
        load_task("hopp")


@pytest.mark.parametrize("name", ["../tasks/hopper", "Hopper", "hopper-v5", "", "."])
def test_only_an_exact_name_is_a_name(name: str) -> None:
    with pytest.raises(ConfigError, match="Unknown task"):
        load_task(name)


@pytest.mark.parametrize("env_id", ["Ant", "AntMaze_UMaze-v5", "Hopper-v4", "hopper-v5", "MyHopper-v5", ""])
def test_a_simulator_is_found_by_its_exact_id_only(env_id: str) -> None:
    assert find_task(env_id) is None


def test_a_simulator_is_found_by_its_exact_id() -> None:
    found = find_task("Ant-v5")
    assert found is not None
    assert found.name == "ant"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"act_dim": 3}, "act_dim is 3, bounds have 2, 2"),
        ({"act_high": [1, -5]}, "lower action bound must lie below"),
        ({"act_low": [-1, float("-inf")]}, "act_low.1"),
        ({"ref_min_score": 1.0, "ref_source": "x"}, "give both"),
        ({"ref_min_score": 2.0, "ref_max_score": 1.0, "ref_source": "x"}, "must lie below"),
        ({"ref_min_score": 1.0, "ref_max_score": 2.0}, "need a ref_source"),
        ({"termination": {"bounds": {3: [0, 1]}}}, "names dimensions .3."),
        ({"termination": {"abs_below": {"limit": 1, "from_dim": 3}}}, "names dimensions .3."),
        ({"termination": {"bounds": {0: [1, 0]}}}, "must lie below the upper bound"),
        ({"termination": {"bounds": {0: [None, None]}}}, "give a lower bound"),
        ({"termination": {"abs_below": {"limit": 0}}}, "limit"),
        ({"terminations": {}}, "terminations = {}.*Legal keys: name"),
        ({"max_episode_steps": 0}, "max_episode_steps = 0"),
    ],
)
def test_a_wrong_task_names_the_key_and_the_value(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(MINIMAL | change))
    with pytest.raises(ConfigError, match=problem) as caught:
        load_task(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "name: rig"])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        load_task(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_task(tmp_path / "nowhere.yaml")


def test_a_task_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_task("hopper").obs_dim = 3  # type: ignore[misc]


def test_the_configs_folder_holds_the_tasks() -> None:
    assert {path.stem for path in (configs_dir() / "tasks").iterdir()} == set(SHIPPED)


def test_data_may_name_a_shipped_task() -> None:
    assert load_named_task("hopper", source="The log x") == load_task("hopper")
    assert load_named_task("hopper", source="x", env_id="Hopper-v5") == load_task("hopper")
    known = load_task("hopper").content_hash
    assert load_named_task("hopper", source="x", content_hash=known) == load_task("hopper")


def own_task(tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, "env_id": "planted_module:Own-v0", **changes}))
    return path


def test_data_may_name_neither_files_nor_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user may give with --task, a dataset or a policy file may not: it would import code."""
    (tmp_path / "planted_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = own_task(tmp_path)
    assert load_task(path).env_id == "planted_module:Own-v0"
    for name in (str(path), "own.yaml", "../own", "planted_module:Own-v0", "", "Hopper-v5", "a" * 5000):
        with pytest.raises(ConfigError, match="The log x names the task") as caught:
            load_named_task(name, source="The log x")
        assert "--task" in str(caught.value)
        assert len(str(caught.value)) < 500
    assert "planted_module" not in sys.modules


def test_a_task_of_the_users_is_not_replaced_by_a_shipped_one_of_its_name(tmp_path: Path) -> None:
    path = own_task(tmp_path, name="hopper")
    own = load_task(path)
    noted = own_task_hash(own)
    assert noted == own.content_hash
    assert own_task_hash(load_task("hopper")) is None
    with pytest.raises(ConfigError, match="another one than the shipped"):
        load_named_task("hopper", source="The policy y", content_hash=noted)
    with pytest.raises(ConfigError, match=r"its simulator is 'planted_module:Own-v0', not 'Hopper-v5'"):
        load_named_task("hopper", source="The log x", env_id=own.env_id)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"obs_dim": 10**9}, "100,000"),
        ({"act_dim": 10**9}, "100,000"),
        ({"name": "n" * 5000}, "at most 100"),
        ({"act_low": [-float("inf"), -5]}, "finite"),
        ({"act_low": [1, -5], "act_high": [-1, 5]}, "below the upper"),
        ({"act_low": ["a", "b"]}, "valid number"),
    ],
)
def test_hostile_values_are_refused_in_few_words(
    tmp_path: Path, values: dict[str, object], words: str
) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **values}))
    with pytest.raises(ConfigError, match=words) as caught:
        load_task(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
