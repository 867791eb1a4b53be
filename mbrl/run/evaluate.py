"""The stage that evaluates a policy in a simulator."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.run.config import EvaluationConfig, resolve
from mbrl.run.files import hash_file
from mbrl.run.policies import StoredPolicy, open_policy
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey


def evaluate_stage(
    policy_path: Path,
    workspace: Workspace,
    *,
    task: TaskSpec | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    video: Path | None = None,
) -> RunFolder:
    """Evaluates the last policy of a run, or any policy file, in the simulator.

    Args:
        policy_path: folder of a finished training, or a policy file.
        workspace: where the result goes.
        task: replaces the one that the policy was made for.
        episodes: how many; None takes what the run's config says.
        seed: of starts and noise; None likewise.
        video: `.mp4` or `.gif` of the first episode; evaluates again even if that was done.

    Raises:
        ConfigError: there is no policy, or its task is unknown or has no simulator.
    """
    stored, defaults = open_policy(policy_path), evaluation_defaults(policy_path)
    episodes = defaults.episodes if episodes is None else episodes
    seed = defaults.seed if seed is None else seed
    task = task or policy_task(stored)
    identity = {
        "policy": hash_file(stored.path),
        "task": task.model_dump(mode="json"),
        "episodes": episodes,
    }
    facts = {"policy": str(stored.path), "policy_facts": dict(stored.facts)}
    label = str(stored.facts.get("algorithm", stored.path.stem))
    place = str(stored.facts.get("dataset") or task.name)

    def work(_: StageWork) -> Mapping[str, Any]:
        rng, clock = RngStreams(seed), time.perf_counter
        result = evaluate(task, stored.policy, episodes=episodes, rng=rng, video=video, clock=clock)
        return {"algorithm": label, **result.to_json(), **facts}

    stage = Stage(
        key=StageKey("evaluate", place, f"{label}-s{stored.facts.get('seed', 0)}", seed, identity),
        config={"task": task.name, "episodes": episodes, "seed": seed},
        facts=facts,
        work=work,
    )
    return perform(stage, workspace, anew=video is not None)


def evaluation_defaults(path: Path) -> EvaluationConfig:
    """What the config of a run says of the judgement of its policy."""
    file = path / "config.yaml"
    return resolve(file).run.evaluation if file.is_file() else EvaluationConfig()


def policy_task(stored: StoredPolicy) -> TaskSpec:
    """The task that a policy was trained for.

    Raises:
        ConfigError: it has no simulator.
    """
    name = stored.facts.get("task")
    if name is None:
        raise ConfigError(
            f"The policy {stored.path} was trained on logs of a task without a simulator, so it cannot be "
            "evaluated in one. Remedy: give --task with a task that has a simulator, if there is one."
        )
    return load_task(str(name))
