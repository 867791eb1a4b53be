"""Floating-point operations that an update needs, from the shapes of its networks.

A product `[m, k] x [k, n]` costs `2 m k n`; everything that is not a product counts as nothing. What an
algorithm cannot do without is counted, not what an implementation does: a share of the peak computed from it
falls with every needless pass. With F the cost of a forward pass:

- values alone: F;
- training: 3 F less the gradient of the first layer's input, which nobody needs;
- a gradient with respect to the input alone, through frozen parameters (a policy loss through a critic): 2 F;
- both gradients (a network whose input another one makes): 3 F.

A learner states its passes (`mbrl.nets.passes`), and the count follows from the networks that it has.
"""

import itertools
from collections.abc import Sequence

from mbrl.nets.passes import NetworkPass


def forward_flops(rows: int, sizes: Sequence[int], *, members: int = 1) -> float:
    """F, `2 rows members sum_k sizes_k sizes_{k+1}`.

    Args:
        rows: rows that each member reads.
        sizes: widths from the input to the output.
        members: networks side by side.
    """
    return 2.0 * rows * members * sum(a * b for a, b in itertools.pairwise(sizes))


def training_flops(rows: int, sizes: Sequence[int], *, members: int = 1) -> float:
    """Forward pass and gradients of all parameters, `3 F - 2 rows members sizes_0 sizes_1`."""
    return 3 * forward_flops(rows, sizes, members=members) - forward_flops(rows, sizes[:2], members=members)


def input_gradient_flops(rows: int, sizes: Sequence[int], *, members: int = 1) -> float:
    """Forward pass and gradient with respect to the input, `2 F`."""
    return 2 * forward_flops(rows, sizes, members=members)


def count_flops(passes: Sequence[NetworkPass], rows: int) -> float:
    """Operations of an update on a batch of `rows`, all its passes together."""
    return sum(one.share * _pass_flops(one, rows) for one in passes)


def _pass_flops(one: NetworkPass, rows: int) -> float:
    net, all_rows = one.net, one.rows * rows
    sizes = (net.in_dim, *net.hidden, net.out_dim)
    members = net.members if one.members is None else one.members
    match one.gradient:
        case "none":
            return forward_flops(all_rows, sizes, members=members)
        case "parameters":
            return training_flops(all_rows, sizes, members=members)
        case "input":
            return input_gradient_flops(all_rows, sizes, members=members)
        case "both":
            return 3 * forward_flops(all_rows, sizes, members=members)
