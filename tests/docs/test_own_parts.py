"""The package of the tutorial is installed as it stands, tested by its own tests, and used."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.distributions import install

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorials" / "your-own-parts.md"


def files() -> dict[str, str]:
    """Text by path: every block whose first line is a comment with a path."""
    blocks = re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    named = ((re.match(r"# (\S+\.\w+)\n", block), block) for block in blocks)
    return {match[1]: block for match, block in named if match is not None}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, installed where nothing else is."""
    texts = files()
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    modules = {path: text for path, text in texts.items() if path.startswith("robotlab/")}
    modules["robotlab/__init__.py"] = ""
    return install(
        tmp_path_factory.mktemp("site"),
        project["name"],
        modules,
        project["entry-points"],
        version=project["version"],
    )


def run(site: Path, folder: Path, *command: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    variables = {
        **os.environ,
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "1000",
    }
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
    return done


def test_the_parts_pass_the_tests_of_the_page(site: Path, tmp_path: Path) -> None:
    (tmp_path / "test_robotlab.py").write_text(files()["test_robotlab.py"])
    done = run(site, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_robotlab.py")
    assert "3 passed" in done.stdout, done.stdout


PROGRAM = """
import json, sys
from pathlib import Path
import mbrl
from typer.testing import CliRunner
from mbrl.cli.app import app
from mbrl.core.errors import ConfigError
from mbrl.data.formats.base import FORMATS
from mbrl.run.config import resolve
from mbrl.testing.samples import TINY_DYNAMICS, make_dataset

kinds = ("learners", "recipes", "measures", "estimators", "planners", "formats")
origins = {kind: mbrl.catalogue(kind).origins for kind in kinds}
messages = []
for slip in ("algorithm.learner.delt=1", "algorithm.recipe=recnt", "algorithm.learner.name=huber_b"):
    try:
        resolve(arguments={"algorithm": "mine.yaml"}, overrides=[slip])
    except ConfigError as error:
        messages.append(str(error))

command = ["train", "pendulum-mixed", "--algorithm", "mine.yaml", "--set", "algorithm.updates=20"]
trained = CliRunner().invoke(app, [*command, "--set", "diagnostics=false", "--json"])
assert trained.exit_code == 0, trained.output

log = mbrl.load(FORMATS.get("robot_csv").write(make_dataset(), Path("log")))
penalised = mbrl.train(
    log,
    {"recipe": "mopo", "updates": 10, "penalty": {"measure": "reward_std"},
     "learner": {"name": "sac", "hidden": [8]},
     "rollout": {"starts": 20, "respect_trusted_horizon": False}},
    dynamics=TINY_DYNAMICS,
    select="last",
    diagnostics=False,
    store="runs",
    progress=False,
)
found = {
    "origins": origins,
    "messages": messages,
    "trained": json.loads(trained.stdout),
    "penalised": [len(log), penalised.summary["updates"]],
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program worked."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "mine.yaml").write_text(files()["mine.yaml"])
    return folder


@pytest.fixture(scope="module")
def found(site: Path, folder: Path) -> dict[str, Any]:
    """What one process, started where the package is installed, says to all questions."""
    return json.loads(run(site, folder, "-c", PROGRAM).stdout)


def test_every_kind_is_found_and_slips_are_answered_with_the_nearest(found: dict[str, Any]) -> None:
    names = ("huber_bc", "recent", "reward_std", "logged_mean", "ranked_cem", "robot_csv")
    assert list(found["origins"].values()) == [{name: "robotlab 0.1"} for name in names]
    setting, recipe, learner = found["messages"]
    assert "Unknown key algorithm.learner.delt. Did you mean 'delta'?" in setting
    assert "algorithm.recipe = 'recnt' is unknown. Did you mean 'recent'?" in recipe
    assert "'huber_b' is unknown. Did you mean 'huber_bc'?" in learner
    assert "To add your own: @mbrl.registry(\"learners\").register('huber_b')" in learner


def test_the_command_line_trains_what_the_yaml_says(found: dict[str, Any], folder: Path) -> None:
    summary = found["trained"]
    assert (summary["recipe"], summary["learner"]) == ("recent", "huber_bc")
    config = (folder / summary["path"] / "config.yaml").read_text()
    assert "delta: 0.2  # mine.yaml" in config
    assert "share: 0.7  # mine.yaml" in config


def test_a_penalty_reads_the_measure_and_a_log_is_read_by_the_format(found: dict[str, Any]) -> None:
    assert found["penalised"] == [12, 10]


BROKEN = """
import json
from typer.testing import CliRunner
from mbrl.cli.app import app

listed = CliRunner().invoke(app, ["list", "learners", "--json"])
trained = CliRunner().invoke(app, ["train", "pendulum-mixed", "--algorithm", "theirs.yaml"])
print(json.dumps([[done.exit_code, done.stdout, done.stderr] for done in (listed, trained)]))
"""


def test_a_broken_plugin_is_told_and_the_rest_works(site: Path, tmp_path: Path) -> None:
    broken = install(
        tmp_path / "other",
        "broken-lab",
        {"brokenlab.py": "raise RuntimeError('needs a newer robot')\n"},
        {"mbrl.learners": {"broken": "brokenlab:Broken"}},
    )
    both = Path(f"{broken}{os.pathsep}{site}")
    (tmp_path / "theirs.yaml").write_text("recipe: model_free\nlearner: {name: broken}\n")
    listed, trained = json.loads(run(both, tmp_path, "-c", BROKEN).stdout)
    assert (listed[0], trained[0]) == (0, 1)
    assert {"bc", "huber_bc"} <= set(json.loads(listed[1])["names"])
    assert "broken-lab 1.2 cannot be loaded: RuntimeError: needs a newer robot" in listed[2]
    assert "broken-lab 1.2 cannot be loaded" in " ".join(trained[2].split())
