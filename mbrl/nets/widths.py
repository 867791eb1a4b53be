"""Sizes of networks with their ranges, as configs and files give them."""

from typing import Annotated, TypeAlias

from annotated_types import Ge, Le, MaxLen, MinLen

Width: TypeAlias = Annotated[int, Ge(1), Le(4096)]
"""Of a hidden layer."""

Hidden: TypeAlias = Annotated[tuple[Width, ...], MinLen(1), MaxLen(12)]
"""Widths of one to twelve hidden layers; the bounds are read by whatever validates a config."""

Layers: TypeAlias = Annotated[tuple[Width, ...], MaxLen(12)]
"""The same of a network that exists already; none is a linear function."""

LogStd: TypeAlias = Annotated[float, Ge(-20), Le(10)]
"""A limit of a policy's log standard deviation, before squashing or clipping, scaled action units."""

Components: TypeAlias = Annotated[int, Ge(1), Le(1000)]
"""Components of a mixture."""

Candidates: TypeAlias = Annotated[int, Ge(1), Le(10_000)]
"""Actions among which a policy chooses."""

LatentDim: TypeAlias = Annotated[int, Ge(1), Le(200_000)]
"""Size of a latent vector."""

Perturbation: TypeAlias = Annotated[float, Ge(0), Le(2)]
"""Largest change of an action, scaled action units."""
