"""Three choices, networks of known answers, and a small decision process that is solved by hand."""

from collections.abc import Sequence
from typing import Any

import torch

from mbrl.core.protocols import Learner
from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.learners.base import LearnerContext
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

SPACE = SpaceSpec.discrete(2, ("left", "stay", "right"))
CONTEXT = LearnerContext(SPACE, Normaliser.identity(2), 100)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def constant_output(net: StackedMLP, values: Sequence[Sequence[float]]) -> None:
    """Member i answers `values[i]` everywhere."""
    with torch.no_grad():
        net.flat.zero_()
        net.layers(net.flat)[-1].bias.copy_(torch.tensor(values)[:, None])


def two_rows(**changes: Any) -> TransitionBatch:
    """Choices `right` and `left`; the second row ends."""
    fields: dict[str, Any] = {
        "observation": torch.zeros(2, 2),
        "action": torch.eye(3)[[2, 0]],
        "reward": torch.tensor([1.0, 2.0]),
        "next_observation": torch.ones(2, 2),
        "terminated": torch.tensor([False, True]),
        "from_model": torch.zeros(2, dtype=torch.bool),
    }
    return TransitionBatch(**{**fields, **changes})


def corridor(
    count: int = 256, seed: int = 0, *, behaviour: Sequence[float] = (0.4, 0.2, 0.4)
) -> TransitionBatch:
    """Cells 0 to 3; `right` from cell 3 pays 1 and ends, every other step costs 0.1; from the left wall back.

    The best choice is `right` in every cell. Observations are `(cell, 1)`.
    """
    draws = generator(seed)
    cell = torch.randint(4, (count,), generator=draws)
    choice = torch.multinomial(torch.tensor(behaviour), count, replacement=True, generator=draws)
    following = (cell + choice - 1).clamp(0, 3)
    ended = (cell == 3) & (choice == 2)
    return TransitionBatch(
        observation=torch.stack([cell.float(), torch.ones(count)], 1),
        action=torch.eye(3)[choice],
        reward=torch.where(ended, 1.0, -0.1),
        next_observation=torch.stack([following.float(), torch.ones(count)], 1),
        terminated=ended,
        from_model=torch.zeros(count, dtype=torch.bool),
    )


CELLS = torch.stack([torch.arange(4.0), torch.ones(4)], 1)


def corridor_values(discount: float) -> torch.Tensor:
    """`[4, 3]`, Q of the best policy by value iteration."""
    values = torch.zeros(4, 3)
    for _ in range(200):
        best = values.amax(1)
        for cell in range(4):
            for choice in range(3):
                ended = cell == 3 and choice == 2
                following = min(max(cell + choice - 1, 0), 3)
                values[cell, choice] = 1.0 if ended else -0.1 + discount * float(best[following])
    return values


def train(learner: Learner[Any], updates: int, batch: TransitionBatch | None = None) -> Any:
    state = learner.init(generator())
    rows = corridor() if batch is None else batch
    for _ in range(updates):
        learner.update(state, rows, generator())
    return state
