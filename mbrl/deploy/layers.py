"""Layers of perceptrons and normalisers as nodes of an ONNX graph."""

import dataclasses
from typing import Final

from mbrl.deploy.graph import Graph
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

_LAYER_NORM_EPS: Final = 1e-5


def write_normaliser(graph: Graph, value: str, normaliser: Normaliser) -> str:
    """Raw units to standard deviations from the mean."""
    return graph.standardised(value, normaliser.mean, normaliser.std)


@dataclasses.dataclass(frozen=True, slots=True)
class StackNames:
    """One member of a stack as constants of a graph, which any number of passes share.

    Attributes:
        hidden: weight, bias and, of LayerNorm, gain and shift of every hidden layer.
        last: weight and bias of the output layer.
        activation: of the hidden layers.
    """

    hidden: tuple[tuple[str, ...], ...]
    last: tuple[str, str]
    activation: str


def name_stack(graph: Graph, net: StackedMLP, *, member: int = 0) -> StackNames:
    """Puts the weights of one member into the graph."""
    *hidden, last = net.layers(net.flat.detach()[member : member + 1])
    return StackNames(
        tuple(
            (
                graph.constant(layer.weight[0]),
                *(graph.constant(row[0, 0]) for row in layer[1:] if row is not None),
            )
            for layer in hidden
        ),
        (graph.constant(last.weight[0]), graph.constant(last.bias[0, 0])),
        net.activation,
    )


def apply_stack(graph: Graph, value: str, names: StackNames) -> str:
    """A pass, `[rows, in_dim]` to `[rows, out_dim]`."""
    for weight, bias, *norm in names.hidden:
        value = graph.op("Gemm", value, weight, bias)
        if norm:
            value = graph.op("LayerNormalization", value, *norm, axis=-1, epsilon=_LAYER_NORM_EPS)
        value = _activate(graph, value, names.activation)
    return graph.op("Gemm", value, *names.last)


def write_stack(graph: Graph, value: str, net: StackedMLP, *, member: int = 0) -> str:
    """One pass of one member of a stack, `[rows, in_dim]` to `[rows, out_dim]`."""
    return apply_stack(graph, value, name_stack(graph, net, member=member))


def _activate(graph: Graph, value: str, name: str) -> str:
    if name == "silu":
        return graph.op("Mul", value, graph.op("Sigmoid", value))
    return graph.op({"relu": "Relu", "tanh": "Tanh"}[name], value)
