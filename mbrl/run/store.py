"""Where runs live: one folder for each stage, found by a hash of everything that it depends on."""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from mbrl.core.assets import PACKAGE
from mbrl.core.errors import ConfigError, FileError
from mbrl.run.config import stable_hash
from mbrl.run.files import (
    check_values,
    is_file,
    locked,
    make_folder,
    read_json,
    storing,
    write_bytes,
    write_json,
    write_text,
)
from mbrl.run.records import Manifest, Record

StageName: TypeAlias = Literal[
    "fit_dynamics",
    "fit_reward",
    "train_policy",
    "collect_batch",
    "evaluate",
    "backtest",
    "calibrate_judges",
    "audit_plans",
    "ope",
    "report",
    "fit_critic",
    "calibrate_planner",
    "calibrate_gate",
    "plan",
]

DISTRIBUTION: Final = "mbrl-offline"
MANIFEST_FILE: Final = "manifest.json"
SUMMARY_FILE: Final = "summary.json"

_LONGEST_SLUG: Final = 100
_PACKAGES: Final = ("torch", "numpy", "gymnasium", "mujoco")


@dataclasses.dataclass(frozen=True, slots=True)
class StageKey:
    """What a stage's result is a function of.

    Attributes:
        stage: which stage.
        dataset: short name of the dataset or task, for the folder.
        label: short name of the algorithm, for the folder.
        seed: of the stage.
        identity: config section and input hashes; equal identities have equal results.
    """

    stage: StageName
    dataset: str
    label: str
    seed: int
    identity: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hex digest of stage, seed and identity; names for people do not enter."""
        return stable_hash({"stage": self.stage, "seed": self.seed, "identity": dict(self.identity)})

    @property
    def folder(self) -> Path:
        """Path below the root, `<dataset>/<stage>-<label>-s<seed>-<hash>`."""
        name = f"{self.stage}-{_slug(self.label)}-s{self.seed}-{self.digest[:8]}"
        return Path(_slug(self.dataset)) / name


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """One run on disk.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def is_done(self) -> bool:
        """Whether the stage ended as it should."""
        return (self.path / "DONE").exists()

    def summary(self, form: type[Record] = Record) -> dict[str, Any]:
        """What the stage found.

        Args:
            form: that it must have, where somebody relies on its entries.

        Raises:
            FileError: the file is damaged, or of another form.
        """
        return self._read(SUMMARY_FILE, form)

    def manifest(self) -> dict[str, Any]:
        """Where the run comes from.

        Raises:
            FileError: the file is damaged, or no manifest.
        """
        return self._read(MANIFEST_FILE, Manifest)

    def manifest_or_none(self) -> dict[str, Any] | None:
        """The same, or None where the file is absent or damaged."""
        try:
            return self.manifest()
        except FileError:
            return None

    def _read(self, name: str, form: type[Record]) -> dict[str, Any]:
        path = self.path / name
        values = read_json(path)
        check_values(form, values, file=path)
        return values

    def begin(self, key: StageKey, *, config: str, facts: Mapping[str, Any]) -> None:
        """Writes config and manifest, before any work; whoever calls holds the lock of the folder.

        Args:
            key: of the stage.
            config: text of `config.yaml`.
            facts: further entries of the manifest (dataset hash, device, threads).
        """
        with storing(self.path / "DONE"):
            (self.path / "DONE").unlink(missing_ok=True)
        write_text(self.path / "config.yaml", config)
        known = self.manifest_or_none()  # that of a damaged file is written anew
        before = known["wall_seconds"] if known else 0.0
        resumes = known["resumes"] + 1 if known else 0
        moved = _began_on(known or {}, facts.get("device"))
        manifest = {
            "stage": key.stage,
            "dataset": key.dataset,
            "label": key.label,
            "seed": key.seed,
            "hash": key.digest,
            "identity": dict(key.identity),
            **facts,
            **moved,
            **code_facts(),
            "resumes": resumes,
            "wall_seconds_before": before,
            "wall_seconds": before,
        }
        write_json(self.path / MANIFEST_FILE, manifest)

    def add_seconds(self, seconds: float) -> float:
        """Sets the wall time: that of earlier processes plus `seconds` of this one; returns it."""
        manifest = self.manifest()
        manifest["wall_seconds"] = round(manifest["wall_seconds_before"] + seconds, 3)
        write_json(self.path / MANIFEST_FILE, manifest)
        return manifest["wall_seconds"]

    def note_continuation(self, source: Path, *, updates: int, seconds: float) -> None:
        """Notes that the run goes on from another one, whose wall time then counts as its own.

        Args:
            source: folder of the other.
            updates: that were taken over.
            seconds: wall time of the other.
        """
        manifest = self.manifest()
        manifest["continues"] = {"run": str(source), "updates": updates}
        manifest["wall_seconds_before"] = manifest["wall_seconds"] = round(seconds, 3)
        write_json(self.path / MANIFEST_FILE, manifest)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the summary, then the mark that the stage is done."""
        write_json(self.path / SUMMARY_FILE, summary)
        write_bytes(self.path / "DONE", b"")


class RunStore:
    """All runs below one root.

    Args:
        root: made when the first run is.

    Raises:
        ConfigError: the root is a file.
    """

    def __init__(self, root: Path) -> None:
        if is_file(root):
            raise ConfigError(
                f"{root} is a file, not the root of run folders. Remedy: name a folder (--runs, store=)."
            )
        self.root = root

    def folder(self, key: StageKey) -> RunFolder:
        """Where the stage's result is, or will be."""
        return RunFolder(self.root / key.folder)

    @contextlib.contextmanager
    def locked(self, key: StageKey) -> Generator[RunFolder]:
        """Makes the folder of a stage and holds its lock.

        Raises:
            BusyError: another process works in it.
            StorageError: it cannot be made.
        """
        run = self.folder(key)
        make_folder(run.path)
        with locked(run.path / ".lock"):
            yield run

    def runs(self) -> list[RunFolder]:
        """Every run below the root, by path."""
        return [RunFolder(path.parent) for path in sorted(self.root.glob(f"*/*/{MANIFEST_FILE}"))]

    def manifests(self) -> Iterator[tuple[RunFolder, dict[str, Any]]]:
        """Every run whose manifest can be read, with it; a damaged one is no run of anybody."""
        for run in self.runs():
            manifest = run.manifest_or_none()
            if manifest is not None:
                yield run, manifest


def find_run(path: Path, *, stage: StageName) -> RunFolder:
    """The finished run of `stage` in the folder `path`.

    Raises:
        ConfigError: it is no run folder, of another stage, or not finished.
    """
    run = RunFolder(path)
    if not is_file(path / MANIFEST_FILE):
        raise ConfigError(f"{path} is not a run folder: it has no manifest.json. Remedy: see mbrl status.")
    found = run.manifest()["stage"]
    if found != stage:
        raise ConfigError(f"{path} is a run of stage {found}; a run of stage {stage} is needed.")
    if not run.is_done:
        raise ConfigError(f"The run in {path} is not finished. Remedy: run its command again to continue it.")
    return run


def _began_on(known: Mapping[str, Any], device: str | None) -> dict[str, str]:
    """The device that an interrupted run began on, where its bits are not those of one device alone."""
    first = known.get("began_on")
    if first is None and known.get("device") not in {None, device}:
        first = known["device"]
    return {} if first is None else {"began_on": str(first)}


def code_facts() -> dict[str, Any]:
    """Versions of this package, of what computes, and the machine."""
    return {
        "version": package_version(),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
    }


def package_version() -> str:
    """Version of the installed distribution; `uninstalled` when run from a bare clone."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "uninstalled"


def _commit() -> str | None:
    """Commit of a clone, with `+` if files differ from it; None outside of a clone."""
    clone = PACKAGE.parent
    if not (clone / ".git").exists():
        return None
    command = ["git", "-C", str(clone), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:_LONGEST_SLUG] or "unnamed"
