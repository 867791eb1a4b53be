"""Whatever a policy file holds, the command says what is wrong with which file and what to do."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mbrl.cli.app import app
from mbrl.run.policies import open_policy
from tests.hostile import policies
from tests.hostile.case import Case, judge, run_case

CASES = policies.cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_policy_is_refused_clearly(case: Case, tmp_path: Path):
    outcome = run_case(case, tmp_path)
    assert judge(case, outcome) == [], outcome.message


def test_there_are_many_cases_and_each_has_a_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 100


@pytest.mark.parametrize("kind", ["tanh_gaussian", "mixture", "bcq"])
def test_what_the_hostile_policies_were_made_from_is_sound(kind: str, tmp_path: Path):
    path = policies.raw("sound", lambda: policies.packed(*policies.sound(kind))).make(tmp_path)
    assert open_policy(path).network.spec.space == policies.PENDULUM
    result = CliRunner().invoke(
        app, ["evaluate", str(path), "--episodes", "1", "--runs", str(tmp_path / "r")]
    )
    assert result.exit_code == 0, result.stderr
