"""A training that is to be longer than one that was made before goes on from there, bit for bit.

An update depends on its number, the seed and the config; where that reads its own length (learning rates that
fall to the end), the shorter training is another one from its first update.
"""

import dataclasses
import functools
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy
from mbrl.core.types import StateDict
from mbrl.run.checkpoint import CheckpointFolder
from mbrl.run.config import RunConfig, stable_hash
from mbrl.run.files import is_locked, make_folder, storing, write_bytes
from mbrl.run.judge.along import KEPT_FOLDER, KeptPolicies
from mbrl.run.loop import lengthened
from mbrl.run.metrics import METRICS_FILE, sound_length
from mbrl.run.policies import load_policy
from mbrl.run.stage import StageWork
from mbrl.run.store import RunFolder, RunStore, StageKey

_STEP: Final = re.compile(r"step-(\d{12})\.pt")


@dataclasses.dataclass(frozen=True, slots=True)
class ShorterRun:
    """A training of the same identity but for its length.

    Attributes:
        run: its folder.
        digest: of its identity.
        updates: that it was told to make.
        step: of its newest checkpoint that is not beyond the wanted length.
        seconds: wall time of all its attempts.
    """

    run: RunFolder
    digest: str
    updates: int
    step: int
    seconds: float


def continue_shorter(config: RunConfig, store: RunStore, work: StageWork, kept: KeptPolicies) -> None:
    """Puts into an empty folder what a training of fewer updates left, if there is one to go on from.

    Args:
        config: of the run.
        store: where the other may be.
        work: of the run; its folder is left as it is where it has a checkpoint.
        kept: policies that the run keeps; the other must have kept those before its checkpoint.
    """
    if work.checkpoints().files():
        return
    found = max(_shorter_runs(work.key, store), key=lambda other: other.step, default=None)
    if found is None:
        return
    theirs = dataclasses.replace(kept, folder=found.run.path / KEPT_FOLDER)
    obstacle = _obstacle(config) or _lost_choice(theirs, found.step)
    if obstacle is not None:
        work.progress.message(
            f"A training of {found.updates:,} updates with the same settings is in {found.run.path}, but "
            f"{obstacle}: this one starts from the beginning."
        )
        return
    _adopt(found, work, kept, theirs)


def _lost_choice(kept: KeptPolicies, step: int) -> str | None:
    missing = kept.missing(step)
    return f"it kept no policy of update {missing[0]:,}, which may be selected" if missing else None


def _obstacle(config: RunConfig) -> str | None:
    """Why a longer training with this config is no continuation of a shorter one; None if it is."""
    if config.algorithm.depends_on_length:
        return "its updates depend on the length of the training (a schedule of the learning rate, say)"
    if config.keep_policies:
        return "keep_policies asks for the policies along the whole way"
    return None


def _shorter_runs(key: StageKey, store: RunStore) -> Iterator[ShorterRun]:
    """Trainings that differ in `algorithm.updates` alone, and have a checkpoint within the wanted length."""
    wanted = _without_updates(key.identity)
    updates = _updates(key.identity)
    for run, manifest in store.manifests():
        identity: Mapping[str, Any] = manifest["identity"]
        if manifest["stage"] != key.stage or manifest["seed"] != key.seed or manifest["hash"] == key.digest:
            continue
        if _without_updates(identity) != wanted or is_locked(run.path / ".lock"):
            continue
        found = (_STEP.fullmatch(path.name) for path in (run.path / "checkpoints").glob("step-*.pt"))
        steps = [int(match[1]) for match in found if match is not None]
        steps = [step for step in steps if step <= updates]
        if steps:
            seconds = float(manifest["wall_seconds"])
            yield ShorterRun(run, str(manifest["hash"]), _updates(identity), max(steps), seconds)


def _adopt(found: ShorterRun, work: StageWork, kept: KeptPolicies, theirs: KeptPolicies) -> None:
    """Copies what was written until the checkpoint, and the checkpoint last of all."""
    folder = CheckpointFolder(found.run.path / "checkpoints", found.digest)
    try:
        loaded = folder.load_latest(work.progress.message, accept=lengthened, most=found.step)
    except ConfigError as error:  # of another version of this package
        work.progress.message(str(error))
        return
    if loaded is None:
        return
    step, content = loaded
    content = lengthened(content)
    copy_rows(found.run.path, work.path, content)
    for step_kept in (one for one in kept.steps if one <= step):
        kept.keep(step_kept, functools.partial(_policy_in, theirs.path(step_kept)))
    work.run.note_continuation(found.run.path, updates=step, seconds=found.seconds)
    work.checkpoints().save(step, content)
    work.progress.message(f"Continues from update {step:,} of {found.run.path}.")


def _policy_in(path: Path) -> Policy:
    return load_policy(path).policy


def copy_rows(source: Path, target: Path, content: StateDict) -> None:
    """Copies the metrics of a training until a checkpoint.

    Args:
        source: folder of the training.
        target: folder of the one that goes on.
        content: of the checkpoint.
    """
    make_folder(target)
    length = sound_length(source, content["monitor"]["position"])
    if length > 0:
        write_bytes(target / METRICS_FILE, (source / METRICS_FILE).read_bytes()[:length])
    events = source / "tensorboard"
    if events.is_dir():
        with storing(target / events.name):
            shutil.copytree(events, target / events.name, dirs_exist_ok=True)


def _updates(identity: Mapping[str, Any]) -> int:
    value = _algorithm(identity).get("updates")
    return value if isinstance(value, int) else 0


def _without_updates(identity: Mapping[str, Any]) -> str:
    """Digest of an identity without the length."""
    rest = {key: value for key, value in _algorithm(identity).items() if key != "updates"}
    return stable_hash({**identity, "algorithm": rest})


def _algorithm(identity: Mapping[str, Any]) -> dict[str, Any]:
    section: Any = identity.get("algorithm")
    return cast("dict[str, Any]", section) if isinstance(section, dict) else {}
