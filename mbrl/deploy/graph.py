"""ONNX graphs, built node by node: what the networks of this package need and no more."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.errors import MissingExtraError

OPSET: Final = 17
"""Of the operators: the first with LayerNormalization, read by onnxruntime 1.12 (2022) and later."""

_IR_VERSION: Final = 8

Values: TypeAlias = NDArray[Any] | Tensor | Sequence[int] | Sequence[float] | float
"""Constants of a graph."""


def require(package: str, *, purpose: str) -> Any:
    """A package of the extra `deploy`.

    Args:
        package: `onnx` or `onnxruntime`.
        purpose: what it is needed for, as the beginning of a sentence.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, extra="deploy", purpose=purpose) from error


class Graph:
    """A graph that grows: values are known by name, every method returns that of its result.

    Args:
        name: of the graph.
    """

    def __init__(self, name: str) -> None:
        self._onnx = require("onnx", purpose="Writing a policy as ONNX")
        self._name = name
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, *sizes: int) -> str:
        """An input `[batch, *sizes]`, float32."""
        self._inputs.append(self._value(name, sizes))
        return name

    def output(self, name: str, value: str, *sizes: int) -> None:
        """Declares `value` `[batch, *sizes]` as an output of this name."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value(name, sizes))

    def constant(self, values: Values) -> str:
        """Values of the graph: whole numbers as int64, all others as float32."""
        array: NDArray[Any] = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
        kind = np.int64 if array.dtype.kind in "iu" else np.float32
        name = f"c{len(self._constants)}"
        array = np.array(array, dtype=kind, order="C")  # `ascontiguousarray` would make vectors of scalars
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One operator of one result."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def split(self, value: str, sizes: Sequence[int]) -> list[str]:
        """Parts of the last axis."""
        names = [f"v{len(self._nodes)}_{k}" for k in range(len(sizes))]
        inputs = [value, self.constant(list(sizes))]
        self._nodes.append(self._onnx.helper.make_node("Split", inputs, names, axis=-1))
        return names

    def smallest(self, value: str, count: int) -> str:
        """The `count` smallest entries of the last axis, ascending."""
        names = [f"v{len(self._nodes)}", f"v{len(self._nodes)}_at"]
        inputs = [value, self.constant([count])]
        self._nodes.append(self._onnx.helper.make_node("TopK", inputs, names, axis=-1, largest=0, sorted=1))
        return names[0]

    def reshape(self, value: str, *sizes: int) -> str:
        """-1 for the axis that follows from the others."""
        return self.op("Reshape", value, self.constant(list(sizes)))

    def clip(self, value: str, low: Values, high: Values) -> str:
        """Moves every entry between its bounds, which may be vectors."""
        return self.op("Min", self.op("Max", value, self.constant(low)), self.constant(high))

    def scaled(self, value: str, scale: Values, shift: Values) -> str:
        """`value * scale + shift`."""
        return self.op("Add", self.op("Mul", value, self.constant(scale)), self.constant(shift))

    def standardised(self, value: str, mean: Values, std: Values) -> str:
        """`(value - mean) / std`."""
        return self.op("Div", self.op("Sub", value, self.constant(mean)), self.constant(std))

    def to_bytes(self, metadata: Mapping[str, str]) -> bytes:
        """The file, checked.

        Args:
            metadata: texts that travel in it.
        """
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="mbrl",
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model)
        # Equal graphs are equal files: the digest of a bundle names what it does.
        return bytes(model.SerializeToString(deterministic=True))

    def _value(self, name: str, sizes: Sequence[int]) -> Any:
        helper = self._onnx.helper
        kind = self._onnx.TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, ["batch", *sizes])
