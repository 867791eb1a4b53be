"""What a comparison's yaml may say, and that its runs are those of `mbrl train`."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mbrl.core.errors import ConfigError
from mbrl.run.config import find_part, is_comparison, part_names, resolve
from mbrl.run.documents import read_yaml
from mbrl.study.config import load_study
from tests.run.toy import write_dataset
from tests.study.toy_study import BC, toy_tree

COMPARISONS = [
    name for name in part_names("experiments") if is_comparison(read_yaml(find_part("experiments", name)))
]


def write(folder: Path, tree: dict[str, Any]) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_shipped_comparison_validates(name: str) -> None:
    source = load_study(name)
    assert source.name == name
    for algorithm in source.config.algorithms:
        assert source.resolve(algorithm, seed=source.config.seeds[-1]).run.seed == source.config.seeds[-1]


def test_a_run_is_what_train_makes_of_the_same_values(tmp_path: Path) -> None:
    dataset = str(write_dataset(tmp_path))
    source = load_study(write(tmp_path, toy_tree(tmp_path / "toy", dynamics={"file": "small", "members": 5})))
    run = source.resolve("bc", seed=1, dataset=dataset)
    train = resolve(
        arguments={"dataset": dataset, "algorithm": "bc", "dynamics": "small", "seed": 1},
        overrides=[
            "algorithm.updates=20", "algorithm.learner.hidden=[8]", "algorithm.learner.batch_size=16",
            "dynamics.members=5", "log_interval=5", "checkpoint_interval=10", "evaluation.episodes=20",
        ],
    )  # fmt: skip
    assert (run.run, run.name) == (train.run, train.name)
    lines = {line.strip() for line in run.to_yaml().splitlines()}
    assert {"updates: 20  # mine.yaml", "recipe: model_free  # bc.yaml", "threads: 1  # default"} <= lines


def test_a_bare_name_a_changed_file_and_a_whole_section_are_told_apart(tmp_path: Path) -> None:
    section = {"recipe": "model_free", "updates": 7, "learner": {"name": "bc", "hidden": [4]}}
    algorithms = {"plain": "bc", "changed": {"file": "bc", "updates": 9}, "whole": section}
    source = load_study(write(tmp_path, toy_tree(tmp_path, algorithms=algorithms)))
    updates = {name: source.resolve(name, seed=0).run.algorithm.updates for name in algorithms}
    shipped = read_yaml(find_part("algorithms", "bc"))["updates"]
    assert updates == {"plain": shipped, "changed": 9, "whole": 7}
    assert source.config.algorithms["whole"] == section  # resolving changed nothing


def test_overrides_reach_into_bare_names(tmp_path: Path) -> None:
    path = write(tmp_path, toy_tree(tmp_path, algorithms={"bc": "bc"}, dynamics="small"))
    source = load_study(
        path, overrides=["algorithms.bc.updates=3", "dynamics.members=2", "dynamics.elites=2"]
    )
    run = source.resolve("bc", seed=0).run
    assert (run.algorithm.updates, run.dynamics.members) == (3, 2)
    assert load_study(path, overrides=["seeds=[7]"]).config.seeds == (7,)


def test_a_planner_stands_on_top_of_a_training_and_does_not_change_it(tmp_path: Path) -> None:
    timed = {"file": "mppi", "milliseconds": 5, "planner": {"horizon": 3}}
    algorithms = {"bc": BC, "named": {**BC, "planner": "mppi"}, "timed": {**BC, "planner": timed}}
    path = write(tmp_path, toy_tree(tmp_path, algorithms=algorithms))
    source = load_study(path, overrides=["algorithms.named.planner.pessimism=2"])
    bare, *planned = (source.resolve(name, seed=0).run for name in algorithms)
    assert all(run == bare for run in planned)
    assert source.planner("bc") is None
    named, changed = source.planner("named"), source.planner("timed")
    assert named is not None
    assert changed is not None
    assert (named.planner.name, named.pessimism, named.sims) == ("mppi", 2.0, 736)
    assert (changed.milliseconds, changed.sims) == (5.0, None)
    assert changed.planner.tree()["horizon"] == 3
    again = tmp_path / "again.yaml"
    again.write_text(source.to_yaml())
    assert load_study(str(again)).planner("timed") == changed
    for bad in ("mpi", {"file": "mppi", "sims": 0}, {"name": "mppi"}):
        with pytest.raises(ConfigError):
            load_study(write(tmp_path, toy_tree(tmp_path, algorithms={"x": {**BC, "planner": bad}})))


def test_a_validated_comparison_reads_back_as_itself(tmp_path: Path) -> None:
    source = load_study(write(tmp_path, toy_tree(tmp_path, task="pendulum")))
    again = tmp_path / "again.yaml"
    again.write_text(source.to_yaml())
    assert load_study(str(again)).config == source.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [0]}, "Unknown key seed. Did you mean 'seeds'"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "given twice"),
        ({"seeds": [-1]}, "seeds.0 = -1"),
        ({"select": "best"}, "select.rule = 'best' is not legal. Legal values: judge, last, fqe"),
        ({"datasets": {}}, "datasets"),
        ({"datasets": {"a.b": "x"}}, "pattern"),
        ({"datasets": {"a": {"colect": "pendulum/random"}}}, "datasets.a.colect. Did you mean 'collect'"),
        ({"datasets": {"a": {"source": "x", "collect": "y"}}}, "either source or collect"),
        ({"datasets": {"a": {"source": "x", "steps": 3}}}, "belong to collect"),
        ({"algorithms": {"a": {"flie": "bc"}}}, "algorithms.a names neither .* Did you mean 'file'"),
        ({"algorithms": {"a": "bcc"}}, "algorithm a: Unknown name 'bcc'.* Did you mean 'bc'"),
        (
            {"algorithms": {"a": {**BC, "updats": 3}}},
            "algorithm a: .*updats. Did you mean 'updates'",
        ),
        ({"algorithms": {"a": "sac_online"}}, "learns in a simulator"),
        ({"dynamics": {"file": "small", "member": 3}}, "dynamics.member. Did you mean 'members'"),
        ({"evaluation": {"episode": 3}}, "evaluation.episode. Did you mean 'episodes'"),
    ],
)
def test_a_slip_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, toy_tree(tmp_path, **changes)))


def test_one_run_and_a_comparison_name_each_other_s_command() -> None:
    with pytest.raises(ConfigError, match="mbrl train --config demo-mopo"):
        load_study("demo-mopo")
    with pytest.raises(ConfigError, match="mbrl compare smoke"):
        resolve("smoke")
