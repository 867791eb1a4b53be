"""Planners on random tasks whose best actions are known: linear-quadratic ones and tables; prints tables.

    .venv/bin/python scripts/measure/planners.py
    .venv/bin/python scripts/measure/planners.py --tasks 4  # quicker
    .venv/bin/python scripts/measure/planners.py --only budgets  # how many plans each optimiser needs for 5 %
    .venv/bin/python scripts/measure/planners.py --seed 500  # other tasks

Dynamics are normal draws, scaled to a largest eigenvalue of 0.9 (stable) or 1.1 (unstable), 1.02 in the
table of searches; two state dimensions for each action; discount 0.95. The model is exact, and so are the
values at leaves, so that the best first action is -K s at any horizon; in the table "without values" nothing
follows the horizon, and the best action is that of the finite task. The policy is 0, or has 0.8 of K.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mbrl.planning.base import PLANNERS, Budget, PlanResult
from mbrl.planning.improvement.rollout import without_leaf
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem
from tests.planning.tasks import iterate_values, random_tables, states, table_problem
from tests.planning.worlds import LQR, LinearPrior

CELLS = [(radius, act_dim) for radius in (0.9, 1.1) for act_dim in (1, 2, 3)]
NAMES = [f"{'stable' if radius < 1 else 'unstable'}, {act_dim}" for radius, act_dim in CELLS]
SIMS = {"mppi": 736, "icem": 116, "cem": 2000}
TARGET = 0.05

# Without noise all particles of a plan are alike: one gives CEM's plans at a twentieth of its time.
CEM: Mapping[str, Any] = {"particles": 1, "outcome": "mean"}
PLAIN: Mapping[str, Any] = {"refines": False}
OPTIMISERS: list[tuple[str, str, Mapping[str, Any]]] = [
    ("mppi", "defaults", {}),
    ("mppi", "refines: false", PLAIN),
    ("mppi", "preset: residual, refines: false", {**PLAIN, "preset": "residual"}),
    ("icem", "defaults", {}),
    ("icem", "refines: false", PLAIN),
    ("icem", "refines: false, horizon: 12", {**PLAIN, "horizon": 12}),
    ("cem", "defaults", CEM),
    ("cem", "refines: false", {**CEM, **PLAIN}),
    ("cem", "refines: false, horizon: 30", {**CEM, **PLAIN, "horizon": 30}),
]


@dataclasses.dataclass(frozen=True)
class Tasks:
    """Which random tasks are drawn.

    Attributes:
        size: tasks of a cell, and states of a task.
        seed: of the first task.
        has_values: whether the exact value follows the horizon; else nothing does.
    """

    size: int
    seed: int
    has_values: bool = True


def make_task(seed: int, radius: float, act_dim: int, gain: float) -> tuple[LQR, PlanningProblem]:
    """A random task and what a planner is told of it."""
    lqr = LQR.random(2 * act_dim, act_dim, seed=1000 * act_dim + seed, radius=radius)
    return lqr, dataclasses.replace(lqr.problem(), prior=LinearPrior(-gain * lqr.k, std=0.3))


def plan(
    name: str, problem: PlanningProblem, obs: Tensor, sims: int, settings: Mapping[str, Any]
) -> PlanResult:
    """Plans with fixed streams of noise."""
    entry = PLANNERS.get(name)
    planner = entry.build(problem, entry.config.model_validate(settings), None)
    return planner.plan(obs, budget=Budget(sims), noise=RowNoise(torch.arange(len(obs))))


def action_error(
    name: str, settings: Mapping[str, Any], cell: tuple[float, int], *, gain: float, sims: int, tasks: Tasks
) -> float:
    """Median over states and tasks of `|a - a*| / |a*|`."""
    horizon: int = PLANNERS.get(name).config.model_validate(settings).model_dump()["horizon"]
    errors: list[Tensor] = []
    for seed in range(tasks.seed, tasks.seed + tasks.size):
        lqr, problem = make_task(seed, *cell, gain)
        obs = lqr.states(tasks.size, seed=seed)
        best = -obs @ (lqr.k if tasks.has_values else lqr.finite_gain(horizon)).T
        if not tasks.has_values:
            problem = without_leaf(problem)
        action = plan(name, problem, obs, sims, settings).action
        errors.append((action - best).norm(dim=1) / best.norm(dim=1))
    return float(torch.cat(errors).median())


def needed_plans(
    name: str, settings: Mapping[str, Any], cell: tuple[float, int], *, gain: float, tasks: Tasks
) -> str:
    """The fewest plans that reach the target, of 1/4 to 4 times the usual number, by larger populations."""
    config = PLANNERS.get(name).config.model_validate(settings).model_dump()
    for factor in (0.25, 0.5, 1, 2, 4):
        larger = {key: max(2, int(factor * config[key])) for key in ("population", "elites")}
        sims = int(factor * SIMS[name])
        if action_error(name, {**settings, **larger}, cell, gain=gain, sims=sims, tasks=tasks) <= TARGET:
            return f"{sims:,}"
    return f"> {4 * SIMS[name]:,}"


def best_share(depth: int, settings: Mapping[str, Any], *, sims: int, tasks: Tasks) -> float:
    """How often `sampled_gumbel` takes the candidate of most `r + g V(s')`; merged ones do not count."""
    taken: list[Tensor] = []
    for act_dim in (1, 2, 3):
        for seed in range(tasks.seed, tasks.seed + tasks.size):
            lqr, problem = make_task(seed, 1.02, act_dim, 0.0)
            obs = lqr.states(tasks.size, seed=seed)
            problem = dataclasses.replace(problem, value_scale=float(lqr.value(obs).std()))
            result = plan("sampled_gumbel", problem, obs, sims, {**settings, "max_depth": depth})
            rows = obs.repeat_interleave(result.candidates.shape[1], 0)
            following, reward, *_ = lqr.formula(rows, result.candidates.flatten(0, 1), torch.zeros(len(rows)))
            worth = (reward + lqr.discount * lqr.value(following)).view(result.weights.shape)
            worth = worth.masked_fill(result.weights == 0, -torch.inf)
            chosen = (result.candidates - result.action[:, None]).abs().amax(-1).argmin(1, keepdim=True)
            taken.append(worth.gather(1, chosen)[:, 0] >= worth.amax(1) - 1e-9)
    return float(torch.cat(taken).double().mean())


def regret_share(noise: float, sims: int, rule: str, *, tasks: Tasks) -> float:
    """Regret of `gumbel` in that of random actions, on tables whose leaves are off by `noise` deviations."""
    regret = random = 0.0
    for seed in range(tasks.seed, tasks.seed + tasks.size):
        following, reward, generator = random_tables(seed)
        value, q = iterate_values(following, reward, discount=0.95)
        leaves = value + noise * torch.randn(len(value), generator=generator, dtype=value.dtype)
        problem = table_problem(following, reward, values=leaves)
        settings = {"transition": "mean", "node_value": rule}
        action = plan("gumbel", problem, states(*range(len(value))), sims, settings).action
        regret += float((value - (action * q).sum(1)).mean())
        random += float((value - q.mean(1)).mean())
    return regret / random


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """As Markdown."""
    columns = list(columns)
    sys.stdout.write(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
    for row in rows:
        sys.stdout.write(f"| {' | '.join(row)} |\n")
        sys.stdout.flush()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=8, help="random tasks of a cell, and states of a task")
    parser.add_argument("--seed", type=int, default=0, help="of the first task")
    parser.add_argument("--only", choices=("errors", "budgets", "trees"), help="one of three kinds of tables")
    arguments = parser.parse_args()
    tasks = Tasks(arguments.tasks, arguments.seed)
    torch.set_num_threads(1)
    if arguments.only in {None, "errors"}:
        print_error_table(tasks)
        print_error_table(dataclasses.replace(tasks, has_values=False))
    if arguments.only in {None, "budgets"}:
        print_budget_table(tasks)
    if arguments.only in {None, "trees"}:
        print_tree_tables(tasks)


def print_error_table(tasks: Tasks) -> None:
    """How far optimisers are from the best action at their usual numbers of plans."""
    columns = ["optimiser", "settings", "plans", "policy", *NAMES]
    print_table(
        "Median error of the action, %, by dynamics and number of actions"
        + ("" if tasks.has_values else "; without values at leaves"),
        columns,
        (
            [name, label, f"{SIMS[name]:,}", f"{gain:g} K"]
            + [
                f"{100 * action_error(name, s, cell, gain=gain, sims=SIMS[name], tasks=tasks):.1f}"
                for cell in CELLS
            ]
            for name, label, s in OPTIMISERS
            for gain in (0.0, 0.8)
        ),
    )


def print_budget_table(tasks: Tasks) -> None:
    """How many plans an error of the target takes, also with more actions than three."""
    cells = [(1.1, act_dim) for act_dim in (1, 2, 3, 4, 6)]
    print_table(
        f"Plans for a median error of {100 * TARGET:.0f} %, unstable, policy 0, by number of actions",
        ["optimiser", *(str(act_dim) for _, act_dim in cells)],
        (
            [name] + [needed_plans(name, s, cell, gain=0.0, tasks=tasks) for cell in cells]
            for name, label, s in OPTIMISERS
            if label == "defaults"
        ),
    )


def print_tree_tables(tasks: Tasks) -> None:
    """How well tree searches choose: with exact leaves by depth, with wrong ones by simulations."""
    depths = range(1, 6)
    wide = {"policy_samples": 128, "flat_samples": 64, "clone_samples": 64, "considered": 256}
    rules = (("mean", "improved"), ("max", "improved"), ("max", "value"))

    def share(depth: int, sims: int, settings: Mapping[str, Any], rule: str, ranks: str) -> str:
        found = best_share(depth, {**settings, "node_value": rule, "ranks": ranks}, sims=sims, tasks=tasks)
        return f"{100 * found:.0f}"

    print_table(
        "Share of states in which sampled_gumbel takes its best candidate, %, by depth",
        ["candidates", "simulations", "node_value", "ranks", *map(str, depths)],
        (
            [str(count), str(sims), rule, ranks] + [share(depth, sims, s, rule, ranks) for depth in depths]
            for count, sims, s in ((16, 32, {}), (256, 512, wide))
            for rule, ranks in rules
        ),
    )
    print_table(
        "Regret of gumbel on random tables, % of that of random actions",
        [
            "leaves off by, deviations of the reward",
            "node_value",
            *(f"{sims} simulations" for sims in (16, 64, 256)),
        ],
        (
            [f"{noise:g}", rule]
            + [f"{100 * regret_share(noise, sims, rule, tasks=tasks):.1f}" for sims in (16, 64, 256)]
            for noise in (0.3, 1.0)
            for rule in ("mean", "max")
        ),
    )


if __name__ == "__main__":
    main()
