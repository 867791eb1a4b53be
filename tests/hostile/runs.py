"""Run folders that were damaged, and what every command makes of them."""

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from typer.testing import CliRunner

from mbrl.cli.app import app
from tests.hostile.case import PLACE, Case, Ending

TRAIN: Final = (
    "train", "pendulum-mixed", "--algorithm", "bc", "--set", "algorithm.updates=20", "--set",
    "algorithm.learner.hidden=[8]", "--set", "checkpoint_interval=10", "--set", "log_interval=5",
)  # fmt: skip
FIT: Final = (
    "fit", "pendulum-mixed", "--dynamics", "small", "--set", "dynamics.members=2",
    "--set", "dynamics.elites=1", "--set", "dynamics.hidden=[8]", "--set", "dynamics.max_updates=20",
)  # fmt: skip

Damage = Callable[[Path], object]


@functools.cache
def sound() -> Path:
    """A store with a training and a fit that ended well."""
    root = Path(tempfile.mkdtemp(prefix="hostile-runs-"))
    for command in (TRAIN, FIT):
        result = CliRunner().invoke(app, [*command, "--runs", str(root)])
        assert result.exit_code == 0, result.stderr
    return root


def forget() -> None:
    """Removes it."""
    if sound.cache_info().currsize:
        shutil.rmtree(sound())
        sound.cache_clear()


def copied(folder: Path, stage: str) -> Path:
    """A copy of the store below a folder; returns the run of the stage in it."""
    shutil.copytree(sound(), folder / "store", symlinks=True)
    (run,) = (folder / "store").glob(f"*/{stage}-*")
    return run


def write(name: str, content: str | bytes) -> Damage:
    """A file with other content."""
    data = content if isinstance(content, bytes) else content.encode()
    return lambda run: (run / name).write_bytes(data)


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Damage:
    """A JSON file with something changed in it."""

    def damage(run: Path) -> None:
        values = json.loads((run / name).read_text())
        change(values)
        (run / name).write_text(json.dumps(values))

    return damage


def remove(name: str) -> Damage:
    """A file less."""
    return lambda run: (run / name).unlink()


def folder_for(name: str) -> Damage:
    """A folder where a file was."""

    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return damage


def half(name: str) -> Damage:
    """The first half of a file."""

    def damage(run: Path) -> None:
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])

    return damage


def link_to(name: str, target: str) -> Damage:
    """A link where a file was."""

    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(target)

    return damage


def damages(result: str) -> dict[str, Damage]:
    """By name; `result` is the file that the stage is for."""
    deep = "[" * 100_000
    return {
        "no manifest": remove("manifest.json"),
        "an empty manifest": write("manifest.json", ""),
        "half a manifest": half("manifest.json"),
        "a manifest of bytes": write("manifest.json", b"\xff\xfe\x00"),
        "a manifest that is a list": write("manifest.json", "[]"),
        "a manifest 100,000 deep": write("manifest.json", deep),
        "a manifest without a stage": edit("manifest.json", lambda own: own.pop("stage")),
        "a manifest of a stage 3": edit("manifest.json", lambda own: own.update(stage=3)),
        "a manifest with seconds in words": edit("manifest.json", lambda own: own.update(wall_seconds="1")),
        "a manifest with a NaN": edit("manifest.json", lambda own: own.update(wall_seconds=float("nan"))),
        "a manifest that links to itself": link_to("manifest.json", "manifest.json"),
        "a manifest that is a folder": folder_for("manifest.json"),
        "a manifest that is a device": link_to("manifest.json", "/dev/zero"),
        "no config": remove("config.yaml"),
        "an empty config": write("config.yaml", ""),
        "a config that is a list": write("config.yaml", "- 1"),
        "a config with an object of Python": write("config.yaml", "!!python/object/apply:os.system ['x']"),
        "a config of unknown keys": write("config.yaml", "evil: 1"),
        "a config that is a folder": folder_for("config.yaml"),
        "no summary": remove("summary.json"),
        "an empty summary": write("summary.json", ""),
        "a summary of nothing": write("summary.json", "{}"),
        "a summary that is a list": write("summary.json", "[1]"),
        "a summary 100,000 deep": write("summary.json", deep),
        "half a summary": half("summary.json"),
        "no result": remove(result),
        "an empty result": write(result, b""),
        "half a result": half(result),
        "a result of noise": write(result, bytes(range(256)) * 20),
        "a result that is a folder": folder_for(result),
        "a result that links to itself": link_to(result, result),
        "a mark that is a folder": folder_for("DONE"),
        "metrics of noise": write("metrics.jsonl", bytes(range(256))),
        "metrics that are lists": write("metrics.jsonl", "[1]\n[2]\n"),
        "metrics in words": write("metrics.jsonl", '{"step": "x", "policy/loss": "y"}\n'),
        "metrics 100,000 deep": write("metrics.jsonl", deep + "\n"),
        "a report that is a number": write("report.json", "3"),
        "half a report": write("report.json", '{"training": {'),
        "a report of nothing": write("report.json", "{}"),
    }


COMMANDS: Final[tuple[tuple[str, tuple[str, ...], Ending], ...]] = (
    ("train_policy", ("status", "STORE"), "answered"),
    ("fit_dynamics", ("status", "STORE"), "answered"),
    ("train_policy", ("evaluate", PLACE, "--episodes", "1", "--runs", "STORE"), "either"),
    ("train_policy", ("export", PLACE, "--out", "OUT.safetensors"), "either"),
    ("train_policy", ("report", PLACE), "either"),
    ("fit_dynamics", ("report", PLACE), "either"),
    ("train_policy", (*TRAIN, "--runs", "STORE"), "either"),
    ("fit_dynamics", (*FIT, "--runs", "STORE"), "either"),
)
RESULTS: Final = {"train_policy": "policy.safetensors", "fit_dynamics": "dynamics.safetensors"}


def begun(run: Path, spoil: Callable[[Path], object], *, every: bool) -> None:
    """A training that was killed at its end, and whose checkpoints were spoilt since: the newest, or all."""
    for name in ("DONE", "summary.json", "policy.safetensors"):
        (run / name).unlink()
    paths = sorted((run / "checkpoints").iterdir())
    for path in paths if every else paths[-1:]:
        spoil(path)


def seal(data: bytes) -> Callable[[Path], object]:
    """A checkpoint with the right magic word and digest, whatever it holds."""
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return lambda path: path.write_bytes(b"MBRLCKPT" + digest + data)


def to_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILT: Final[dict[str, Callable[[Path], object]]] = {
    "empty": lambda path: path.write_bytes(b""),
    "of half its length": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "of noise": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "sealed noise": seal(bytes(range(256)) * 40),
    "a sealed pickle that runs code": seal(b"cos\nsystem\n(S'true'\ntR."),
    "a folder": to_folder,
    "a device": to_device,
}


def cases() -> tuple[Case, ...]:
    """The table; the input of a case is the run."""
    damaged = (
        _case(f"{command[0]} of {stage}: {name}", stage, damage, command, ending)
        for stage, command, ending in COMMANDS
        for name, damage in damages(RESULTS[stage]).items()
    )
    killed = (
        _case(
            f"train of a killed training: {'every' if every else 'the newest'} checkpoint {name}",
            "train_policy",
            functools.partial(begun, spoil=spoil, every=every),
            (*TRAIN, "--runs", "STORE"),
            "either" if spoil is to_folder else "answered",  # no file can be written in the place of a folder
        )
        for name, spoil in SPOILT.items()
        for every in (False, True)
    )
    return (*damaged, *killed)


def _case(name: str, stage: str, damage: Damage, command: tuple[str, ...], ending: Ending) -> Case:
    def make(folder: Path) -> Path:
        run = copied(folder, stage)
        damage(run)
        return run

    return Case(f"run: {name}", make, command, ending=ending)
