"""Whatever happened to a run folder, a command answers, makes it anew, or says which file is wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import runs
from tests.hostile.case import Case, judge, run_case

CASES = runs.cases()
FEW = CASES[::11]


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    runs.forget()


def check(case: Case, folder: Path) -> None:
    outcome = run_case(case, folder)
    assert judge(case, outcome) == [], outcome.message


@pytest.mark.parametrize("case", FEW, ids=[case.name for case in FEW])
def test_some_damaged_runs(case: Case, tmp_path: Path):
    check(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_damaged_run(case: Case, tmp_path: Path):
    check(case, tmp_path)


def test_there_are_many_cases_and_each_has_a_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 300
