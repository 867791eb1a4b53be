"""Plans in the ensemble, one state at a time and 64 at once, pessimistic over members."""

import itertools
from typing import Any

import torch

from mbrl.bench.flops import forward_flops
from mbrl.bench.registry import ROWS, BenchRow, Modes
from mbrl.bench.rows.dynamics import bench_ensemble, member_sizes
from mbrl.bench.workload import Workload
from mbrl.core.rng import RngStreams
from mbrl.dynamics.termination import NeverTerminates
from mbrl.learners.critics import PolicyValue
from mbrl.nets.action_box import ActionBox
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.normaliser import Normaliser
from mbrl.planning.base import PLANNERS, Budget
from mbrl.planning.learned import CriticLeaf, LearnedStep, make_prior
from mbrl.planning.mppi import MPPIConfig
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem import Pessimism, PlanningProblem

_HIDDEN = (256, 256)
_CRITICS = 2
_SIMS = {"mppi": 736, "icem": 116, "sampled_gumbel": 32}
"""Trajectories, or simulations, of each planner at its defaults."""
_STATES = 64


def _problem(workload: Workload) -> PlanningProblem:
    rng, space = RngStreams(workload.seed), workload.space
    model = bench_ensemble(workload, workload.elites).requires_grad_(requires_grad=False)
    normaliser = Normaliser.identity(workload.obs_dim)
    policy = TanhGaussianActor(ActorSpec("tanh_gaussian", space, _HIDDEN), normaliser, rng.at("policy"))
    critic = CriticEnsemble(_CRITICS, space, _HIDDEN, normaliser, generator=rng.at("critic"))
    prior, box = make_prior(policy, space), ActionBox(space)
    return PlanningProblem(
        LearnedStep(model, NeverTerminates(), box),
        prior,
        CriticLeaf(PolicyValue(policy, critic), prior, box),
        workload.obs_dim,
        discount=0.99,
        pessimism=Pessimism(lcb_coef=1.0),
    )


def planning_modes(workload: Workload, name: str, *, states: int) -> Modes:
    """`plan`: plans for different states each time, cold."""
    entry = PLANNERS.get(name)
    config: Any = entry.config()
    planner = entry.build(_problem(workload), config, None)
    rng, calls = RngStreams(workload.seed), itertools.count()
    log = workload.log().observation

    def plan() -> int:
        generator = rng.at("plan", next(calls))
        obs = log[torch.randint(len(log), (states,), generator=generator)]
        planner.plan(obs, budget=Budget(sims=_SIMS[name]), noise=RowNoise.draw(states, generator))
        return states

    return {"plan": plan}


def mppi_flops(workload: Workload) -> float:
    """One plan: the opening, every scored plan and the mean, through members to the critics.

    The opening has the particles and the policy's draws and asks the policy at each step; leaves ask the
    policy, then the critics.
    """
    config, members = MPPIConfig(), workload.elites
    opening = members + config.policy_plans - 1
    rows = opening + members * (_SIMS["mppi"] + 1)
    policy = (workload.obs_dim, *_HIDDEN, 2 * workload.act_dim)
    critic = (workload.obs_dim + workload.act_dim, *_HIDDEN, 1)
    steps = forward_flops(config.horizon * rows, member_sizes(workload))
    acting = forward_flops(config.horizon * opening + rows, policy)
    return steps + acting + forward_flops(rows, critic, members=_CRITICS)


def _register(name: str, *, states: int) -> None:
    suffix = "" if states == 1 else f"_{states}"
    at = "one state" if states == 1 else f"{states} states together"
    ROWS.register(f"plan_{name}{suffix}", f"Plans of {name} at its defaults for {at}.")(
        BenchRow(
            unit="plans",
            build=lambda workload: planning_modes(workload, name, states=states),
            flops=mppi_flops if name == "mppi" else None,
            share_target=0.4 if name == "mppi" else None,
        )
    )


for _name, _count in itertools.product(_SIMS, (1, _STATES)):
    _register(_name, states=_count)
