"""The one ritual of all stages: a result is found, or made under a lock and marked as done.

A stage is a function of a section of the config, the content hashes of its inputs and a seed. These make its
`StageKey`, the key its folder; whoever asks for the same again is given the folder that is there.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
import yaml

from mbrl.core.device import CPU, describe_device, find_device
from mbrl.core.progress import Progress, SilentProgress
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.store import SUMMARY_FILE, RunFolder, RunStore, StageKey
from mbrl.shift.support import BehaviourSupport


@dataclasses.dataclass(frozen=True, slots=True)
class Workspace:
    """Where stages work and whom they tell.

    Attributes:
        store: of runs.
        progress: listener.
        minari_root: folder of Minari's local datasets; None for its default.
        device: where stages compute.
        supports: behaviours that diagnostics fitted in this process; runs on the same data and seed share.
    """

    store: RunStore
    progress: Progress = dataclasses.field(default_factory=SilentProgress)
    minari_root: Path | None = None
    device: torch.device = CPU
    supports: dict[str, BehaviourSupport] = dataclasses.field(default_factory=dict[str, BehaviourSupport])

    def on(self, device: str) -> "Workspace":
        """The same, computing elsewhere.

        Args:
            device: by name.

        Raises:
            ConfigError: this machine, or its build of torch, does not have it.
        """
        return dataclasses.replace(self, device=find_device(device))


def set_up_torch(threads: int, device: torch.device = CPU) -> None:
    """`threads` threads; denormal numbers, slow and meaningless here, become zero.

    On a card kernels are chosen that give the same bits again; PyTorch warns of what has none.
    """
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if device.type == "cuda":
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(mode=True, warn_only=True)


@dataclasses.dataclass(slots=True)
class StageWork:
    """What the work of a stage is given.

    Attributes:
        run: the locked folder that results go to.
        key: of the stage.
        progress: listener.
        began: time of the process's clock, seconds, from which this attempt's wall time counts.
    """

    run: RunFolder
    key: StageKey
    progress: Progress
    began: float

    @property
    def path(self) -> Path:
        """Of the folder."""
        return self.run.path

    def checkpoints(self, *, keep: int = 2) -> CheckpointFolder:
        """Checkpoints of this stage; those of another key are refused."""
        return CheckpointFolder(self.path / "checkpoints", self.key.digest, keep=keep)

    def restart_clock(self) -> None:
        """Lets the wall time begin now: what was done before was the work of another stage."""
        self.began = time.perf_counter()

    def note_seconds(self) -> float:
        """Writes the wall time so far, that of interrupted attempts included, to the manifest; returns it."""
        return self.run.add_seconds(time.perf_counter() - self.began)


Work: TypeAlias = Callable[[StageWork], Mapping[str, Any]]
"""Makes the results of a stage in its folder and returns the summary."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The declaration of a stage.

    Attributes:
        key: what its result is a function of.
        config: text of `config.yaml`, or plain values that become one.
        facts: further entries of the manifest, such as the dataset's hash.
        work: makes the result.
        results: files that a finished folder must hold besides the summary; one that lost a file is made
            again.
    """

    key: StageKey
    config: str | Mapping[str, Any]
    facts: Mapping[str, Any]
    work: Work
    results: tuple[str, ...] = ()

    def is_done(self, run: RunFolder) -> bool:
        """Whether `run` ended as it should and holds every result."""
        return run.is_done and all((run.path / name).is_file() for name in (SUMMARY_FILE, *self.results))


def perform(stage: Stage, workspace: Workspace, *, anew: bool = False) -> RunFolder:
    """Finds the result of `stage`, or makes it, continuing where an interrupted attempt stopped.

    A finished folder is only read: it may lie in a store without write permission. An unfinished one is
    locked, gets its config and manifest before anything else, and its summary and mark of completion last.

    Args:
        stage: what is asked.
        workspace: where it is looked for and made, and who is told.
        anew: make it even if it is there; what is rewritten is the same but for timings.

    Raises:
        BusyError: another process works in the folder.
    """
    run = workspace.store.folder(stage.key)
    if stage.is_done(run) and not anew:
        return run
    with workspace.store.locked(stage.key):
        if anew or not stage.is_done(run):  # it may have been finished by another process just now
            config = stage.config
            text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
            facts = {**stage.facts, **describe_device(workspace.device)}
            run.begin(stage.key, config=text, facts=facts)
            work = StageWork(run, stage.key, workspace.progress, time.perf_counter())
            summary = {"stage": stage.key.stage, **stage.work(work)}
            work.note_seconds()
            run.finish(summary)
    return run
