"""What a page concludes, in words: a sentence and how it is coloured."""

import dataclasses
from typing import Literal, TypeAlias

Tone: TypeAlias = Literal["good", "caution", "bad", "plain"]
"""Colour and leading word of a message; `plain` has neither."""


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A conclusion in words, coloured and named by its tone."""

    text: str
    tone: Tone = "plain"
