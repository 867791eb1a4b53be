"""Estimated gains of actions held against true ones: in a simulator where there is one, else in the log."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import TaskSpec
from mbrl.evaluation.branches import branch_returns, travel
from mbrl.planning.base import Hints
from mbrl.planning.improvement.audit import PlanAudit, audit_row, gain_estimates
from mbrl.planning.improvement.candidates import draw_candidates
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.run.files import read_record, write_json
from mbrl.run.inputs import manifest_facts, reward_identity
from mbrl.run.plan.basis import PlanBasis
from mbrl.run.plan.config import PlanConfig
from mbrl.run.plan.problem import make_plan_problem
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunFolder, StageKey

AUDIT_FILE: Final = "audit.json"
_NEIGHBOURS: Final = 10


class AuditConfig(BaseModel):
    """What is held against what.

    Attributes:
        horizons: h, steps of the policy in the model before the critic's value, or nothing, stands for the
            rest.
        states: of the policy's road in the simulator, or of held-out episodes.
        candidates: near the policy's action, by the deviations of logged actions, of each state.
        radius: of the widest of them, see `RolloutPlannerConfig`.
        true_steps: that a branch is followed in the simulator.
        episodes: of the policy's road.
        lcb_coef: deviations over members that the lower bounds subtract.
        seed: of everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizons: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = (1, 5, 25, 100, 200)
    states: Annotated[int, Field(ge=5, le=100_000)] = 40
    candidates: Annotated[int, Field(ge=1, le=1000)] = 9
    radius: Annotated[float, Field(gt=0, le=10)] = 1.0
    true_steps: Annotated[int, Field(ge=1, le=100_000)] = 250
    episodes: Annotated[int, Field(ge=1, le=10_000)] = 5
    lcb_coef: Annotated[float, Field(ge=0, le=100)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class _Asked(NamedTuple):
    """States `b` with candidates `n`, and what these truly gain."""

    obs: Tensor
    actions: Tensor  # `[b, 1 + n, act_dim]` in [-1, 1], the policy's own first
    true: NDArray[np.float64]  # `[b, n]`


def audit_stage(
    basis: PlanBasis,
    config: PlanConfig,
    audit: AuditConfig,
    workspace: Workspace,
    *,
    task: TaskSpec | None = None,
) -> RunFolder:
    """Estimates and measures gains around a trained policy, or finds the result of before.

    Args:
        basis: the run.
        config: of a planner: its critics, uncertainty and end of episodes; its gate is not asked.
        audit: what is asked.
        workspace: where the result goes.
        task: with a simulator, where true gains are measured; None takes logged returns.

    Raises:
        ConfigError: actions are choices.
    """
    if basis.box is None:
        raise ConfigError("An audit draws actions nearby: it takes continuous actions.")
    settings = {key: value for key, value in config.tree().items() if key not in {"gate", "milliseconds"}}
    identity = {
        "audit": audit.model_dump(mode="json"),
        "plan": settings,
        "policy": basis.policy_hash,
        "dynamics": basis.dynamics_hash,
        "dataset": basis.dataset.content_hash,
        "task": None if task is None else task.model_dump(mode="json"),
        **reward_identity(basis.resolved.run),
    }

    def work(work: StageWork) -> Mapping[str, Any]:
        problem, _, _ = make_plan_problem(basis, config, workspace)
        work.progress.message("True gains: " + ("the simulator." if task is not None else "logged returns."))
        asked = _logged(basis, problem, audit) if task is None else _simulated(basis, problem, audit, task)
        found = _audit(basis, problem, audit, asked, truth="logged returns" if task is None else "simulator")
        values = found.model_dump(mode="json")
        write_json(work.path / AUDIT_FILE, values)
        return values

    stage = Stage(
        key=StageKey("audit_plans", basis.dataset.info.name, basis.label, audit.seed, identity),
        config=identity,
        facts=manifest_facts(basis.resolved.run, basis.dataset),
        work=work,
        results=(AUDIT_FILE,),
    )
    return perform(stage, workspace)


def load_audit(run: RunFolder) -> PlanAudit:
    """What a finished stage found.

    Raises:
        FileError: its file is damaged.
    """
    return read_record(run.path / AUDIT_FILE, PlanAudit)


def _simulated(basis: PlanBasis, problem: PlanningProblem, audit: AuditConfig, task: TaskSpec) -> _Asked:
    """States of the policy's road, and what candidates near its action truly gain there."""
    assert basis.box is not None
    rng, policy = RngStreams(audit.seed), basis.stored.policy
    road = travel(task, policy, rng=rng, episodes=audit.episodes, states=audit.states)
    obs = torch.from_numpy(road.obs).to(problem.dtype)
    candidates = draw_candidates(
        problem,
        obs,
        hints=Hints(),
        noise=RowNoise.draw(len(obs), rng.at("candidates")),
        draws=audit.candidates,
        clone_draws=0,
        radius=audit.radius,
    )
    raw = basis.box.unscale(candidates.action).to(torch.float32).numpy()
    returns = branch_returns(task, policy, road, raw, rng=rng, horizon=audit.true_steps)
    return _Asked(obs, candidates.action, returns[:, 1:] - returns[:, :1])


def _logged(basis: PlanBasis, problem: PlanningProblem, audit: AuditConfig) -> _Asked:
    """Held-out logged actions, and what their returns to go exceed those of neighbouring states by."""
    assert basis.box is not None
    rng, rows = RngStreams(audit.seed), basis.split.holdout.transitions()
    to_go = _returns_to_go(rows.reward, rows.episode, basis.discount)
    scaled = basis.box.scale(torch.tensor(rows.action)).clamp(-1.0, 1.0)
    chosen = torch.randperm(len(rows), generator=rng.at("states"))[: audit.states].sort().values.numpy()
    baseline = _neighbours(rows.observation, rows.episode, to_go, chosen)
    obs = torch.tensor(rows.observation[chosen]).to(problem.dtype)
    action = torch.stack((problem.prior.act(obs), scaled[chosen].to(problem.dtype)), 1)
    return _Asked(obs, action, (to_go[chosen] - baseline)[:, None])


def _returns_to_go(
    reward: NDArray[np.float32], episode: NDArray[np.int64], discount: float
) -> NDArray[np.float64]:
    """`[n]`, discounted, within episodes; rows stand in order."""
    found = np.zeros(len(reward))
    following = 0.0
    for index in range(len(reward) - 1, -1, -1):
        is_last = index + 1 == len(reward) or episode[index + 1] != episode[index]
        following = float(reward[index]) + (0.0 if is_last else discount * following)
        found[index] = following
    return found


def _neighbours(
    obs: NDArray[np.float32],
    episode: NDArray[np.int64],
    to_go: NDArray[np.float64],
    chosen: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean return to go of the nearest states of other episodes: what the behaviour is worth thereabouts."""
    scale = np.maximum(obs.std(0), 1e-12)
    points, found = obs / scale, np.zeros(len(chosen))
    for place, row in enumerate(chosen):
        others = np.flatnonzero(episode != episode[row])
        if len(others) == 0:
            raise ConfigError(
                "Logged returns tell of gains only with two held-out episodes or more. Remedy: a simulator "
                "(--task), or a larger dynamics.holdout_fraction."
            )
        distance = ((points[others] - points[row]) ** 2).sum(1)
        found[place] = to_go[others[np.argsort(distance)[:_NEIGHBOURS]]].mean()
    return found


def _audit(
    basis: PlanBasis, problem: PlanningProblem, audit: AuditConfig, asked: _Asked, *, truth: str
) -> PlanAudit:
    rng, count = np.random.default_rng(audit.seed), asked.true.shape[1]
    estimates = gain_estimates(
        problem,
        asked.obs,
        asked.actions,
        horizons=audit.horizons,
        lcb_coef=audit.lcb_coef,
        noise=RowNoise.draw(len(asked.obs), RngStreams(audit.seed).at("particles")),
    )
    rows = tuple(audit_row(name, estimated, asked.true, rng) for name, estimated in estimates)
    return PlanAudit(
        policy=basis.label,
        truth=truth,
        true_steps=audit.true_steps if truth == "simulator" else 0,
        states=len(asked.obs),
        candidates=count,
        spread=float(asked.true.std()),
        best=None if count < 2 else float(np.maximum(asked.true.max(1), 0.0).mean()),
        rows=rows,
    )
