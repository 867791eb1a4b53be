"""Distances to the nearest rows of a data set."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CHUNK_ELEMENTS = 4_000_000  # distances held at once


def neighbour_distance(
    query: Float[Tensor, "b d"],
    rows: Float[Tensor, "n d"],
    *,
    count: int,
    groups: tuple[Int[Tensor, "b"], Int[Tensor, "n"]] | None = None,
) -> Float[Tensor, "b"]:
    """Mean Euclidean distance to the `count` nearest rows, divided by `sqrt(d)`.

    Args:
        query: `[b, d]`, standardised, so that dimensions compare.
        rows: `[n, d]`, n >= 1, standardised likewise.
        count: neighbours; all rows where there are fewer.
        groups: of the queries and of the rows; rows of its own group are no neighbours of a query. None for
            queries that are not among the rows.

    Returns:
        `[b]`; about the same for any d where rows are equally dense. Infinite where fewer than `count` rows
        belong to other groups.
    """
    # E ||x - y||^2 of standardised rows grows with d: the root of d takes that out.
    count = min(count, rows.shape[0])
    chunk = max(1, _CHUNK_ELEMENTS // rows.shape[0])
    parts: list[Tensor] = []
    for k in range(0, query.shape[0], chunk):
        distance = torch.cdist(query[k : k + chunk], rows)
        if groups is not None:
            # Excluded rows are infinitely far, and are met only where too few others exist.
            distance.masked_fill_(groups[0][k : k + chunk, None] == groups[1], torch.inf)
        parts.append(distance.topk(count, largest=False).values.mean(1))
    return torch.cat(parts) / rows.shape[1] ** 0.5
