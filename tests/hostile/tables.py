"""All tables of hostile inputs, and what comes of them."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tests.hostile import documents, hdf5, npz, others, places, policies, runs
from tests.hostile.case import Case, judge, run_case


def dataset_cases() -> tuple[Case, ...]:
    """Hostile datasets of all formats."""
    return (*npz.cases(), *hdf5.d4rl_cases(), *hdf5.minari_cases(), *others.cases(), *places.cases())


ROOT: Final = Path(__file__).resolve().parents[2]
"""Of the repository."""

TABLES: Final[dict[str, Callable[[], tuple[Case, ...]]]] = {
    "datasets": dataset_cases,
    "policies": policies.cases,
    "documents": documents.cases,
    "runs": runs.cases,
}
"""By the kind of the input."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What came of an input.

    Attributes:
        name: of the case.
        outcome: `refused` or `answered`; else what is wrong with it.
        message: that the user saw, without places of this machine (`without_places`).
        is_sound: whether the command ended as it must.
    """

    name: str
    outcome: str
    message: str
    is_sound: bool


def measure(cases: Iterable[Case]) -> list[Row]:
    """Runs cases one after the other."""
    rows: list[Row] = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run_case(case, Path(folder))
            problems = judge(case, outcome)
            message = without_places(" ".join(outcome.message.split()), Path(folder))
        ended = "answered" if outcome.code == 0 else "refused"
        rows.append(
            Row(case.name, "; ".join(problems) or ended, message if ended == "refused" else "", not problems)
        )
    return rows


def without_places(text: str, folder: Path) -> str:
    """A message as every machine says it: paths count from the input, the repository or the home folder."""
    for place, written in ((folder, ""), (ROOT, ""), (Path.home(), "~/")):
        text = text.replace(f"{place}/", written)
    return text
