"""All signs of a record, and which of them a schema already sees to."""

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import numpy as np

from mbrl.data.importing.schema import ImportSchema
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.inspection.record import Record
from mbrl.data.inspection.settled import settled_by
from mbrl.data.inspection.signs.angles import find_turns, find_wraps
from mbrl.data.inspection.signs.clocks import find_gaps, find_jitter, find_rates, find_resets
from mbrl.data.inspection.signs.ends import find_early_stops, find_missing_final
from mbrl.data.inspection.signs.folders import find_copies, find_other_columns, find_unit_slips
from mbrl.data.inspection.signs.models import find_measured_commands, find_models
from mbrl.data.inspection.signs.sensors import find_dead, find_saturation, find_stuck
from mbrl.data.inspection.signs.ticks import find_ticks

Sign: TypeAlias = Callable[[Record], Iterator[DataFinding]]

SIGNS: Final[tuple[Sign, ...]] = (
    find_other_columns,
    find_resets,
    find_rates,
    find_jitter,
    find_gaps,
    find_unit_slips,
    find_wraps,
    find_turns,
    find_ticks,
    find_dead,
    find_stuck,
    find_saturation,
    find_early_stops,
    find_missing_final,
    find_copies,
    find_measured_commands,
    find_models,
)
"""Each is a pure function of a record."""


def examine(record: Record, schema: ImportSchema | None = None) -> Iterator[DataFinding]:
    """Yields what the signs say.

    Args:
        record: raw files or a dataset.
        schema: that the user wrote; what it sees to becomes a note. None for a dataset or a guess.
    """
    if not record.traces:
        return
    for sign in SIGNS:
        with np.errstate(
            over="ignore", invalid="ignore", divide="ignore"
        ):  # of values near the largest float
            findings = list(sign(record))
        for finding in findings:
            line = None if schema is None else settled_by(finding, schema)
            if line is None:
                yield finding
            else:
                remedy = f"None needed: the schema sees to it ({line})."
                yield finding.model_copy(update={"severity": "note", "remedy": remedy})
