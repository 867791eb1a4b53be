"""The gate of a planner as a stage: which of its gains are confirmed by a model that it does not plan in."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import torch

from mbrl.core.protocols import TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.planning.base import Budget, Planner
from mbrl.planning.improvement.gate import Gate, calibrate_gate
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.problem import Pessimism
from mbrl.run.files import read_record, write_json
from mbrl.run.fit import fit_judge_stage
from mbrl.run.inputs import known_termination, manifest_facts, reward_identity
from mbrl.run.plan.basis import PlanBasis
from mbrl.run.plan.config import PlanConfig
from mbrl.run.plan.limits import limit_plans
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import StageKey

GATE_FILE: Final = "gate.json"


def gate_stage(
    basis: PlanBasis, config: PlanConfig, planner: Planner, critic: str, workspace: Workspace
) -> Gate:
    """Asks a judge which of the planner's gains are real, or reads what it said before.

    Args:
        basis: the run that is planned on.
        config: of the planner.
        planner: without a gate.
        critic: identity of the values at its leaves.
        workspace: where the judge is, or will be.
    """
    run = basis.resolved.run
    fitted, judge = fit_judge_stage(basis.resolved, basis.dataset, workspace, number=0)
    settings = config.tree()
    # How long a robot gives it for a plan, and what is reported besides, change no estimated gain.
    for key in ("milliseconds", "certificate_states", "is_warm"):
        settings.pop(key)
    identity = {
        "plan": settings,
        "policy": basis.policy_hash,
        "dynamics": basis.dynamics_hash,
        "critic": critic,
        "judge": str(judge.manifest()["hash"]),
        "discount": basis.discount,
        **reward_identity(run),
    }

    def work(work: StageWork) -> Mapping[str, Any]:
        rows = basis.split.holdout.transitions()
        rng = RngStreams(run.seed).child("gate")
        chosen = torch.randperm(len(rows), generator=rng.at("states"))[: config.gate.states].numpy()
        problem = planner.problem
        ending = _ending(basis, config, fitted)
        step = LearnedStep(fitted.model, ending, basis.box, reward=fitted.known_reward)
        found = calibrate_gate(
            planner,
            # The judge is asked for what happens, not for what it would rather not be sure of.
            limit_plans(dataclasses.replace(problem, step=step, pessimism=Pessimism()), basis, config),
            torch.tensor(rows.observation[chosen]),
            torch.tensor(rows.unit[chosen]),
            horizon=config.gate.horizon,
            budget=Budget(config.sims or config.certificate_sims),
            generator=rng.at("draws"),
        )
        values = found.model_dump(mode="json")
        write_json(work.path / GATE_FILE, values)
        return {"threshold": found.threshold, "verdict": found.verdict, "judge": str(judge.path)}

    label = f"{config.planner.name}-{basis.label}-s{run.seed}"
    stage = Stage(
        key=StageKey("calibrate_gate", basis.dataset.info.name, label, run.seed, identity),
        config=identity,
        facts=manifest_facts(run, basis.dataset),
        work=work,
        results=(GATE_FILE,),
    )
    return read_record(perform(stage, workspace).path / GATE_FILE, Gate)


def _ending(basis: PlanBasis, config: PlanConfig, fitted: FittedDynamics) -> TerminationFn:
    """A known rule, else the judge's head."""
    rule = known_termination(basis.task, basis.dataset)
    return fitted.termination if rule is None or config.termination == "learned" else rule


def gate_facts(gate: Gate) -> dict[str, Any]:
    """Plain values, with the verdict in words."""
    return {**gate.model_dump(mode="json"), "is_open": gate.is_open, "verdict": gate.verdict}
