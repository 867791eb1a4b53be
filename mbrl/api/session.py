"""Where the API works and with what: the run store, whom long work tells, torch, keywords as settings."""

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import torch

from mbrl.api.progress import Listener, choose_progress
from mbrl.core.device import CPU, find_device
from mbrl.core.progress import Progress
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.options import LoadOptions, Origin
from mbrl.run.config import RunConfig
from mbrl.run.documents import KeyPath, Override
from mbrl.run.files import locked
from mbrl.run.stage import Workspace, set_up_torch
from mbrl.run.store import RunStore

MINARI_VARIABLE: Final = "MINARI_DATASETS_PATH"
DATASETS: Final = "datasets"
"""Folder of a run store that holds logs which came from memory, so that their runs can be opened again."""

_SECTIONS = frozenset(RunConfig.model_fields) - {"recipe"}
"""Of a run's config; other keywords are settings of the algorithm."""


def minari_root() -> Path | None:
    """Folder of Minari's local datasets, if the environment names one."""
    folder = os.environ.get(MINARI_VARIABLE)
    return Path(folder) if folder else None


def open_workspace(
    store: str | Path | None = None, progress: Listener = None, device: str | None = None
) -> Workspace:
    """Where a function of the API works and whom it tells.

    Args:
        store: root of the run folders; None for a temporary one of this process, which is announced once.
        progress: see `choose_progress`.
        device: where stages compute; None for the CPU.

    Raises:
        ConfigError: this machine, or its build of torch, does not have the device.
    """
    listener, place = choose_progress(progress), CPU if device is None else find_device(device)
    root = _temporary_store(listener) if store is None else Path(store)
    return Workspace(RunStore(root), listener, minari_root(), place)


def is_temporary(path: Path) -> bool:
    """Whether `path` goes away with this process."""
    made = _temporary_root.cache_info().currsize > 0
    return made and _temporary_root() in path.resolve().parents


def _temporary_store(listener: Progress) -> Path:
    is_new = _temporary_root.cache_info().currsize == 0
    root = _temporary_root()
    if is_new:
        listener.message(
            f"Runs go to {root} and are removed when Python ends. Give store=FOLDER to keep them."
        )
    return root


@functools.lru_cache(maxsize=1)
def _temporary_root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="mbrl-")).resolve()
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@contextlib.contextmanager
def torch_settings(threads: int, device: torch.device = CPU) -> Generator[None]:
    """The settings of stages while they work; the caller's own afterwards."""
    before, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    set_up_torch(threads, device)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)
        torch.set_deterministic_debug_mode(mode)


@contextlib.contextmanager
def at_work(workspace: Workspace, run: RunConfig) -> Generator[Workspace]:
    """The workspace on the device of a run's config, under its settings.

    Raises:
        ConfigError: this machine, or its build of torch, does not have the device.
    """
    there = workspace.on(run.device)
    with torch_settings(run.threads, there.device):
        yield there


def origin_of(log: Dataset, workspace: Workspace) -> Origin:
    """What opens `log` again: its own origin, or that of a copy in the run store.

    A log that was made in memory is written once, as a Minari dataset named by its content, so that a run
    can be planned on, judged and continued by a later process.
    """
    if log.origin is not None:
        return log.origin
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in log.info.name) or "log"
    target = workspace.store.root / DATASETS / f"{name}-{log.content_hash[:8]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            FORMATS.get("minari").write(log, target)  # whole or not at all
    return Origin(str(target.resolve()), LoadOptions())


def log_arguments(log: Dataset | str | Path | None, workspace: Workspace) -> dict[str, Any]:
    """The entries of a run's config that name its log; the config's own where `log` is None."""
    if not isinstance(log, Dataset):
        return {"dataset": None if log is None else str(log)}
    origin = origin_of(log, workspace)
    options = origin.options.model_dump(mode="json", exclude_defaults=True)
    return {"dataset": origin.source, "dataset_options": options or None}


def named_overrides(keywords: Mapping[str, Any], *, home: str | None = "algorithm") -> list[Override]:
    """Dotted keys and values; mappings set what they name and leave the rest.

    Args:
        keywords: by name or dotted name.
        home: section of a key whose first part is no section of a run's config; None for no such section.
    """
    found: list[Override] = []
    for name, value in keywords.items():
        path = tuple(name.split("."))
        if home is not None and path[0] not in _SECTIONS:
            path = (home, *path)
        found += _leaves(path, value)
    return found


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, Mapping) and value:
        for key, below in cast("Mapping[str, Any]", value).items():
            yield from _leaves((*path, *str(key).split(".")), below)
    elif isinstance(value, os.PathLike):
        yield path, os.fspath(cast("os.PathLike[str]", value))  # a path, or a result that stands for its own
    else:
        yield path, list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
