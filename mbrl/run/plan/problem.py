"""From a trained run to what a planner plans in; held-out logs set what uncertainty costs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.data.returns import LoggedEpisodes
from mbrl.dynamics.arrays import thin
from mbrl.planning.problem.calibration import PlannerCalibration, calibrate_planner
from mbrl.planning.problem.learned import learned_problem, with_pessimism
from mbrl.planning.problem.prior import measure_action_spread
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.run.files import read_record, write_json
from mbrl.run.inputs import known_termination, manifest_facts, reward_identity
from mbrl.run.plan.basis import PlanBasis
from mbrl.run.plan.config import PlanConfig
from mbrl.run.plan.critics import LeafCritics, find_critics
from mbrl.run.plan.limits import limit_plans
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import StageKey

CALIBRATION_FILE: Final = "calibration.json"

_SPREAD_ROWS: Final = 10_000
"""Logged rows that say how far actions lie from the policy's: a deviation to within 1 %."""


def make_plan_problem(
    basis: PlanBasis, config: PlanConfig, workspace: Workspace
) -> tuple[PlanningProblem, PlannerCalibration, LeafCritics]:
    """What a planner plans in, uncertainty charged for by calibration; what is not in the store is made now.

    Raises:
        ConfigError: the task has no termination rule, or the learner no critics, and the config wants them.
    """
    leaf = find_critics(basis, config, workspace)
    problem = learned_problem(
        basis.dynamics,
        basis.stored.policy,
        leaf.critics,
        space=basis.dataset.spec,
        discount=basis.discount,
        uncertainty=config.uncertainty,
        termination=_termination(basis, config),
        value_scale=LoggedEpisodes.of(basis.split.train).discounted_return_scale(discount=basis.discount),
    )
    calibration = calibrate_stage(basis, config, problem, leaf, workspace)
    pessimism = calibration.pessimism(
        scale=config.pessimism, halts=config.halts, soft_horizon_coef=config.soft_horizon_coef
    )
    pessimism = dataclasses.replace(pessimism, critic_lcb_coef=config.critic_lcb_coef)
    problem = dataclasses.replace(problem, action_spread=_action_spread(basis, problem))
    return limit_plans(with_pessimism(problem, pessimism), basis, config), calibration, leaf


def _action_spread(basis: PlanBasis, problem: PlanningProblem) -> Tensor:
    """How far logged actions lie from the policy's; nothing of that kind where actions are choices."""
    if basis.box is None:
        return problem.action_spread
    rows = thin(basis.split.train.transitions(), _SPREAD_ROWS)
    action = basis.box.scale(torch.tensor(rows.action)).clamp(-1.0, 1.0)
    obs = torch.tensor(rows.observation, dtype=problem.dtype)
    return measure_action_spread(problem.prior, obs, action.to(problem.dtype))


def _termination(basis: PlanBasis, config: PlanConfig) -> TerminationFn | None:
    if config.termination == "learned":
        return None
    known = known_termination(basis.task, basis.dataset)
    if known is None and config.termination == "task":
        raise ConfigError(
            "termination=task needs a known termination rule, and there is none here. "
            "Remedy: declare one in the task's yaml or the log's schema, or use termination=learned."
        )
    return known


def calibrate_stage(
    basis: PlanBasis, config: PlanConfig, problem: PlanningProblem, leaf: LeafCritics, workspace: Workspace
) -> PlannerCalibration:
    """Sets the cost of uncertainty on the held-out part of the log, or reads what was set before."""
    run = basis.resolved.run
    identity = {
        "calibration": config.calibration.model_dump(mode="json"),
        "uncertainty": config.uncertainty.model_dump(mode="json"),
        "termination": config.termination,
        "dynamics": basis.dynamics_hash,
        "critic": leaf.identity,
        "policy": basis.policy_hash,
        "discount": basis.discount,
        **reward_identity(run),
    }

    def work(work: StageWork) -> Mapping[str, Any]:
        found = calibrate_planner(
            problem,
            basis.split.holdout.transitions(),
            box=basis.box,
            config=config.calibration,
            generator=RngStreams(run.seed).child("calibration").at("rows"),
        )
        values = found.model_dump(mode="json")
        write_json(work.path / CALIBRATION_FILE, values)
        return values

    stage = Stage(
        key=StageKey("calibrate_planner", basis.dataset.info.name, basis.label, run.seed, identity),
        config=identity,
        facts=manifest_facts(run, basis.dataset),
        work=work,
        results=(CALIBRATION_FILE,),
    )
    folder = perform(stage, workspace)
    return read_record(folder.path / CALIBRATION_FILE, PlannerCalibration)
