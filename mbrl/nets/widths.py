"""Sizes of hidden layers, as configs give them."""

from typing import Annotated, TypeAlias

from annotated_types import Ge, Le, MaxLen, MinLen

Hidden: TypeAlias = Annotated[tuple[Annotated[int, Ge(1), Le(4096)], ...], MinLen(1), MaxLen(12)]
"""Widths of one to twelve hidden layers; the bounds are read by whatever validates a config."""
