"""Planning on top of a trained run as a stage: evaluated beside the policy alone, on common starts."""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.device import CPU, clock_on
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import TaskSpec
from mbrl.evaluation.evaluator import Evaluation, evaluate
from mbrl.evaluation.statistics import bootstrap_interval
from mbrl.planning.base import PLANNERS, Budget, Planner, PlanResult
from mbrl.planning.certificate import Certificate, certify
from mbrl.planning.improvement.gate import Gate, GatedPlanner
from mbrl.planning.on_device import PlannerOnDevice
from mbrl.planning.policy import PlannerPolicy
from mbrl.planning.problem.calibration import PlannerCalibration
from mbrl.planning.problem.problem import Limits, PlanningProblem
from mbrl.run.evaluate import evaluate_stage, evaluation_defaults, policy_task
from mbrl.run.inputs import manifest_facts, reward_identity
from mbrl.run.plan.basis import PlanBasis
from mbrl.run.plan.config import PlanConfig
from mbrl.run.plan.gate import gate_facts, gate_stage
from mbrl.run.plan.limits import logged_limits, plan_limits
from mbrl.run.plan.problem import make_plan_problem
from mbrl.run.records import EvaluationSummary
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

_SIMULATORS: Final = 10
_WARM_UP_CALLS: Final = 5
CALL_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""Of the milliseconds of a call."""


@dataclasses.dataclass(frozen=True, slots=True)
class ReadyPlanner:
    """A planner on top of a run.

    Attributes:
        planner: plans in the run's model.
        calibration: the cost of uncertainty.
        critic: whose values stand at leaves: `learner` or `fqe`.
        is_critic_converged: whether such a fit settled; None for a learner's.
        gate: which of its gains count; None where all do.
    """

    planner: Planner
    calibration: PlannerCalibration
    critic: str
    is_critic_converged: bool | None
    gate: Gate | None = None


class PlanLog:
    """What plans cost and how unsure they were, call by call.

    Args:
        limits: that plans have to keep to; None for none.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits
        self._calls: list[tuple[float, ...]] = []

    def note(self, result: PlanResult) -> None:
        """Adds a call."""
        stats, rows = result.stats, len(result.action)
        uncertainty = result.uncertainty.double()
        uncertainty = uncertainty[uncertainty.isfinite()]
        self._calls.append(
            (
                rows,
                stats.milliseconds,
                float(stats.is_fallback.sum()),
                float(uncertainty.sum()),
                len(uncertainty),
                rows * stats.sims,
                stats.model_rows,
                stats.model_calls,
                stats.bad_rows,
                *plan_limits(result, self._limits),
            )
        )

    def clear(self) -> None:
        """Forgets what a warm-up left."""
        self._calls.clear()

    def summary(self, budget: Budget) -> dict[str, Any]:
        """Rates, milliseconds of a call, and shares; None where nothing can be said."""
        if not self._calls:
            return {}
        columns = self._columns()
        rows, ms, fallback, uncertainty, known, sims, model_rows, model_calls, bad = columns[:9]
        imagined, broken, cost, beyond = columns[9:].sum(1)
        limit, seconds = budget.milliseconds, float(ms.sum()) / 1000.0
        return {
            "calls": len(ms),
            "plans": int(rows.sum()),
            "batch": float(rows.mean()),
            "plans_per_second": _ratio(rows.sum(), seconds),
            "sims_per_second": _ratio(sims.sum(), seconds),
            "milliseconds": {name: float(np.quantile(ms, q)) for name, q in CALL_QUANTILES.items()},
            "deadline_misses": None if limit is None else int((ms > limit).sum()),
            "fallback_share": float(fallback.sum() / rows.sum()),
            "sims_per_plan": float(sims.sum() / rows.sum()),
            "model_rows_per_plan": float(model_rows.sum() / rows.sum()),
            "model_calls_per_call": float(model_calls.mean()),
            "bad_rows": int(bad.sum()),
            "uncertainty": _ratio(uncertainty.sum(), known.sum()),
            "broken_share": _ratio(broken, imagined),
            "cost_per_plan": _ratio(cost, imagined),
            "beyond_limits": _ratio(beyond, imagined),
        }

    def _columns(self) -> NDArray[np.float64]:
        return np.array(self._calls, np.float64).T


def make_planner(basis: PlanBasis, config: PlanConfig, workspace: Workspace) -> ReadyPlanner:
    """Builds the planner that a config names, on the run's model, critics and calibration, behind its gate.

    Raises:
        ConfigError: it does not plan the task's kind of actions.
    """
    is_discrete = basis.box is None
    if not _plans(config.planner.name, is_discrete=is_discrete):
        kind = "finitely many" if is_discrete else "continuous"
        legal = [name for name in PLANNERS.names() if _plans(name, is_discrete=is_discrete)]
        raise ConfigError(
            f"The planner {config.planner.name!r} does not plan {kind} actions. "
            f"Remedy: use one of {', '.join(legal)}."
        )
    problem, calibration, leaf = make_plan_problem(basis, config, workspace)
    planner, gate = _build(config, problem, workspace.device), None
    if config.gate.by == "judge":
        gate = gate_stage(basis, config, planner, leaf.identity, workspace)
        planner = GatedPlanner(planner, gate)
    return ReadyPlanner(planner, calibration, leaf.source, leaf.is_converged, gate)


def _build(config: PlanConfig, problem: PlanningProblem, device: torch.device) -> Planner:
    """The planner itself; what is asked of it elsewhere, its gate and certificate, stays on the host."""
    clock = clock_on(device)
    if device == CPU:
        return config.planner.build(problem, clock)
    return PlannerOnDevice(problem, device, lambda there: config.planner.build(there, clock))


def _plans(name: str, *, is_discrete: bool) -> bool:
    entry = PLANNERS.get(name)
    return entry.is_discrete if is_discrete else entry.is_continuous


def plan_stage(
    basis: PlanBasis,
    config: PlanConfig,
    workspace: Workspace,
    *,
    task: TaskSpec | None = None,
    episodes: int | None = None,
    seed: int | None = None,
) -> RunFolder:
    """Evaluates a planner on top of a trained run and the policy alone, or finds the result of before.

    Args:
        basis: of a finished training (`open_basis`).
        config: of the planner.
        workspace: where results go.
        task: replaces the one that the policy was made for.
        episodes: how many; None takes what the run's config says.
        seed: of starts and noise; None likewise.

    Raises:
        ConfigError: the task has no simulator, or the planner does not fit.
    """
    defaults = evaluation_defaults(basis.stored)
    episodes = defaults.episodes if episodes is None else episodes
    seed = defaults.seed if seed is None else seed
    task = task or policy_task(basis.stored)
    identity = {
        "plan": config.tree(),
        "policy": basis.policy_hash,
        "dynamics": basis.dynamics_hash,
        "dataset": basis.dataset.content_hash,
        "task": task.model_dump(mode="json"),
        "episodes": episodes,
        **reward_identity(basis.resolved.run),
    }
    label = f"{config.planner.name}-{basis.label}-s{basis.resolved.run.seed}"

    def work(work: StageWork) -> Mapping[str, Any]:
        alone = evaluate_stage(basis.stored, workspace, task=task, episodes=episodes, seed=seed)
        ready = make_planner(basis, config, workspace)
        work.restart_clock()  # what the planner stands on are stages of their own
        found = _evaluate(basis, config, ready, task=task, episodes=episodes, rng=RngStreams(seed))
        return _summarise(basis, config, ready, alone.summary(EvaluationSummary), found, RngStreams(seed))

    stage = Stage(
        key=StageKey("plan", basis.dataset.info.name, label, seed, identity),
        config=config.tree(),
        facts={**manifest_facts(basis.resolved.run, basis.dataset), "run": str(basis.run.path)},
        work=work,
    )
    return perform(stage, workspace)


def _summarise(
    basis: PlanBasis,
    config: PlanConfig,
    ready: ReadyPlanner,
    alone: Mapping[str, Any],
    found: tuple[Evaluation, dict[str, Any]],
    rng: RngStreams,
) -> Mapping[str, Any]:
    evaluation, plans = found
    certificate = certify_basis(basis, config, ready.planner)
    return {
        "algorithm": basis.label,
        "planner": config.planner.name,
        "config": config.tree(),
        **evaluation.to_json(),
        **_beside(alone, evaluation, rng),
        "plans": plans,
        "limits": logged_limits(basis, config),
        "critic": ready.critic,
        "critic_converged": ready.is_critic_converged,
        "calibration": ready.calibration.model_dump(mode="json"),
        "certificate": None if certificate is None else certificate.to_json(),
        "gate": None if ready.gate is None else gate_facts(ready.gate),
        "run": str(basis.run.path),
    }


def _evaluate(
    basis: PlanBasis,
    config: PlanConfig,
    ready: ReadyPlanner,
    task: TaskSpec,
    *,
    episodes: int,
    rng: RngStreams,
) -> tuple[Evaluation, dict[str, Any]]:
    """Episodes of the planner, and what its plans cost; plans that nobody counts warm it up before."""
    log = PlanLog(ready.planner.problem.limits)
    policy = PlannerPolicy(ready.planner, basis.box, config.budget, is_warm=config.is_warm, on_plan=log.note)
    num_envs = _SIMULATORS if config.milliseconds is None else 1
    for _ in range(_WARM_UP_CALLS):
        policy.act(torch.tensor(basis.dataset.episodes[0].observations[:1]))
    log.clear()
    evaluation = evaluate(
        task, policy, episodes=episodes, rng=rng, num_envs=num_envs, clock=time.perf_counter
    )
    return evaluation, log.summary(config.budget)


def _beside(alone: Mapping[str, Any], planned: Evaluation, rng: RngStreams) -> dict[str, Any]:
    """The policy alone, and the gain over it, episode by episode from common starts."""
    gains = np.subtract(planned.episode_returns, alone["episode_returns"])
    generator = np.random.default_rng(rng.integer("bootstrap"))
    return {
        "policy_returns": list(alone["episode_returns"]),
        "policy_interval": alone["return_interval"],
        "gain_interval": bootstrap_interval(gains, generator=generator).to_json(),
    }


def certify_basis(basis: PlanBasis, config: PlanConfig, planner: Planner) -> Certificate | None:
    """The planner's gain over the policy on held-out states, in the model's opinion; None where not asked."""
    rows = basis.split.holdout.transitions()
    count = min(config.certificate_states, len(rows))
    if count == 0:
        return None
    rng = RngStreams(basis.resolved.run.seed).child("certificate")
    chosen = torch.randperm(len(rows), generator=rng.at("states"))[:count].numpy()
    return certify(
        planner,
        torch.tensor(rows.observation[chosen]),
        torch.tensor(rows.unit[chosen]),
        budget=Budget(config.sims or config.certificate_sims),
        generator=rng.at("draws"),
    )


def _ratio(total: float, count: float) -> float | None:
    """None where nothing was counted."""
    return float(total / count) if count > 0 and math.isfinite(count) else None
