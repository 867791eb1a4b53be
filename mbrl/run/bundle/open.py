"""Opens a bundle, and holds it against a log."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import ConfigError, DataError, FileError
from mbrl.data.dataset import Dataset
from mbrl.deploy.contract import CONTRACT_FILE, GUARD_ONNX, Contract
from mbrl.deploy.graph import require
from mbrl.deploy.guard import NOVELTY, SURPRISE
from mbrl.deploy.log import FrameLayout
from mbrl.deploy.replay import CheckedBundle, LoggedScores, replay
from mbrl.deploy.steps import Steps
from mbrl.run.bundle.parity import guard_feed, run_graph
from mbrl.run.files import is_file, read_file, read_record

_REMEDY: Final = "Export the policy again: mbrl export RUN --out FOLDER."
_GUARD_ROWS: Final = 2048
"""Rows that the guard judges at once."""


def open_bundle(folder: Path) -> Contract:
    """The contract of a bundle whose files are what it says.

    Raises:
        ConfigError: there is no bundle.
        FileError: its contract cannot be read, or a file is missing or another one.
    """
    path = folder / CONTRACT_FILE
    if not is_file(path):
        raise ConfigError(
            f"{folder} is no bundle: it has no {CONTRACT_FILE}. Remedy: mbrl export RUN --out FOLDER."
        )
    contract = read_record(path, Contract, remedy=_REMEDY)
    for name, digest in contract.files.items():
        if Path(name).name != name:
            raise FileError(path, f"{name!r} is no name of a file", field="files", remedy=_REMEDY)
        if not is_file(folder / name) or _sha256(folder / name) != digest:
            raise FileError(
                folder / name,
                "it is missing, or not the file that the contract was written for",
                remedy=_REMEDY,
            )
    return contract


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_file(path, remedy=_REMEDY)).hexdigest()


def check_bundle(
    folder: Path, log: Dataset, *, max_rows: int, on_step: Callable[[int], None] | None = None
) -> CheckedBundle:
    """Replays a log through the runtime of a bundle.

    Args:
        folder: of the bundle.
        log: with its channels.
        max_rows: steps that are replayed: whole episodes until there are so many.
        on_step: told after each how many there were.

    Raises:
        ConfigError: there is no bundle.
        DataError: the channels of the log are others.
    """
    contract = open_bundle(folder)
    require("onnxruntime", purpose="mbrl deploy-check")
    from mbrl.deploy.runtime import Controller

    _check_channels(contract, log)
    part = log.select(chosen_episodes(log, max_rows))
    with Controller(folder) as controller:
        found = replay(part, controller, contract, on_step=on_step)
    return CheckedBundle(contract, found, logged_scores(folder, contract, part))


def chosen_episodes(log: Dataset, max_rows: int) -> list[int]:
    """Evenly spread episodes of together about `max_rows` steps, one at least."""
    total = log.num_transitions
    count = len(log) if total <= max_rows else max(1, len(log) * max_rows // total)
    return sorted({int(k) for k in np.linspace(0, len(log) - 1, count)})


def _check_channels(contract: Contract, log: Dataset) -> None:
    layout = FrameLayout.of(log)
    pairs = (
        ("observation", contract.frame_names, layout.names),
        ("action", contract.action_names, log.act_names),
    )
    for what, wanted, given in pairs:
        if tuple(wanted) != tuple(given):
            raise DataError(
                f"the {what} channels are {', '.join(given)}; those of the bundle {', '.join(wanted)}",
                field=f"{what}.channels",
                remedy="Import the log with the schema of the bundle's own log, or name its columns alike.",
            )
    if layout.history != contract.observation.history:
        raise DataError(
            f"an observation has {layout.history} frames, that of the bundle {contract.observation.history}",
            field="observation.history",
            remedy="Import the log with the same history.",
        )


def logged_scores(folder: Path, contract: Contract, log: Dataset) -> LoggedScores | None:
    """What the guard of a bundle says of a log with its own actions; None for a bundle without a guard.

    Args:
        folder: of the bundle.
        contract: of it.
        log: with its channels.
    """
    if contract.guard is None:
        return None
    content = read_file(folder / GUARD_ONNX, remedy=_REMEDY)
    steps, history = Steps.of(log), contract.observation.history
    found: list[dict[str, Any]] = []
    for start in range(0, len(steps), _GUARD_ROWS):
        part = steps.take(np.arange(start, min(start + _GUARD_ROWS, len(steps))))
        found.append(run_graph(content, guard_feed(part, history)))
    novelty, surprise = (
        np.concatenate([part[name] for part in found]).astype(np.float64) for name in (NOVELTY, SURPRISE)
    )
    return LoggedScores(novelty, surprise, steps.group)
