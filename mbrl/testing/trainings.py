"""Trainings in a folder that goes away: killed, continued, and held against those that ran through."""

import contextlib
import copy
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from mbrl.core.errors import MbrlError
from mbrl.core.protocols import Policy, Training
from mbrl.core.rng import RngStreams
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.continuation import copy_rows
from mbrl.run.diagnostics import ShiftMonitor
from mbrl.run.loop import LoopSettings, lengthened, train
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import load_policy, save_policy
from mbrl.testing.checks import CheckError, expect, expect_same

_HASH: Final = "check"


class _KilledError(BaseException):
    """The process ends here."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a training left.

    Attributes:
        content: states of learner and source in the last checkpoint.
        metrics: rows of the metrics file, without times.
        state: the learner's.
    """

    content: dict[str, Any]
    metrics: list[dict[str, Any]]
    state: Any


def train_in(
    folder: Path, training: Training, *, updates: int, seed: int = 0, diagnostics: ShiftMonitor | None = None
) -> Trained:
    """Runs a training to its last update, with a checkpoint after every fifth."""
    folder.mkdir(exist_ok=True)
    settings = LoopSettings(updates=updates, log_interval=7, checkpoint_interval=5, config_hash=_HASH)
    outcome = train(training, folder=folder, rng=RngStreams(seed), settings=settings, diagnostics=diagnostics)
    warnings: list[str] = []
    found = CheckpointFolder(folder / "checkpoints", _HASH).load_latest(warnings.append)
    if found is None or warnings:
        raise CheckError(f"expected a checkpoint that can be read; came {warnings or 'none'}")
    done, content = found
    expect(done == updates, f"a last checkpoint after {updates} updates", came=done)
    metrics = [
        {key: value for key, value in row.items() if not key.startswith("time/")}
        for row in read_metrics(folder)
    ]
    return Trained({"learner": content["learner"], "source": content["source"]}, metrics, outcome.state)


def check_resume(make: Callable[[], Training], *, updates: int, cuts: Sequence[int]) -> None:
    """Kills trainings in the middle of an update and continues them.

    Args:
        make: a fresh training, always the same.
        updates: of the whole.
        cuts: updates in which a training dies.

    Raises:
        CheckError: a continued training ends elsewhere than the uninterrupted one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        whole = train_in(root / "whole", make(), updates=updates)
        for cut in cuts:
            folder = root / f"cut-{cut}"
            with contextlib.suppress(_KilledError):
                train_in(folder, _killed_at(make(), cut), updates=updates)
            resumed = train_in(folder, make(), updates=updates)
            where = f"a training killed in update {cut} and continued to end where the uninterrupted one does"
            expect_same(resumed.content, whole.content, where)
            expect_same(resumed.metrics, whole.metrics, f"the metrics of {where}")


def check_longer(make: Callable[[int], Training], *, updates: int, shorter: Sequence[int]) -> None:
    """Makes trainings that ended longer.

    Args:
        make: a fresh training that is told its length.
        updates: of the whole.
        shorter: lengths that trainings had before.

    Raises:
        CheckError: a training that was made longer ends elsewhere than one that was told its length at once.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        whole = train_in(root / "whole", make(updates), updates=updates)
        for length in shorter:
            old, new = root / f"old-{length}", root / f"new-{length}"
            train_in(old, make(length), updates=length)
            found = CheckpointFolder(old / "checkpoints", _HASH).load_latest(_ignore)
            assert found is not None
            content = lengthened(found[1])
            copy_rows(old, new, content)
            CheckpointFolder(new / "checkpoints", _HASH).save(length, content)
            longer = train_in(new, make(updates), updates=updates)
            where = (
                f"a training of {length} updates that was made {updates} long to end where one does that was"
            )
            expect_same(longer.content, whole.content, where)
            expect_same(longer.metrics, whole.metrics, f"the metrics of {where}")


def _ignore(text: str) -> None:
    del text


def check_stored_policy(policy: Policy, obs: Tensor) -> None:
    """Writes a policy, reads it back, and lets both act.

    Raises:
        CheckError: it cannot be written or read, or acts otherwise.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.safetensors"
        try:
            save_policy(path, policy, {})
            again = load_policy(path).policy
        except MbrlError as error:
            raise CheckError(f"expected a policy that can be saved and loaded; came {error}") from error
        expect(
            torch.equal(again.act(obs), policy.act(obs)),
            "the same actions after saving and loading",
            came="others",
        )


def _killed_at(training: Training, step: int) -> Training:
    """The same training, whose process dies in the middle of update `step`."""
    learner = copy.copy(training.learner)
    update, count = learner.update, [0]

    def dying(state: Any, batch: Any, generator: Any) -> Any:
        if count[0] == step:
            raise _KilledError
        count[0] += 1
        return update(state, batch, generator)

    object.__setattr__(learner, "update", dying)
    return dataclasses.replace(training, learner=learner)
