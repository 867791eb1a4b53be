"""The package of the tutorial is installed as it stands, tested by its own tests, and used."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

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


LOOK_UP = """
import json, mbrl
from mbrl.core.errors import ConfigError
from mbrl.run.config import resolve

kinds = ("learners", "recipes", "measures", "estimators", "planners", "formats")
origins = {kind: mbrl.catalogue(kind).origins for kind in kinds}
messages = []
for slip in ("algorithm.learner.delt=1", "algorithm.recipe=recnt", "algorithm.learner.name=huber_b"):
    try:
        resolve(arguments={"algorithm": "mine.yaml"}, overrides=[slip])
    except ConfigError as error:
        messages.append(str(error))
print(json.dumps([origins, messages]))
"""


def test_every_kind_is_found_and_slips_are_answered_with_the_nearest(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(files()["mine.yaml"])
    origins, messages = json.loads(run(site, tmp_path, "-c", LOOK_UP).stdout)
    names = ("huber_bc", "recent", "reward_std", "logged_mean", "ranked_cem", "robot_csv")
    assert list(origins.values()) == [{name: "robotlab 0.1"} for name in names]
    setting, recipe, learner = messages
    assert "Unknown key algorithm.learner.delt. Did you mean 'delta'?" in setting
    assert "algorithm.recipe = 'recnt' is unknown. Did you mean 'recent'?" in recipe
    assert "'huber_b' is unknown. Did you mean 'huber_bc'?" in learner
    assert "To add your own: @mbrl.registry(\"learners\").register('huber_b')" in learner


def test_the_command_line_trains_what_the_yaml_says(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(files()["mine.yaml"])
    command = ("train", "pendulum-mixed", "--algorithm", "mine.yaml", "--set", "algorithm.updates=20")
    done = run(site, tmp_path, "-m", "mbrl.cli", *command, "--json")
    summary = json.loads(done.stdout)
    assert (summary["recipe"], summary["learner"]) == ("recent", "huber_bc")
    config = (tmp_path / summary["path"] / "config.yaml").read_text()
    assert "delta: 0.2  # mine.yaml" in config
    assert "share: 0.7  # mine.yaml" in config


PENALTY = """
from pathlib import Path
import mbrl
from mbrl.data.formats.base import FORMATS
from mbrl.testing.samples import TINY_DYNAMICS, make_dataset

log = mbrl.load(FORMATS.get("robot_csv").write(make_dataset(), Path("log")))
run = mbrl.train(
    log,
    {"recipe": "mopo", "updates": 10, "penalty": {"measure": "reward_std"},
     "learner": {"name": "sac", "hidden": [8]},
     "rollout": {"starts": 20, "respect_trusted_horizon": False}},
    dynamics=TINY_DYNAMICS,
    store="runs",
    progress=False,
)
print(len(log), run.summary["updates"])
"""


def test_a_penalty_reads_the_measure_and_a_log_is_read_by_the_format(site: Path, tmp_path: Path) -> None:
    assert run(site, tmp_path, "-c", PENALTY).stdout == "12 10\n"


def test_a_broken_plugin_is_told_and_the_rest_works(site: Path, tmp_path: Path) -> None:
    broken = install(
        tmp_path / "other",
        "broken-lab",
        {"brokenlab.py": "raise RuntimeError('needs a newer robot')\n"},
        {"mbrl.learners": {"broken": "brokenlab:Broken"}},
    )
    both = Path(f"{broken}{os.pathsep}{site}")
    done = run(both, tmp_path, "-m", "mbrl.cli", "list", "learners", "--json")
    assert {"bc", "huber_bc"} <= set(json.loads(done.stdout)["names"])
    assert "broken-lab 1.2 cannot be loaded: RuntimeError: needs a newer robot" in done.stderr
    (tmp_path / "theirs.yaml").write_text("recipe: model_free\nlearner: {name: broken}\n")
    command = ("-m", "mbrl.cli", "train", "pendulum-mixed", "--algorithm", "theirs.yaml")
    done = run(both, tmp_path, *command, status=1)
    assert "broken-lab 1.2 cannot be loaded" in " ".join(done.stderr.split())
