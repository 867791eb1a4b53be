"""All tables of hostile datasets; `python -m tests.hostile.tables` prints what comes of each input."""

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.hostile import hdf5, npz, others, places
from tests.hostile.case import Case, judge, run_case


def dataset_cases() -> tuple[Case, ...]:
    """Hostile datasets of all formats."""
    return (*npz.cases(), *hdf5.d4rl_cases(), *hdf5.minari_cases(), *others.cases(), *places.cases())


def write_table(cases: Iterable[Case]) -> int:
    """Prints a Markdown table of inputs, outcomes and messages; returns how many were not refused clearly."""
    bad = 0
    sys.stdout.write("| input | outcome | message |\n|---|---|---|\n")
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run_case(case, Path(folder))
            problems = judge(case, outcome)
            message = " ".join(outcome.message.split()).replace(folder, "").replace("|", "\\|")
        bad += bool(problems)
        sys.stdout.write(f"| {case.name} | {'; '.join(problems) or 'refused'} | {message[:200]} |\n")
    return bad


if __name__ == "__main__":
    sys.exit(write_table(dataset_cases()) > 0)
