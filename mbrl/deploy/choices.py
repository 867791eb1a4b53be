"""Policies over choices as ONNX graphs: raw frames and a mask in, the choice and all probabilities out."""

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.deploy.graph import Graph
from mbrl.deploy.layers import write_normaliser, write_stack
from mbrl.nets.categorical import CategoricalPolicy, FilteredGreedyPolicy, GreedyPolicy, SoftmaxPolicy

MASK: Final = "mask"
"""Input of a policy over choices: `[batch, n]`, 1 where a choice is allowed and 0 elsewhere."""

PROBABILITIES: Final = "probabilities"
"""Output of a policy over choices: `[batch, n]`, exactly 0 where a choice is forbidden."""

_FLOAT: Final = 1
"""Of ONNX's numbers for types."""


def write_choices(policy: CategoricalPolicy, graph: Graph, obs: str) -> tuple[str, str]:
    """Writes a policy over choices.

    Args:
        policy: of any kind.
        graph: that grows; gains the input `MASK`.
        obs: name of the observations `[batch, obs_dim]`, raw units.

    Returns:
        The names of the one-hot evaluation choice and of the probabilities, `[batch, n]` each.
    """
    mask = graph.op("Greater", graph.input(MASK, policy.act_dim), graph.constant(0.5))
    obs_n = write_normaliser(graph, obs, policy.normaliser)
    if isinstance(policy, SoftmaxPolicy):
        logits = _among(graph, write_stack(graph, obs_n, policy.net), mask)
        return _best(graph, logits, policy.act_dim), graph.op("Softmax", logits, axis=-1)
    assert isinstance(policy, GreedyPolicy)
    support = mask
    if isinstance(policy, FilteredGreedyPolicy):
        support = _often_enough(graph, policy, obs_n, mask)
    best = _best(graph, _among(graph, _least_value(graph, policy, obs_n), support), policy.act_dim)
    return best, _soft_greedy(graph, best, support, float(policy.epsilon))


def _among(graph: Graph, values: str, support: str) -> str:
    """Minus infinity where a choice is not supported."""
    return graph.op("Where", support, values, graph.constant(-np.inf))


def _best(graph: Graph, values: str, count: int) -> str:
    """One-hot; of equal values the first, as in torch."""
    index = graph.op("ArgMax", values, axis=-1, keepdims=1)
    return graph.op("Cast", graph.op("Equal", index, graph.constant(np.arange(count))), to=_FLOAT)


def _least_value(graph: Graph, policy: GreedyPolicy, obs_n: str) -> str:
    critic = policy.critic
    members: list[str] = []
    for member in range(critic.net.members):
        heads = write_stack(graph, obs_n, critic.net, member=member)
        if critic.quantile_count > 1:
            heads = graph.reshape(heads, -1, policy.act_dim + critic.dueling, critic.quantile_count)
            heads = graph.op("ReduceMean", heads, axes=[-1], keepdims=0)
        if critic.dueling:
            value, advantage = graph.split(heads, [1, policy.act_dim])
            mean = graph.op("ReduceMean", advantage, axes=[-1], keepdims=1)
            heads = graph.op("Add", value, graph.op("Sub", advantage, mean))
        members.append(heads)
    return members[0] if len(members) == 1 else graph.op("Min", *members)


def _often_enough(graph: Graph, policy: FilteredGreedyPolicy, obs_n: str, mask: str) -> str:
    log_probs = graph.op("LogSoftmax", _among(graph, write_stack(graph, obs_n, policy.clone), mask), axis=-1)
    largest = graph.op("ReduceMax", log_probs, axes=[-1], keepdims=1)
    share = graph.op("Exp", graph.op("Sub", log_probs, largest))
    often = graph.op("GreaterOrEqual", share, graph.constant(float(policy.spec.threshold)))
    return graph.op("And", often, mask)


def _soft_greedy(graph: Graph, best: str, support: str, epsilon: float) -> str:
    if epsilon == 0.0:
        return best
    even = graph.op("Cast", support, to=_FLOAT)
    count = graph.op("ReduceSum", even, graph.constant([-1]), keepdims=1)
    share = graph.op("Mul", graph.op("Div", even, count), graph.constant(epsilon))
    return graph.op("Add", graph.op("Mul", best, graph.constant(1.0 - epsilon)), share)


def sample_masks(rows: int, count: int) -> NDArray[np.float32]:
    """`[rows, count]` masks to try a graph with: half of them allow everything, all allow something."""
    rng = np.random.default_rng(0)
    masks = (rng.random((rows, count)) < 0.5).astype(np.float32)
    masks[::2] = 1.0
    masks[np.arange(rows), rng.integers(count, size=rows)] = 1.0
    return masks


@torch.no_grad()
def choices_difference(
    policy: CategoricalPolicy, obs: NDArray[np.float32], mask: NDArray[np.float32], found: dict[str, Any]
) -> float:
    """Largest difference of a probability to torch's; infinite where another choice is taken.

    Choices whose values are equal up to rounding may be told apart by the last digit: they are no difference.

    Args:
        policy: the network.
        obs: `[n, obs_dim]`, raw units.
        mask: `[n, choices]`, as the graph was given.
        found: outputs of the graph by name.
    """
    states, allowed = torch.from_numpy(obs.copy()), torch.from_numpy(mask > 0.5)
    expected = policy.act(states, None, allowed).numpy()
    taken, wanted = found["action"].argmax(1), expected.argmax(1)
    preferences = policy.preferences(states).double().numpy()
    rows = np.arange(len(obs))
    gap = np.abs(preferences[rows, taken] - preferences[rows, wanted])
    is_tied = gap <= _TIE * (1.0 + np.abs(preferences[rows, wanted]))
    other = (taken != wanted) & ~(is_tied & (mask[rows, taken] > 0.5))
    if other.any():
        return float("inf")
    same = taken == wanted
    error = np.abs(found[PROBABILITIES] - policy.probs(states, allowed).numpy())[same]
    largest = float(error.max(initial=0.0))
    return largest if np.isfinite(largest) else float("inf")


_TIE: Final = 1e-6
"""Of a value: float32 has six or seven digits."""
