"""What `pip install` brings must work away from the clone: built, installed and used as a stranger would."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("hatchling", reason="the build back end is part of the development environment")

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = (
    "dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[16]", "dynamics.max_updates=20",
    "dynamics.assessment.segments=10", "dynamics.assessment.particles=4", "dynamics.assessment.horizon=3",
    "dynamics.assessment.bootstrap_draws=10",
)  # fmt: skip


def _run(*command: object, cwd: Path, **variables: str) -> str:
    # No PYTHONPATH: the clone must not be found by another way than the wheel.
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    _run(*build, cwd=REPOSITORY)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of a clean environment that sees the dependencies of this one, and the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", programs / "python")
    _run(*pip, "install", "--quiet", "--no-index", "--no-deps", wheel, cwd=folder)
    site = Path(
        _run(programs / "python", "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_the_wheel_holds_every_shipped_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("assets", "report/templates"):
        source = REPOSITORY / "mbrl" / folder
        shipped = {
            path.relative_to(REPOSITORY).as_posix()
            for path in source.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert shipped
        assert shipped <= names
    configs = {
        f"mbrl/{path.relative_to(REPOSITORY).as_posix()}" for path in (REPOSITORY / "configs").rglob("*.yaml")
    }
    assert "mbrl/configs/algorithms/mopo.yaml" in configs
    assert configs <= names
    assert "mbrl/py.typed" in names
    assert not any(name.startswith(("tests/", "configs/", "scripts/")) for name in names)


def test_the_package_is_found_in_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    code = "import mbrl, torch; print(mbrl.__file__); print(torch.__file__)"
    package, torch_file = _run(installed / "python", "-c", code, cwd=tmp_path).split()
    assert Path(package).is_relative_to(installed.parent)
    assert not Path(torch_file).is_relative_to(installed.parent)


def test_the_command_works_away_from_the_clone(installed: Path, tmp_path: Path) -> None:
    mbrl = installed / "mbrl"
    assert "from logged episodes" in _run(mbrl, "--help", cwd=tmp_path)
    tasks = json.loads(_run(mbrl, "list", "tasks", "--json", cwd=tmp_path))["names"]
    assert {"pendulum", "hopper", "halfcheetah", "walker2d"} <= set(tasks)
    overrides = [part for value in TINY for part in ("--set", value)]
    summary = json.loads(_run(mbrl, "fit", "pendulum-mixed", "--json", *overrides, cwd=tmp_path))
    run = tmp_path / summary["path"]
    assert (run / "DONE").exists()
    assert json.loads((run / "manifest.json").read_text())["version"] != "uninstalled"
    assert summary["report"]["training"]["elites"] in ([0, 1], [1, 0])


def test_a_shipped_behaviour_policy_acts(installed: Path, tmp_path: Path) -> None:
    command = (installed / "mbrl", "collect", "pendulum/medium", "--steps", "400", "--json")
    sizes = json.loads(_run(*command, cwd=tmp_path))
    assert sizes["transitions"] == 400
    assert sizes["episodes"] == 2
