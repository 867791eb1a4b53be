"""Evaluation of a policy in its simulator."""

import itertools

from mbrl.bench.registry import ROWS, BenchRow, Modes, PeerMode
from mbrl.bench.workload import TASK, Workload
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import load_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.nets.actors import ActorSpec, DeterministicActor
from mbrl.nets.normaliser import Normaliser

_HIDDEN = (256, 256)


def evaluation_modes(workload: Workload) -> Modes:
    """`evaluate`: whole episodes, several simulators side by side."""
    task = load_task(TASK)
    rng = RngStreams(workload.seed)
    actor = DeterministicActor(
        ActorSpec("deterministic", task.space, _HIDDEN), Normaliser.identity(task.obs_dim), rng.at("policy")
    )
    runs = itertools.count()

    def run() -> int:
        streams = rng.child(f"evaluation/{next(runs)}")
        return evaluate(task, actor, episodes=workload.episodes, rng=streams).environment_steps

    return {"evaluate": run}


ROWS.register("evaluation", f"Simulator steps of an evaluation in the task {TASK}.")(
    BenchRow(
        unit="steps",
        build=evaluation_modes,
        has_device=False,
        peers=(
            PeerMode(
                "gymnasium",
                "evaluation",
                "loop",
                against="evaluate",
                target=1.8,
                options={"hidden": _HIDDEN, "env_id": load_task(TASK).env_id},
                needs_own_python=True,
            ),
        ),
    )
)
