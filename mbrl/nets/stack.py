"""Stacked multi-layer perceptrons: all members of an ensemble in one batched matrix product a layer.

A stack keeps every parameter of a member in one row of a single `[e, p]` tensor. So an optimiser makes
one fused call, a target network one `lerp`, an early-stopping snapshot one row copy, and elites are a
row selection.

The backward pass is written by hand (one `autograd.Function` around the whole stack): it makes no graph
node for a layer and writes gradients straight into one flat buffer. It composes with any loss, but only
once: for a gradient of a gradient call `forward_composite`, the same function made of ordinary
operations.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.nets.head import apply_head, input_gradient, write_weight_gradient
from mbrl.nets.init import Initialiser, init_linear_

ActivationName: TypeAlias = Literal["relu", "silu", "tanh"]
_LAYER_NORM_EPS = 1e-5


class _Layer(NamedTuple):
    weight: Tensor  # [e, in, out]
    bias: Tensor  # [e, 1, out]
    gain: Tensor | None  # [e, 1, out], LayerNorm scale
    shift: Tensor | None  # [e, 1, out], LayerNorm offset


class _Activation(NamedTuple):
    forward: Callable[[Tensor], Tensor]
    forward_: Callable[[Tensor], Tensor]  # overwrites its input
    backward_: Callable[[Tensor, Tensor, Tensor], object]  # (gradient, input, output); overwrites the first
    reads_input: bool  # whether the backward reads the input; if not, the output may overwrite it


_aten = cast(Any, torch.ops.aten)  # operators with an output argument; torch declares no types for them


def _relu_backward_(grad: Tensor, _: Tensor, out: Tensor) -> object:
    return _aten.threshold_backward.grad_input(grad, out, 0.0, grad_input=grad)


def _silu_backward_(grad: Tensor, pre: Tensor, _: Tensor) -> object:
    return _aten.silu_backward.grad_input(grad, pre, grad_input=grad)


def _tanh_backward_(grad: Tensor, _: Tensor, out: Tensor) -> object:
    return _aten.tanh_backward.grad_input(grad, out, grad_input=grad)


def _silu_(x: Tensor) -> Tensor:
    return nn.functional.silu(x, inplace=True)


ACTIVATIONS: dict[ActivationName, _Activation] = {
    "relu": _Activation(torch.relu, torch.relu_, _relu_backward_, reads_input=False),
    "silu": _Activation(nn.functional.silu, _silu_, _silu_backward_, reads_input=True),
    "tanh": _Activation(torch.tanh, torch.tanh_, _tanh_backward_, reads_input=False),
}


class StackedMLP(nn.Module):
    """`e` independent perceptrons `in_dim -> hidden -> ... -> out_dim` of equal shape.

    Args:
        members: e, the number of perceptrons.
        in_dim: size of an input.
        hidden: widths of the hidden layers.
        out_dim: size of an output; the last layer is linear.
        activation: name of the hidden activation.
        layer_norm: puts a LayerNorm with learned gain and shift between each hidden linear map and its
            activation.
        init: how linear layers start.
        generator: source of the initial weights.
    """

    flat: nn.Parameter
    """`[e, p]`: member i's parameters in row i, layer by layer (weight, bias, gain, shift)."""

    def __init__(
        self,
        members: int,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        *,
        generator: torch.Generator,
        activation: ActivationName = "relu",
        layer_norm: bool = False,
        init: Initialiser = "uniform",
    ) -> None:
        super().__init__()
        self.members, self.in_dim, self.hidden, self.out_dim = members, in_dim, tuple(hidden), out_dim
        self.activation: ActivationName = activation
        self.layer_norm = layer_norm
        self._shapes = _parameter_shapes(in_dim, hidden, out_dim, layer_norm=layer_norm)
        self._sizes = [rows * columns for rows, columns in self._shapes]
        # One row a member: whatever is done to members (selecting, averaging, restoring) is done to rows.
        self.flat = nn.Parameter(torch.empty(members, sum(self._sizes), device=generator.device))
        with torch.no_grad():
            for layer in self.layers(self.flat):
                init_linear_(layer.weight, layer.bias, kind=init, generator=generator)
                if layer.gain is not None and layer.shift is not None:
                    layer.gain.fill_(1.0)
                    layer.shift.zero_()

    @staticmethod
    def flat_shape(
        members: int, in_dim: int, hidden: Sequence[int], out_dim: int, *, layer_norm: bool = False
    ) -> tuple[int, int]:
        """Shape of `flat` of a stack of these sizes, without making it."""
        shapes = _parameter_shapes(in_dim, hidden, out_dim, layer_norm=layer_norm)
        return members, sum(rows * columns for rows, columns in shapes)

    def forward(
        self, x: Tensor, *, frozen: bool = False, first: int | None = None
    ) -> Float[Tensor, "e b out_dim"]:
        """Applies every member, or the first few.

        Args:
            x: `[b, in_dim]`, shared by the members, or `[e, b, in_dim]`.
            frozen: treat the parameters as constants: the backward pass then costs a third less. For losses
                that only differentiate with respect to the input (a policy loss through a critic).
            first: members 0 to `first - 1` only, at their share of the cost; None for all.

        Returns:
            `[e, b, out_dim]`, e the number of applied members.
        """
        parameters = self.flat if first is None else self.flat[:first]
        x = _expand(x, len(parameters))
        if not torch.is_grad_enabled():
            return self._infer(x, parameters)
        # Without a gradient for the parameters the backward pass skips the products h^T dL/dz.
        parameters = parameters.detach() if frozen else parameters
        return cast(Tensor, _StackedMLPFunction.apply(x, parameters, self))

    def forward_composite(self, x: Tensor) -> Float[Tensor, "e b out_dim"]:
        """`forward` out of ordinary differentiable operations: slower, and differentiable twice."""
        layers = self.layers(self.flat)
        h = _expand(x, self.members)
        for layer in layers[:-1]:
            h = torch.baddbmm(layer.bias, h, layer.weight)
            if layer.gain is not None and layer.shift is not None:
                h = nn.functional.layer_norm(h, h.shape[-1:], eps=_LAYER_NORM_EPS) * layer.gain + layer.shift
            h = ACTIVATIONS[self.activation].forward(h)
        return apply_head(h, layers[-1].weight, layers[-1].bias)

    def first_output_gradient(self, x: Tensor) -> Float[Tensor, "e b in_dim"]:
        """`d out_0 / dx` for each member, differentiable in the parameters.

        ReLU networks without LayerNorm are linear but for which units are on: the gradient is a product of
        the weights of those. Written as that it costs two thirds of what a gradient of a gradient costs,
        since nothing flows back through the values. Other networks take that way.

        Args:
            x: `[b, in_dim]`, shared by the members, or `[e, b, in_dim]`.
        """
        # out_0 = w^T D_L W_L .. D_1 W_1 x + const, D_k the diagonal of 0 and 1 that says which units are on.
        h = _expand(x, self.members)
        if self.activation != "relu" or self.layer_norm:
            h = h.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.forward_composite(h)[..., 0].sum(), h, create_graph=True)
            return gradient
        layers = self.layers(self.flat)
        masks: list[Tensor] = []
        with torch.no_grad():
            for layer in layers[:-1]:
                h = torch.relu_(torch.baddbmm(layer.bias, h, layer.weight))
                masks.append(torch.sign(h))  # h >= 0 after ReLU: 1 where the unit is on, 0 where it is off
        # From the output backwards, w^T first: products of a row with matrices, never of two matrices.
        gradient = layers[-1].weight[..., :1].transpose(1, 2).expand(-1, h.shape[1], -1)
        for layer, mask in zip(reversed(layers[:-1]), reversed(masks), strict=True):
            gradient = torch.bmm(gradient * mask, layer.weight.transpose(1, 2))
        return gradient

    def layers(self, flat: Tensor) -> list[_Layer]:
        """Views of each layer's parameters on `flat` `[e, p]` (the parameters, or a tensor like them)."""
        members = flat.shape[0]
        parts = cast(tuple[Tensor, ...], flat.split(self._sizes, 1))
        views = [part.view(members, *shape) for part, shape in zip(parts, self._shapes, strict=True)]
        if not self.layer_norm:
            return [_Layer(views[k], views[k + 1], None, None) for k in range(0, len(views), 2)]
        hidden = [_Layer(*views[k : k + 4]) for k in range(0, len(views) - 2, 4)]
        return [*hidden, _Layer(views[-2], views[-1], None, None)]

    def select(self, members: Tensor) -> "StackedMLP":
        """Returns a new, smaller stack with copies of the given members, `[k]` int64."""
        # The weights are overwritten below; the generator only fills the place.
        generator = torch.Generator().manual_seed(0)
        chosen = StackedMLP(
            len(members),
            self.in_dim,
            self.hidden,
            self.out_dim,
            generator=generator,
            activation=self.activation,
            layer_norm=self.layer_norm,
        ).to(self.flat.device)
        with torch.no_grad():
            chosen.flat.copy_(self.flat[members])
        return chosen

    def _infer(self, x: Tensor, flat: Tensor) -> Tensor:
        """`forward` without a graph: activations overwrite one another, which keeps them in the cache."""
        layers = self.layers(flat)
        h = x
        for layer in layers[:-1]:
            h = torch.baddbmm(layer.bias, h, layer.weight)
            if layer.gain is not None and layer.shift is not None:
                h = torch.native_layer_norm(h, h.shape[-1:], None, None, _LAYER_NORM_EPS)[0]
                h = torch.addcmul(layer.shift, h, layer.gain, out=h)
            h = ACTIVATIONS[self.activation].forward_(h)
        return apply_head(h, layers[-1].weight, layers[-1].bias)


class _StackedMLPFunction(torch.autograd.Function):
    """Forward and hand-written backward of a `StackedMLP`; checked against `forward_composite`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, flat: Tensor, net: StackedMLP) -> Tensor:
        layers = net.layers(flat)
        activation = ACTIVATIONS[net.activation]
        saved: list[Tensor | None] = []
        h = x
        for layer in layers[:-1]:
            pre = torch.baddbmm(layer.bias, h, layer.weight)
            linear, mean, rstd = None, None, None
            if layer.gain is not None and layer.shift is not None:
                linear = pre
                normed, mean, rstd = torch.native_layer_norm(pre, pre.shape[-1:], None, None, _LAYER_NORM_EPS)
                pre = torch.addcmul(layer.shift, normed, layer.gain)
            # An activation whose backward reads its output alone may overwrite its input.
            out = activation.forward(pre) if activation.reads_input else activation.forward_(pre)
            saved += [h, linear, mean, rstd, pre, out]
            h = out
        ctx.save_for_backward(flat, *saved, h)
        ctx.net = net
        return apply_head(h, layers[-1].weight, layers[-1].bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        net = cast(StackedMLP, ctx.net)
        flat, *saved = cast(tuple[Tensor, ...], ctx.saved_tensors)
        wants_x, wants_parameters = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        layers = net.layers(flat)
        flat_grad = torch.empty_like(flat) if wants_parameters else None
        grads = net.layers(flat_grad) if flat_grad is not None else None
        activation = ACTIVATIONS[net.activation]
        h = saved.pop()
        for k in range(len(layers) - 1, -1, -1):
            layer = layers[k]
            if k < len(layers) - 1:
                h, linear, mean, rstd, pre, out = saved[6 * k : 6 * k + 6]  # six tensors a hidden layer
                activation.backward_(grad, pre, out)  # the layer above made this tensor, so it is ours
                if layer.gain is not None:
                    grad = _layer_norm_backward(
                        grad, layer.gain, (linear, mean, rstd), grads[k] if grads is not None else None
                    )
            # z = h W + b: dL/dW = h^T dL/dz, dL/db = sum_rows dL/dz, dL/dh = dL/dz W^T.
            if grads is not None:
                write_weight_gradient(h, grad, out=grads[k].weight)
                torch.sum(grad, 1, keepdim=True, out=grads[k].bias)
            if k > 0 or wants_x:
                grad = input_gradient(grad, layer.weight)
        return (grad if wants_x else None), flat_grad, None


def _parameter_shapes(
    in_dim: int, hidden: Sequence[int], out_dim: int, *, layer_norm: bool
) -> list[tuple[int, int]]:
    """Of one member's parameters, layer by layer: weight, bias, gain, shift."""
    shapes: list[tuple[int, int]] = []
    for fan_in, fan_out in itertools.pairwise((in_dim, *hidden, out_dim)):
        shapes += [(fan_in, fan_out), *[(1, fan_out)] * (3 if layer_norm else 1)]
    return shapes[:-2] if layer_norm else shapes  # the output layer has no LayerNorm


def _expand(x: Tensor, members: int) -> Tensor:
    return x.expand(members, *x.shape) if x.dim() == 2 else x


def _layer_norm_backward(
    grad: Tensor, gain: Tensor, saved: tuple[Tensor, Tensor, Tensor], grads: _Layer | None
) -> Tensor:
    """Gradient through `gain * layer_norm(x) + shift`; fills gain and shift of `grads`.

    `saved` is (x, mean, 1 / standard deviation) of the normalisation.
    """
    # y = gain * n + shift with n = (x - mean) / std: dL/dgain = sum_rows n dL/dy, dL/dshift = sum_rows dL/dy.
    x, mean, rstd = saved
    if grads is not None and grads.gain is not None and grads.shift is not None:
        normed = torch.sub(x, mean).mul_(rstd)
        torch.sum(normed.mul_(grad), 1, keepdim=True, out=grads.gain)
        torch.sum(grad, 1, keepdim=True, out=grads.shift)
    # dL/dx = (g - mean(g) - n mean(g n)) / std with g = gain * dL/dy, means over units.
    scaled = grad * gain
    outputs = _aten.native_layer_norm_backward(
        scaled, x, x.shape[-1:], mean, rstd, None, None, [True, False, False]
    )
    return cast(Tensor, outputs[0])
