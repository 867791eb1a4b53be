"""Plans in a learned ensemble: simulations a second at one state and at many."""

import dataclasses
from collections.abc import Callable

import torch

from mbrl.bench.flops import forward_flops
from mbrl.bench.registry import ROWS, BenchRow, Modes
from mbrl.bench.rows.dynamics import make_ensemble, member_sizes
from mbrl.bench.workload import Workload
from mbrl.core.device import on_device
from mbrl.core.rng import RngStreams
from mbrl.dynamics.termination import NeverTerminates
from mbrl.learners.critics import PolicyValue
from mbrl.nets.action_box import ActionBox
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.normaliser import Normaliser
from mbrl.planning.base import Budget
from mbrl.planning.choice import PlannerChoice
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.problem.values import CriticLeaf

_HIDDEN = (256, 256)
_CRITICS = 2
_DISCOUNT = 0.99
_MANY = 256


def planning_problem(workload: Workload, pessimism: Pessimism) -> PlanningProblem:
    """Random networks in the usual sizes: the elites, a Gaussian policy, two critics."""
    rng, space = RngStreams(workload.seed), workload.space
    normaliser = Normaliser.identity(workload.obs_dim)
    policy = TanhGaussianActor(
        ActorSpec("tanh_gaussian", space, _HIDDEN), normaliser, rng.at("policy")
    ).requires_grad_(requires_grad=False)
    critic = CriticEnsemble(_CRITICS, space, _HIDDEN, normaliser, generator=rng.at("critic"))
    box = ActionBox(space)
    prior = PolicyPrior(policy, box)
    leaf = CriticLeaf(PolicyValue(policy, critic.requires_grad_(requires_grad=False)), prior, box)
    model = make_ensemble(workload, workload.elites).requires_grad_(requires_grad=False)
    step = LearnedStep(model, NeverTerminates(), box)
    return PlanningProblem(step, prior, leaf, workload.obs_dim, _DISCOUNT, pessimism=pessimism)


@dataclasses.dataclass(frozen=True, slots=True)
class PlannerRow:
    """One planner at one budget.

    Attributes:
        choice: the planner.
        sims: of a plan.
        pessimism: what uncertainty costs.
    """

    choice: PlannerChoice
    sims: int
    pessimism: Pessimism

    def modes(self, workload: Workload) -> Modes:
        """`one`: a state at a time, as on a robot; `many`: 256 states together."""
        problem = planning_problem(workload, self.pessimism)
        parts = (problem, workload.log().observation[:_MANY], RowNoise(torch.arange(_MANY)))
        problem, states, noise = on_device(parts, workload.place)
        planner = self.choice.build(problem)

        def plan(count: int) -> Callable[[], int]:
            def run() -> int:
                budget = Budget(self.sims)
                result = planner.plan(states[:count], budget=budget, noise=noise.rows(slice(count)))
                return count * result.stats.sims

            return run

        return {"one": plan(1), "many": plan(_MANY)}


def _leaf_flops(workload: Workload) -> float:
    """The policy and the critics at one state."""
    policy = (workload.obs_dim, *_HIDDEN, 2 * workload.act_dim)
    critic = (workload.obs_dim + workload.act_dim, *_HIDDEN, 1)
    return forward_flops(1, policy) + forward_flops(1, critic, members=_CRITICS)


def search_flops(workload: Workload) -> float:
    """A simulation of a member forest: every elite steps, and is valued where it arrives."""
    step = forward_flops(1, member_sizes(workload), members=workload.elites)
    return step + workload.elites * _leaf_flops(workload)


def trajectory_flops(workload: Workload, *, horizon: int) -> float:
    """A plan in one member: `horizon` steps, and the value at the end."""
    return horizon * forward_flops(1, member_sizes(workload)) + _leaf_flops(workload)


_SEARCH = PlannerRow(PlannerChoice.parse("sampled_gumbel"), 32, Pessimism(lcb_coef=1.0))
_MPPI_HORIZON, _ICEM_HORIZON = 5, 12
_MPPI = PlannerRow(
    PlannerChoice.parse({"name": "mppi", "particles": 1, "horizon": _MPPI_HORIZON}), 736, Pessimism()
)
_ICEM = PlannerRow(
    PlannerChoice.parse({"name": "icem", "particles": 1, "horizon": _ICEM_HORIZON}), 116, Pessimism()
)

ROWS.register("plan_gumbel", "Simulations of a Gumbel search over sampled actions, 32 a plan, every elite.")(
    BenchRow(unit="simulations", build=_SEARCH.modes, flops=search_flops)
)
ROWS.register("plan_mppi", "Plans that MPPI scores, 736 of 5 steps for an action, one elite each.")(
    BenchRow(
        unit="plans",
        build=_MPPI.modes,
        flops=lambda workload: trajectory_flops(workload, horizon=_MPPI_HORIZON),
    )
)
ROWS.register("plan_icem", "Plans that iCEM scores, 116 of 12 steps for an action, one elite each.")(
    BenchRow(
        unit="plans",
        build=_ICEM.modes,
        flops=lambda workload: trajectory_flops(workload, horizon=_ICEM_HORIZON),
    )
)
