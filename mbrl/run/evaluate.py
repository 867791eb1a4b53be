"""The stage that evaluates a policy in a simulator."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import TaskSpec, load_named_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.run.config import EvaluationConfig, resolve
from mbrl.run.policies import StoredPolicy
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey


def evaluate_stage(
    stored: StoredPolicy,
    workspace: Workspace,
    *,
    task: TaskSpec | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    video: Path | None = None,
) -> RunFolder:
    """Evaluates a policy in the simulator.

    Args:
        stored: the policy (`open_policy` reads that of a training).
        workspace: where the result goes.
        task: replaces the one that the policy was made for.
        episodes: how many; None takes what the config of its training says.
        seed: of starts and noise; None likewise.
        video: `.mp4` or `.gif` of the first episode; evaluates again even if that was done.

    Raises:
        ConfigError: the policy's task is unknown or has no simulator.
    """
    defaults = evaluation_defaults(stored)
    episodes = defaults.episodes if episodes is None else episodes
    seed = defaults.seed if seed is None else seed
    task = task or policy_task(stored)
    identity = {"policy": stored.content, "task": task.model_dump(mode="json"), "episodes": episodes}
    facts = {"policy": stored.source, "policy_facts": dict(stored.facts)}
    place = str(stored.facts.get("dataset") or task.name)

    def work(_: StageWork) -> Mapping[str, Any]:
        rng, clock = RngStreams(seed), time.perf_counter
        policy = stored.on_frames(task.space)
        result = evaluate(task, policy, episodes=episodes, rng=rng, video=video, clock=clock)
        return {"algorithm": stored.label, **result.to_json(), **facts}

    stage = Stage(
        key=StageKey("evaluate", place, f"{stored.label}-s{stored.seed}", seed, identity),
        config={"task": task.name, "episodes": episodes, "seed": seed},
        facts=facts,
        work=work,
    )
    return perform(stage, workspace, anew=video is not None)


def evaluation_defaults(stored: StoredPolicy) -> EvaluationConfig:
    """What the config of a policy's training says of the judgement of its policy."""
    if stored.training is None:
        return EvaluationConfig()
    return resolve(stored.training / "config.yaml").run.evaluation


def policy_task(stored: StoredPolicy) -> TaskSpec:
    """The task that a policy was trained for.

    Raises:
        ConfigError: it has no simulator, or it is none of the shipped ones.
    """
    name = stored.facts.get("task")
    if name is None:
        raise ConfigError(
            f"The policy {stored.source} was trained on logs of a task without a simulator, so it cannot be "
            "evaluated in one. Remedy: judge it by the log, with mbrl ope RUN --dataset LOG; or give --task "
            "with a task that has a simulator, if there is one."
        )
    known = stored.facts.get("task_hash")
    return load_named_task(
        str(name), source=f"The policy {stored.source}", content_hash=None if known is None else str(known)
    )
