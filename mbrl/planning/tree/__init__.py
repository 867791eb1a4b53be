"""Tree search: PUCT and Gumbel, batched."""
