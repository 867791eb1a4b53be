"""Columns of choices in raw files: labels or ids with a stated vocabulary."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_serializer

from mbrl.core.choices import MAX_CHOICES, choice_ids, stated_names
from mbrl.core.errors import DataError
from mbrl.core.names import suggest

_SHOWN = 8
_Name = Annotated[str, Field(min_length=1)]


class ChoiceColumn(BaseModel):
    """What an action channel of choices says of its column.

    Attributes:
        choices: names of the choices as the column has them, or how many there are (ids from 0). Ids are
            numbers as they stand where all names are integers, else places among the names.
    """

    choices: (
        Annotated[int, Field(ge=1, le=MAX_CHOICES, strict=True)]
        | Annotated[
            tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=MAX_CHOICES)
        ]
        | None
    ) = None

    @model_serializer(mode="wrap")
    def _without_absent_choices(self, handler: Any) -> dict[str, Any]:
        """A continuous channel is written as if there were no other kind."""
        fields: dict[str, Any] = handler(self)
        if self.choices is None:
            fields.pop("choices", None)
        return fields

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """Names of the choices; None for a continuous command."""
        return None if self.choices is None else stated_names(self.choices)

    def check_choices(self, column: str | None, *, has_numbers: bool) -> None:
        """Refuses choices that are computed, scaled or bounded, or named twice.

        Raises:
            ValueError: they are.
        """
        if self.vocabulary is not None and (column is None or has_numbers):
            raise ValueError("choices are read from a column, without expression, scale, offset, low or high")


def code_choices(
    values: NDArray[Any], names: Sequence[str], *, file: Path, column: str, number: Callable[[int], int]
) -> NDArray[np.float64]:
    """`[rows]` ids of the choices in a column; NaN where it has no value.

    Args:
        values: texts or numbers, as they were read.
        names: the vocabulary.
        file: for messages.
        column: likewise.
        number: of a row in the file.

    Raises:
        DataError: a value is none of the choices; the first such row.
    """
    ids = choice_ids(names)[:, 0]
    found = np.full(len(values), np.nan)
    is_missing = np.zeros(len(values), dtype=np.bool_)
    if values.dtype.kind in "US":
        keys, inverse = np.unique(values, return_inverse=True)
        places = {name: float(ids[place]) for place, name in enumerate(names)}
        found = np.array([places.get(str(key).strip(), np.nan) for key in keys.tolist()])[inverse]
        is_missing = (values == "None") & np.isnan(found)  # an empty cell, as the reader has it
    elif values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
        is_missing = np.isnan(numbers)
        found = np.where(np.isin(numbers, ids), numbers, np.nan)
    is_odd = np.isnan(found) & ~is_missing
    if bool(is_odd.any()):
        row = int(is_odd.argmax())
        value = str(values[row])
        shown = ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)
        raise DataError(
            f"{value[:60]!r} is none of the {len(names)} choices ({shown}; {int(is_odd.sum())} such rows). "
            f"{suggest(value, names)}",
            file=file,
            field=column,
            row=number(row),
            remedy="Correct the value, or add it to the choices of the schema.",
        )
    return found
