"""One plan on top of a trained run: its trace by parts, the nearest logged states, the search tree."""

import dataclasses
import math
from typing import Any, Final

import torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.planning.explain.plan_trace import describe_plan
from mbrl.planning.explain.search_tree import TreeExplanation, explain_tree, export_tree
from mbrl.planning.noise import RowNoise
from mbrl.planning.policy import hash_rows
from mbrl.planning.tree.planner import TreeConfig
from mbrl.run.plan.basis import PlanBasis
from mbrl.run.plan.config import PlanConfig
from mbrl.run.plan.planning import make_planner
from mbrl.run.stage import Workspace

_NEAREST: Final = 5


def explain_stage(basis: PlanBasis, state: str, config: PlanConfig, workspace: Workspace) -> dict[str, Any]:
    """One plan with its reasons, in plain values; a tree search adds its candidates' values and a tree.

    Args:
        basis: of a finished training (`open_basis`).
        state: see `read_state`.
        config: of the planner.
        workspace: where critics and calibrations are found.

    Raises:
        ConfigError: `state` names none, or the planner does not fit.
    """
    obs = read_state(state, basis.dataset)
    planner = make_planner(basis, keep_tree(config), workspace).planner
    result = planner.plan(obs, budget=config.budget, noise=RowNoise(hash_rows(obs)))
    explanation = describe_plan(planner.problem, obs, result)
    logged = torch.tensor(basis.dataset.transitions().observation)
    searched = None if result.tree is None else explain_tree(result, 0, logged=logged)
    return {
        "planner": config.planner.name,
        "state": state,
        **explanation,
        "nearest_logged": _nearest_steps(obs, basis.dataset),
        "search": None if searched is None else _plain(searched),
        "tree": None if searched is None else export_tree(result, 0),
    }


def _plain(searched: TreeExplanation) -> dict[str, Any]:
    """What the search says of its candidates, and of the plan's edges in the tree of one member."""
    return {
        "candidates": [dataclasses.asdict(note) for note in searched.candidates],
        "plan": [dataclasses.asdict(note) for note in searched.plan],
        "member": searched.member,
    }


def keep_tree(config: PlanConfig) -> PlanConfig:
    """The same planner, but a tree search hands its trees over."""
    settings = config.planner.config
    if not isinstance(settings, TreeConfig):
        return config
    choice = config.planner.model_copy(update={"config": settings.model_copy(update={"keep_tree": True})})
    return config.model_copy(update={"planner": choice})


def _nearest_steps(obs: Tensor, dataset: Dataset) -> list[dict[str, Any]]:
    """The logged states nearest to one, in deviations of the log, root mean square over dimensions."""
    rows = dataset.transitions()
    logged = torch.tensor(rows.observation).double()
    scale = logged.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    distance = ((logged - obs.double()) / scale).square().mean(1).sqrt()
    nearest = distance.topk(min(_NEAREST, len(distance)), largest=False)
    return [
        {
            "step": int(index),
            "distance": float(length),
            "action": rows.action[int(index)].tolist(),
            "reward": float(rows.reward[int(index)]),
        }
        for length, index in zip(nearest.values, nearest.indices, strict=True)
    ]


def read_state(text: str, dataset: Dataset) -> Tensor:
    """`[1, obs_dim]`: the number of a logged step, or the coordinates of a state with commas between.

    Raises:
        ConfigError: it is neither.
    """
    width, steps = dataset.spec.obs_dim, dataset.num_transitions
    if text.strip().isdigit() and int(text) < steps:
        return torch.tensor(dataset.transitions().observation[int(text)])[None]
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != width or not all(map(math.isfinite, values)):
        raise ConfigError(
            f"--explain {text!r} names no state: give the number of a logged step, 0 to {steps - 1}, or "
            f"{width} finite numbers with commas between."
        )
    return torch.tensor([values])
