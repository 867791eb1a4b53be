"""Layers of perceptrons and normalisers as nodes of an ONNX graph."""

from typing import Final

from mbrl.deploy.graph import Graph
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

_LAYER_NORM_EPS: Final = 1e-5


def write_normaliser(graph: Graph, value: str, normaliser: Normaliser) -> str:
    """Raw units to standard deviations from the mean."""
    return graph.standardised(value, normaliser.mean, normaliser.std)


def write_stack(graph: Graph, value: str, net: StackedMLP, *, member: int = 0) -> str:
    """One member of a stack, `[rows, in_dim]` to `[rows, out_dim]`."""
    layers = net.layers(net.flat.detach()[member : member + 1])
    for layer in layers[:-1]:
        value = graph.op("Gemm", value, graph.constant(layer.weight[0]), graph.constant(layer.bias[0, 0]))
        if layer.gain is not None and layer.shift is not None:
            gain, shift = graph.constant(layer.gain[0, 0]), graph.constant(layer.shift[0, 0])
            value = graph.op("LayerNormalization", value, gain, shift, axis=-1, epsilon=_LAYER_NORM_EPS)
        value = _activate(graph, value, net.activation)
    last = layers[-1]
    return graph.op("Gemm", value, graph.constant(last.weight[0]), graph.constant(last.bias[0, 0]))


def _activate(graph: Graph, value: str, name: str) -> str:
    if name == "silu":
        return graph.op("Mul", value, graph.op("Sigmoid", value))
    return graph.op({"relu": "Relu", "tanh": "Tanh"}[name], value)
