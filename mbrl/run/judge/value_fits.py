"""Value fits of a stage: a killed one goes on where it was, and progress is told."""

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.device import CPU, on_device
from mbrl.core.estimates import Estimand
from mbrl.core.progress import Progress
from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.off_policy.value.fqe import FQEConfig, FQEResult, FQEState, fit_fqe
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.stage import StageWork

SECONDS_BETWEEN: Final = 10.0
"""Least time between two checkpoints of a fit; the last state is always kept."""


@dataclasses.dataclass(frozen=True, slots=True)
class KeptFits:
    """Fits of one stage; finished ones are read back.

    Attributes:
        folder: of the checkpoints.
        digest: of the stage; a checkpoint of another one is refused.
        progress: told of the updates.
        label: of the fits, for people.
        device: where updates are made.
    """

    folder: Path
    digest: str
    progress: Progress
    label: str = "fit values"
    device: torch.device = CPU

    @classmethod
    def of(cls, work: StageWork, label: str, device: torch.device) -> "KeptFits":
        """Fits that belong to a stage, kept among its checkpoints."""
        return cls(work.path / "checkpoints", work.key.digest, work.progress, label, device)

    def __call__(
        self,
        dataset: Dataset,
        policy: Policy,
        *,
        estimand: Estimand,
        config: FQEConfig,
        generator: torch.Generator,
        fold: NDArray[np.int64] | None = None,
    ) -> FQEResult:
        """`fit_fqe`; within a stage episodes and folds tell one fit from another."""
        name = dataset.content_hash[:16] + ("" if fold is None else "-folds")
        checkpoints = CheckpointFolder(self.folder / name, self.digest, keep=1)
        saved = time.monotonic()

        def restore(state: FQEState) -> bool:
            return checkpoints.load_latest(self.progress.message, accept=state.load_state_dict) is not None

        def on_look(state: FQEState) -> None:
            nonlocal saved
            self.progress.advance(state.updates, value=state.history[-1] if state.history else float("nan"))
            if time.monotonic() - saved > SECONDS_BETWEEN or state.updates == config.updates:
                checkpoints.save(state.updates, on_device(state.state_dict(), CPU))
                saved = time.monotonic()

        self.progress.start(self.label, config.updates)
        try:
            return fit_fqe(
                dataset,
                policy,
                estimand=estimand,
                config=config,
                generator=generator,
                fold=fold,
                restore=restore,
                on_look=on_look,
                device=self.device,
            )
        finally:
            self.progress.finish()

    def drop(self) -> None:
        """Removes the checkpoints, once the stage has its result."""
        shutil.rmtree(self.folder, ignore_errors=True)
