"""A new learner is four files: itself, its yaml, its known answer, its page; nothing else by hand."""

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CARRIED = ("mbrl", "configs", "docs", "scripts", "tests", ".importlinter", "pyproject.toml")

LEARNER = '''\
"""Cloning of actions, each coordinate by its absolute error: outliers among the operators count less.

Source: least absolute deviations, as in any textbook of regression.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, LearnerState, Optimiser
from mbrl.nets.actors import ActorSpec, DeterministicActor
from mbrl.nets.widths import Hidden


class LADConfig(LearnerConfig):
    """Cloning by absolute errors.

    Attributes:
        hidden: widths of the hidden layers.
        learning_rate: Adam rate.
    """

    hidden: Hidden = (64, 64)
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3


@dataclasses.dataclass(slots=True)
class LADState(LearnerState):
    """Network and optimiser."""

    actor: DeterministicActor
    optimiser: Optimiser


@LEARNERS.register("lad", "Cloning of actions by their absolute error.")
class LAD:
    """The learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes and the normaliser.
    """

    Config: ClassVar[type[LearnerConfig]] = LADConfig

    def __init__(self, config: LADConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> LADState:
        """Fresh network and optimiser."""
        spec = ActorSpec("deterministic", self.context.space, self.config.hidden)
        actor = DeterministicActor(spec, copy.deepcopy(self.context.normaliser), generator)
        return LADState(actor, Optimiser(actor.net.flat, self.config.learning_rate))

    def update(self, state: LADState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One gradient step; draws nothing."""
        del generator
        loss = absolute_error(state.actor.scaled_action(batch.observation), state.actor.scale(batch.action))
        state.optimiser.descend(loss)
        return {"policy/loss": loss.detach()}

    def policy(self, state: LADState) -> DeterministicActor:
        """The clone."""
        return state.actor

    def value(self, state: LADState) -> None:
        """A clone estimates no values."""
        del state


def absolute_error(first: Float[Tensor, "b d"], second: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """`mean_{b,d} |first - second|`."""
    return (first - second).abs().mean()
'''

FILES = {
    "mbrl/learners/lad.py": LEARNER,
    "configs/algorithms/lad.yaml": """\
# Cloning by absolute errors.
recipe: model_free
updates: 20000
learner:
  name: lad
""",
    "tests/learners/test_lad.py": """\
import torch

from mbrl.learners.lad import absolute_error


def test_the_error_is_the_mean_of_absolute_values() -> None:
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.0]])
    assert float(absolute_error(first, second)) == (0.5 + 3.0) / 2
""",
    "docs/algorithms/lad.md": """\
# Cloning by absolute errors (`lad`)

## What

Minimises `mean |π(s) - a|` on actions scaled to [-1, 1].

## Source

Least absolute deviations; cloning as in Pomerleau 1989 [@pomerleau1989alvinn].

## Departures

- None.

## Defaults

**`LADConfig`**

| key | default | published |
|---|---|---|
| `hidden` | `[64, 64]` | - |
| `learning_rate` | `0.001` | - |

## When not to use it

- Whenever [the squared error](bc.md) serves.
""",
}
"""All that is written by hand."""

WRITTEN_BY_SCRIPTS = {"README.md", "docs/algorithms/README.md"}
"""What `scripts/algorithm_table.py` writes from the registry."""

TESTS = (
    "tests/learners/test_lad.py",
    "tests/conformance/test_learners.py",
    "tests/conformance/test_algorithms.py",
    "tests/algorithms/test_configs.py",
    "tests/run/test_config.py",
    "tests/docs/test_algorithm_pages.py",
    "tests/docs/test_algorithm_table.py",
    "tests/bench/test_learner_rows.py",
)
"""What holds every learner to account."""

SELECTION = "lad or test_every_recipe_and_learner or algorithm_pages or algorithm_table or learner_rows"
"""Of tests with a case for each learner, those of the new one."""


CONTRACTS = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def run(copy: Path, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *command], cwd=copy, env=variables, capture_output=True, text=True, check=False
    )


def check(copy: Path, *command: str) -> str:
    done = run(copy, *command)
    assert done.returncode == 0, f"{command}: {done.stdout[-6000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with the four files, and its tables renewed."""
    folder = tmp_path_factory.mktemp("tree")
    # Compiled modules go along, as times and sizes of their sources stay; not those just being written.
    ignore = shutil.ignore_patterns("*.pyc.*", "*.hdf5", "videos")
    for path in (*map(ROOT.joinpath, CARRIED), ROOT / "LICENSE", *ROOT.glob("*.md")):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=ignore)
        else:
            shutil.copy(path, folder)
    (folder / "results").symlink_to(ROOT / "results")
    for path, text in FILES.items():
        assert not (folder / path).exists(), path
        (folder / path).write_text(text)
    check(folder, "scripts/algorithm_table.py")
    return folder


def test_four_files_are_enough(copy: Path) -> None:
    check(copy, "-m", "ruff", "check", *(path for path in FILES if path.endswith(".py")))
    check(copy, "scripts/check_sizes.py", "mbrl/learners")
    check(copy, "-c", CONTRACTS)
    entries = check(copy, "-m", "mbrl.cli", "list", "learners", "--json")
    assert "Cloning of actions by their absolute error." in entries
    found = check(copy, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-k", SELECTION, *TESTS)
    for test in TESTS:
        assert test in found, f"nothing of {test} was run"


def test_no_fifth_file_is_changed(copy: Path) -> None:
    changed = {
        path.relative_to(copy).as_posix()
        for path in copy.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and not any(part.startswith((".ruff", ".import_linter")) for part in path.parts)
        and not _is_as_before(path, ROOT / path.relative_to(copy))
    }
    assert changed == {*FILES, *WRITTEN_BY_SCRIPTS}


def _is_as_before(path: Path, original: Path) -> bool:
    return original.is_file() and filecmp.cmp(path, original, shallow=False)


def test_a_learner_that_imports_another_breaks_the_contract(copy: Path) -> None:
    path = copy / "mbrl/learners/lad.py"
    path.write_text(LEARNER + "\n\ndef other() -> None:\n    from mbrl.learners.bc import BC  # noqa: F401\n")
    try:
        done = run(copy, "-c", CONTRACTS)
    finally:
        path.write_text(LEARNER)
    assert done.returncode != 0
    assert "mbrl.learners.lad is not allowed to import mbrl.learners.bc" in done.stdout
