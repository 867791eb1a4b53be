"""What all parts of a report share: frozen records of plain values, in which a number is finite or None."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from mbrl.core.estimates import Estimand


class Record(BaseModel):
    """A frozen part of a report; a field that it does not know is an error when it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _finite(value: Any) -> Any:
    """None in place of a NaN or an infinity: strict JSON has neither."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_text(value: Any) -> Any:
    """The fields of an estimand; its `text` follows from them."""
    if not isinstance(value, Mapping):
        return value
    fields = cast("Mapping[str, Any]", value)
    return {key: entry for key, entry in fields.items() if key != "text"}


Number: TypeAlias = Annotated[float | None, BeforeValidator(_finite)]
"""A finite number; None where there is none, which the report's `why_not` explains."""

Numbers: TypeAlias = tuple[Number, ...]
"""One number for each step, level or cell."""

Ends: TypeAlias = tuple[Number, Number]
"""Lower and upper end of an interval; both None where it was not made."""

ReportedEstimand: TypeAlias = Annotated[
    Estimand, BeforeValidator(_without_text), PlainSerializer(Estimand.to_json)
]
"""What is estimated; its JSON also says it in words."""


def known_ends(ends: Ends | None) -> tuple[float, float] | None:
    """The interval if it has both ends, else None."""
    if ends is None:
        return None
    low, high = ends
    return None if low is None or high is None else (low, high)
