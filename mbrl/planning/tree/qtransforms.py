"""Values of actions on one scale, so that a search weighs them against its prior (mctx: `qtransforms`).

All take `[r, a]` values and visits of the actions of `r` nodes. The floor is the least spread of values that
counts as one: differences that are no larger than the critics' error are not stretched over [0, 1].
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mix_value(
    q: Float[Tensor, "r a"],
    visits: Float[Tensor, "r a"],
    *,
    probs: Float[Tensor, "r a"],
    raw_value: Float[Tensor, "r"],
) -> Float[Tensor, "r 1"]:
    """`(V + n sum_vis P Q / sum_vis P) / (1 + n)`, n all visits: what an untried action is worth (app. D)."""
    # The least positive probability keeps the share of a visited action that the prior excludes finite.
    weight = probs.clamp_min(torch.finfo(probs.dtype).tiny) * (visits > 0)
    total = visits.sum(-1, keepdim=True)
    share = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(probs.dtype).tiny)
    # V as one visit beside n: with more visits the actions that were tried say more than the critic.
    return (raw_value[:, None] + total * (share * q).sum(-1, keepdim=True)) / (1.0 + total)


def scale_completed(
    q: Float[Tensor, "r a"],
    visits: Float[Tensor, "r a"],
    *,
    probs: Float[Tensor, "r a"],
    raw_value: Float[Tensor, "r"],
    floor: Float[Tensor, "r 1"],
    visit_offset: float,
    value_coef: float,
    valid: Bool[Tensor, "r a"] | None = None,
) -> Float[Tensor, "r a"]:
    """`sigma(q) = (c_visit + max visits) c_scale (q - min q) / max(max q - min q, floor)` (eq. 8).

    mctx calls it `qtransform_completed_by_mix_value`; Gumbel MuZero adds it to logits.

    Args:
        q: `[r, a]`, of visited actions.
        visits: `[r, a]`.
        probs: `[r, a]`, of the prior.
        raw_value: `[r]`, V of the node; completes q with `mix_value`.
        floor: least spread of values that counts as one.
        visit_offset: c_visit.
        value_coef: c_scale.
        valid: `[r, a]`, actions whose values span the range; None for all.
    """
    # Actions that were not tried are worth the mixed value: neither a reason for them nor against them.
    completed = torch.where(visits > 0, q, mix_value(q, visits, probs=probs, raw_value=raw_value))
    if valid is None:
        low, high = torch.aminmax(completed, dim=-1, keepdim=True)
    else:
        low = completed.masked_fill(~valid, torch.inf).amin(-1, keepdim=True)
        high = completed.masked_fill(~valid, -torch.inf).amax(-1, keepdim=True)
    spread = torch.maximum(high - low, floor)
    # The more visits stand behind the values, the more they outweigh the prior.
    scale = (visit_offset + visits.amax(-1, keepdim=True)) * value_coef
    return scale * (completed - low) / spread


def scale_visited(
    q: Float[Tensor, "r a"],
    visits: Float[Tensor, "r a"],
    *,
    node_value: Float[Tensor, "r"],
    floor: Float[Tensor, "r 1"],
) -> Float[Tensor, "r a"]:
    """`(Q - lo) / max(hi - lo, floor)` over the node's value and visited Q; 0 for actions not visited.

    mctx calls it `qtransform_by_parent_and_siblings`; MuZero adds its exploration bonus to it (app. B).
    """
    here = node_value[:, None]
    # Untried actions must not widen the range: they stand at the node's value, which is in it already.
    known = torch.where(visits > 0, q, here)
    low = torch.minimum(here, known.amin(-1, keepdim=True))
    high = torch.maximum(here, known.amax(-1, keepdim=True))
    # 0 for untried ones, the least of the scale: PUCT's bonus alone brings them up.
    return torch.where(visits > 0, q - low, torch.zeros_like(q)) / torch.maximum(high - low, floor)
