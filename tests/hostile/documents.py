# ruff: noqa: E501 - a table, one case a line
"""YAML files that no config can be, that would cost time or memory, or that would run code."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from mbrl.core.assets import configs_dir
from tests.hostile.case import PLACE, Case

TRAIN: Final = ("train", "pendulum-mixed", "--config", PLACE, "--runs", "OUT")
ALGORITHM: Final = ("train", "pendulum-mixed", "--algorithm", PLACE, "--runs", "OUT")
DYNAMICS: Final = ("fit", "pendulum-mixed", "--dynamics", PLACE, "--runs", "OUT")
COMPARE: Final = ("compare", PLACE, "--runs", "OUT", "--jobs", "1")
COLLECT: Final = ("collect", PLACE, "--out", "OUT")
BENCH: Final = ("ope-bench", PLACE, "--runs", "OUT")
ONLINE: Final = ("train", "--online", PLACE, "--algorithm", "sac_online", "--runs", "OUT")

BOMB: Final = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LOOP: Final = "a: &a [*a]\n"


def text(name: str, content: str | bytes, words: str = "", command: tuple[str, ...] = TRAIN) -> Case:
    """A file of this text."""

    def make(folder: Path) -> Path:
        path = folder / "own.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return Case(f"yaml: {name}", make, command, words)


def changed(
    name: str,
    of: str,
    change: Callable[[dict[str, Any]], object],
    words: str,
    command: tuple[str, ...],
    about: str = "",
) -> Case:
    """A file of this package with something in it that is wrong."""
    tree: dict[str, Any] = yaml.safe_load((configs_dir() / of).read_text())
    change(tree)
    return dataclasses.replace(text(f"{name} ({of})", yaml.safe_dump(tree), words, command), about=about)


def planted(name: str, command: tuple[str, ...], tree: Callable[[str], dict[str, Any]]) -> Case:
    """A document that names a task file whose simulator is in a module that lies beside it."""

    def make(folder: Path) -> Path:
        task = yaml.safe_load((configs_dir() / "tasks/pendulum.yaml").read_text())
        task["env_id"] = "planted_by_a_document:Own-v0"
        (folder / "task.yaml").write_text(yaml.safe_dump(task))
        path = folder / "own.yaml"
        path.write_text(yaml.safe_dump(tree(str(folder / "task.yaml"))))
        return path

    return Case(f"yaml: {name}", make, command, "would be imported")


def text_cases() -> tuple[Case, ...]:
    """Texts that are no config, whatever is looked for in them."""
    return (
        text("aliases that stand for 9^9 values", BOMB, "10,000 values"),
        text("aliases in a comparison", BOMB, "10,000 values", COMPARE),
        text("aliases in a recipe", BOMB, "10,000 values", COLLECT),
        text("aliases in a task", BOMB, "10,000 values", ONLINE),
        text("aliases in an algorithm", BOMB, "10,000 values", ALGORITHM),
        text("aliases that lead to themselves", LOOP, "themselves"),
        text("lists 2,000 deep", "a: " + "[" * 2000 + "]" * 2000, "deep"),
        text("lists 2,000 deep in an algorithm", "a: " + "[" * 2000 + "]" * 2000, "deep", ALGORITHM),
        text("mappings 500 deep", "".join(f"{' ' * k}a:\n" for k in range(500)), "deep"),
        text("two megabytes", "a: " + "x" * 2_000_000, "1,000,000"),
        text("20,000 values", "a: [" + "0," * 20_000 + "]", "10,000 values"),
        text("an object of Python", "!!python/object/apply:os.system ['true']", "not valid yaml"),
        text("a module of Python", "a: !!python/module:os", "not valid yaml"),
        text("a name of Python", "a: !!python/name:os.system", "not valid yaml", ALGORITHM),
        text("bytes", "a: !!binary aGVsbG8=", "not valid yaml"),
        text("a set", "a: !!set {x}", "not valid yaml"),
        text("a key twice", "seed: 1\nseed: 2\n", "given twice"),
        text("a mapping as a key", "? {a: 1}\n: 2\n", "not valid yaml"),
        text("a list as a key", "? [a]\n: 2\n", "not valid yaml"),
        text("numbers as keys", "1: 2\n", "mapping of names"),
        text("a list", "- 1\n- 2\n", "mapping of names"),
        text("a number", "3", "mapping of names"),
        text("two documents", "a: 1\n---\nb: 2\n", "not valid yaml"),
        text("an open bracket", "a: [1, 2", "not valid yaml"),
        text("a tab", "a:\n\tb: 1\n", "not valid yaml"),
        text("a NUL", b"a: \x00", "not valid yaml"),
        text("an escaped NUL", 'a: "\\0"', "nul"),
        text("bytes that are no text", b"\xff\xfe\xfa\xfb", "utf-8"),
        text("bytes that are no text, as a task", b"\xff\xfe\xfa\xfb", "cannot be read", ONLINE),
        text("an integer of 400 digits", "seed: " + "9" * 400, "too large"),
        text("an impossible date", "a: 2024-99-99", "not valid yaml"),
        text("an unknown anchor", "a: *b", "not valid yaml"),
        text("a directive", "%YAML 9.9\n---\na: 1\n", "not valid yaml"),
    )


def config_cases() -> tuple[Case, ...]:
    """Configs with values that they cannot have."""
    key = "x" * 900
    return (
        text("a misspelt key", "algoritm: bc", "did you mean 'algorithm'"),
        text("a key of 900 characters", f"{key}: 1", "legal"),
        text("a seed in words", "algorithm: bc\nseed: one", "seed"),
        text("a negative seed", "algorithm: bc\nseed: -1", "seed"),
        text("a seed that is NaN", "algorithm: bc\nseed: .nan", "seed"),
        text("no threads", "algorithm: bc\nthreads: 0", "threads"),
        text("a device that there is not", "algorithm: bc\ndevice: tpu:9", "device"),
        text("an algorithm that there is not", "algorithm: bcc", "did you mean"),
        text("an algorithm that is a number", "algorithm: 3", "algorithm"),
        text("an algorithm that is a list", "algorithm: [bc]", "algorithm"),
        text("an algorithm of 900 characters", f"algorithm: {key}", "legal"),
        text("a path out of the configs", "algorithm: ../../../etc/passwd", "legal"),
        text("a recipe that there is not", "algorithm: {recipe: evil, learner: {name: bc}}", "legal"),
        text("a recipe that is a list", "algorithm: {recipe: [bc]}", "recipe"),
        text("a learner that is a list", "algorithm: {recipe: model_free, learner: [bc]}", "learner"),
        text("updates of 1e30", "algorithm: {file: bc, updates: 1.0e+30}", "algorithm"),
        text("a task that is a mapping", "algorithm: bc\ntask: {a: 1}", "task"),
        dataclasses.replace(text("a task of 900 characters", f"algorithm: bc\ntask: {key}", "task"), about="xxx"),
        text("a dataset that is a list", "dataset: [1]\nalgorithm: bc", "dataset", ("train", "--config", PLACE)),
        text("a comparison", "datasets: {a: b}\nalgorithms: {bc: {}}\nseeds: [0]", "mbrl compare"),
        changed("a layer of 10^12", "algorithms/bc.yaml", _set("learner", "hidden", [10**12]), "hidden", ALGORITHM),
        changed("an infinite rate", "algorithms/bc.yaml", _set("learner", "learning_rate", float("inf")), "learning_rate", ALGORITHM),
        changed("a discount of 2", "algorithms/iql.yaml", _set("learner", "discount", 2), "discount", ALGORITHM),
        changed("10^9 critics", "algorithms/cql.yaml", _set("learner", "critics", 10**9), "critics", ALGORITHM),
        changed("a batch of 0", "algorithms/mopo.yaml", _set("learner", "batch_size", 0), "batch_size", ALGORITHM),
        changed("a horizon of 10^9", "algorithms/mopo.yaml", _set("rollout", "horizon", 10**9), "horizon", ALGORITHM),
        changed("10^9 members", "dynamics/small.yaml", _set("members", 10**9), "members", DYNAMICS),
        changed("no members", "dynamics/small.yaml", _set("members", 0), "members", DYNAMICS),
        changed("all held out", "dynamics/small.yaml", _set("holdout_fraction", 1.0), "holdout_fraction", DYNAMICS),
        changed("a schedule in words", "dynamics/small.yaml", _set("max_updates", "many"), "max_updates", DYNAMICS),
        changed("no algorithms", "experiments/smoke.yaml", _set("algorithms", {}), "algorithms", COMPARE),
        changed("10^9 seeds", "experiments/smoke.yaml", _set("seeds", 10**9), "seeds", COMPARE),
        changed("a seed twice", "experiments/smoke.yaml", _set("seeds", [0, 0]), "given twice", COMPARE),
        changed("a label that is a path", "experiments/smoke.yaml", _set("datasets", {"../x": "pendulum-mixed"}), "datasets", COMPARE),
        changed("a label of 900 characters", "experiments/smoke.yaml", _set("datasets", {key: "pendulum-mixed"}), "datasets", COMPARE),
        changed("a dataset that there is not", "experiments/smoke.yaml", _set("datasets", {"a": "nowhere.npz"}), "nowhere", COMPARE, "nowhere.npz"),
        changed("an algorithm that is a number", "experiments/smoke.yaml", _set("algorithms", {"a": 3}), "algorithms", COMPARE),
        changed("no episodes", "experiments/smoke.yaml", _set("evaluation", "episodes", 0), "episodes", COMPARE),
        changed("shares of 2", "datasets/pendulum/medium.yaml", _set("parts", [{"policy": "medium", "share": 2.0}]), "share", COLLECT),
        changed("a policy that is a path", "datasets/pendulum/medium.yaml", _set("parts", [{"policy": "/etc/passwd"}]), "policy", COLLECT, "/etc/passwd"),
        changed("10^18 steps", "datasets/pendulum/medium.yaml", _set("steps", 10**18), "steps", COLLECT),
        changed("no parts", "datasets/pendulum/medium.yaml", _set("parts", []), "parts", COLLECT),
        changed("no tasks", "ope-bench/smoke.yaml", _set("tasks", {}), "tasks", BENCH),
        changed("tasks that are a list", "ope-bench/smoke.yaml", _set("tasks", [1]), "tasks", BENCH),
        changed("an unknown key", "ope-bench/smoke.yaml", _set("evil", 1), "evil", BENCH),
    )  # fmt: skip


def task_cases() -> tuple[Case, ...]:
    """Tasks that contradict themselves, and documents that name tasks to run their code."""
    task = "tasks/pendulum.yaml"
    return (
        changed("10^9 observations", task, _set("obs_dim", 10**9), "obs_dim", ONLINE),
        changed("swapped bounds", task, _set("act_low", [3.0]), "act_low", ONLINE),
        changed("bounds that are NaN", task, _set("act_high", [float("nan")]), "act_high", ONLINE),
        changed("infinite bounds", task, _set("act_high", [float("inf")]), "act_high", ONLINE),
        changed("bounds in words", task, _set("act_low", "low"), "act_low", ONLINE),
        changed("swapped scores", task, _set("ref_min_score", 1e9), "ref_min_score", ONLINE),
        changed("an id of 5,000 characters", task, _set("env_id", "x" * 5000), "env_id", ONLINE),
        changed("an id that is a list", task, _set("env_id", ["Pendulum-v1"]), "env_id", ONLINE),
        changed("an unknown id", task, _set("env_id", "Pendulums-v1"), "gymnasium", ONLINE, "Task 'pendulum'"),
        changed("a step of -1", task, _set("max_episode_steps", -1), "max_episode_steps", ONLINE),
        changed("keys of another file", task, _set("import", "os"), "legal keys", ONLINE),
        planted("a recipe that imports", COLLECT, lambda path: {
            "task": path, "steps": 100, "parts": [{"policy": "random"}]
        }),
        planted("a comparison that imports", COMPARE, lambda path: {
            **yaml.safe_load((configs_dir() / "experiments/smoke.yaml").read_text()), "task": path
        }),
        planted("a benchmark that imports", BENCH, _bench_of),
    )  # fmt: skip


def place_cases() -> tuple[Case, ...]:
    """Paths that hold no config."""

    def place(name: str, make: Callable[[Path], object], words: str, *, at: str = "own.yaml") -> Case:
        def prepare(folder: Path) -> Path:
            make(folder / at)
            return folder / at

        return Case(f"yaml: {name}", prepare, TRAIN, words)

    return (
        place("nothing", lambda path: None, ""),
        place("a folder", Path.mkdir, ""),
        place("a pipe", os.mkfifo, "no plain file"),
        place("a link to itself", lambda path: path.symlink_to(path), ""),
        place("a name of 5,000 characters", lambda path: None, "", at="n" * 5000 + ".yaml"),
        place("a device without end", lambda path: path.symlink_to("/dev/zero"), "no plain file"),
    )


def cases() -> tuple[Case, ...]:
    """The table."""
    return (*text_cases(), *config_cases(), *task_cases(), *place_cases())


def _set(*keys_and_value: Any) -> Callable[[dict[str, Any]], None]:
    *parents, last, value = keys_and_value

    def change(tree: dict[str, Any]) -> None:
        for key in parents:
            tree = tree.setdefault(key, {})
        tree[last] = value

    return change


def _bench_of(path: str) -> dict[str, Any]:
    tree = yaml.safe_load((configs_dir() / "ope-bench/smoke.yaml").read_text())
    tree["tasks"]["pendulum"]["task"] = path
    return tree
