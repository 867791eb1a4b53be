"""Names in messages: near misses and lists."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

_LONGEST: Final = 100
"""No name is longer: to look for what is near to one takes the product of the lengths."""


def suggest(name: str, legal: Iterable[str]) -> str:
    """`Did you mean 'x'? ` for a near miss, else nothing."""
    near = difflib.get_close_matches(name, list(legal), n=1, cutoff=0.6) if len(name) <= _LONGEST else []
    return f"Did you mean {near[0]!r}? " if near else ""


def listed(names: Iterable[str]) -> str:
    """Names in alphabetical order, with commas; `none` where there are none."""
    return ", ".join(sorted(names)) or "none"


def shared_letters(texts: Sequence[str]) -> int:
    """How many letters all texts begin with."""
    columns = zip(*texts, strict=False)
    return next((k for k, letters in enumerate(columns) if len(set(letters)) > 1), min(map(len, texts)))
