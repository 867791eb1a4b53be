"""Whatever a dataset holds, the command says what is wrong with which file and what to do."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mbrl.cli.app import app
from tests.hostile import hdf5, npz, others
from tests.hostile.case import Case, judge, run_case
from tests.hostile.tables import dataset_cases

CASES = dataset_cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_dataset_is_refused_clearly(case: Case, tmp_path: Path):
    outcome = run_case(case, tmp_path)
    assert judge(case, outcome) == [], outcome.message


@pytest.mark.parametrize("case", CASES[::3], ids=[case.name for case in CASES[::3]])
def test_an_inspection_says_so_too(case: Case, tmp_path: Path):
    """`inspect` lists findings where `import` stops at the first error; neither may end internally."""
    path = case.make(tmp_path)
    result = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert result.exit_code == 1
    assert "Internal error" not in result.stderr
    if result.stdout:
        found = json.loads(result.stdout)
        assert not found["may_train"]
        assert any(finding["severity"] == "error" for finding in found["findings"])
    else:
        assert result.stderr.startswith("Error: ")


def test_there_are_many_cases_and_each_has_a_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 200


@pytest.mark.parametrize(
    "case",
    [npz.case("sound"), hdf5.flat("sound"), hdf5.minari("sound"), *others.sound()],
    ids=lambda case: case.name,
)
def test_what_the_hostile_inputs_were_made_from_is_sound(case: Case, tmp_path: Path):
    """Else a case might be refused for another reason than the one that it is about."""
    path = case.make(tmp_path)
    result = CliRunner().invoke(app, ["import", str(path), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["transitions"] >= 116
