"""Where the API works and with what: the run store, whom long work tells, torch, keywords as settings."""

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import torch

from mbrl.api.progress import Listener, choose_progress
from mbrl.core.device import CPU, find_device
from mbrl.core.errors import ConfigError
from mbrl.core.progress import Progress
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.merging.merge import merge_datasets
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
    return store_log(log, workspace) if log.origin is None else log.origin


def store_log(log: Dataset, workspace: Workspace) -> Origin:
    """A copy of a log in the run store, written once."""
    name = "".join(c if c.isalnum() or c in "._-" else "-" for c in log.info.name) or "log"
    target = workspace.store.root / DATASETS / f"{name}-{log.content_hash[:8]}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            FORMATS.get("minari").write(log, target)  # whole or not at all
    return Origin(str(target.resolve()), LoadOptions())


Log: TypeAlias = Dataset | str | Path | Sequence[Dataset | str | Path]
"""An open log, what `load` takes, or several of these that are taken as one (`mbrl.data.merging`)."""


def log_arguments(log: Log | None, workspace: Workspace) -> dict[str, Any]:
    """The entries of a run's config that name its log; the config's own where `log` is None.

    Raises:
        ConfigError: of several open logs, one was opened with other options than another.
    """
    if log is None or isinstance(log, (str, Path)):
        return {"dataset": None if log is None else str(log)}
    if not isinstance(log, Dataset):
        return _arguments_of_several(log, workspace)
    origin = origin_of(log, workspace)
    options = origin.options.model_dump(mode="json", exclude_defaults=True)
    source = origin.source if isinstance(origin.source, str) else list(origin.source)
    return {"dataset": source, "dataset_options": options or None}


def _arguments_of_several(logs: Sequence[Dataset | str | Path], workspace: Workspace) -> dict[str, Any]:
    named = [log_arguments(log, workspace) for log in logs]
    sources: list[str] = []
    for entry in named:
        sources += [entry["dataset"]] if isinstance(entry["dataset"], str) else entry["dataset"]
    options = [entry["dataset_options"] for entry in named if "dataset_options" in entry]
    if any(other != options[0] for other in options):
        raise ConfigError(
            f"Logs that are taken as one are opened alike, and these were with {options[0] or 'no options'} "
            "and others. Remedy: the same options for all, or mbrl.data.merging.merge.merge_datasets."
        )
    given = {"dataset_options": options[0]} if options else {}
    return {"dataset": sources if len(sources) > 1 else next(iter(sources), None), **given}


def open_log(log: Log | None) -> Dataset | None:
    """The log itself if it is open, several open ones as one; None where a config has to open it."""
    if isinstance(log, Dataset):
        return log
    if log is None or isinstance(log, (str, Path)):
        return None
    logs = [one for one in log if isinstance(one, Dataset)]
    if not logs or len(logs) < len(log):
        return None
    return logs[0] if len(logs) == 1 else merge_datasets(logs)


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
