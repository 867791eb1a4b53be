"""Memory and speed on a log that need not fit into memory; writes results/bench/large.md.

    python scripts/measure/large.py --rows 10000000 --folder /tmp/large

Parts of a million steps are written one by one and merged (`mbrl merge --to mapped`); then every stage runs
in a process of its own that tells its peak of memory. Anonymous memory is what a process owns; pages of a
mapped file are the kernel's to take back, and count in the peak of resident memory all the same.
"""

import argparse
import dataclasses
import json
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.info import DatasetInfo
from mbrl.data.merging.merge import merge_datasets
from mbrl.data.normaliser import fit_moments
from mbrl.data.open import open_dataset
from mbrl.data.sources import DatasetSource
from mbrl.data.splits import split_episodes
from mbrl.data.stored.source import StoredSource

OBS_DIM: Final = 50
ACT_DIM: Final = 10
LENGTH: Final = 1000
PART: Final = 1_000_000
BATCH: Final = 256
REPORT: Final = Path(__file__).parents[2] / "results" / "bench" / "large.md"


def make_part(rows: int, seed: int) -> Dataset:
    """Damped oscillators under random pushes: rows follow from each other, as in a log of a machine."""
    rng, episodes = np.random.default_rng(seed), rows // LENGTH
    obs = np.empty((episodes, LENGTH + 1, OBS_DIM), np.float32)
    action = rng.uniform(-1, 1, (episodes, LENGTH, ACT_DIM)).astype(np.float32)
    obs[:, 0] = rng.standard_normal((episodes, OBS_DIM))
    for step in range(LENGTH):
        obs[:, step + 1] = 0.95 * obs[:, step] + 0.3 * np.tile(action[:, step], OBS_DIM // ACT_DIM)
    rewards = -np.square(obs[:, 1:]).mean(-1) - 0.1 * np.square(action).mean(-1)
    made = [
        {"observations": o, "actions": a, "rewards": r, "truncated": True}
        for o, a, r in zip(obs, action, rewards, strict=True)
    ]
    info = DatasetInfo(name=f"part-{seed}")
    return Dataset.from_episodes(made, act_low=-np.ones(ACT_DIM), act_high=np.ones(ACT_DIM), info=info)


def make_log(folder: Path, rows: int) -> Path:
    """The mapped log; made once."""
    target = folder / f"log-{rows}"
    if not target.exists():
        parts = [folder / f"part-{rows}-{k}" for k in range(max(1, rows // PART))]
        for k, part in enumerate(parts):
            if not part.exists():
                FORMATS.get("mapped").write(make_part(min(rows, PART), k), part)
        opened = [open_dataset(part) for part in parts]
        merged = merge_datasets(opened, name="large") if len(opened) > 1 else opened[0]
        FORMATS.get("mapped").write(merged, target)
    return target


def own_memory() -> float:
    """Anonymous memory of this process, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1e3
    return float("nan")


def do_stage(stage: str, log: Path, updates: int) -> dict[str, Any]:
    """One stage in this process; what it found, and its memory."""
    peak, ended = [own_memory()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], own_memory())

    threading.Thread(target=watch, daemon=True).start()
    start = time.perf_counter()
    found = _STAGES[stage](open_dataset(log), updates)
    seconds = time.perf_counter() - start
    ended.set()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"stage": stage, "seconds": seconds, "own": peak[0], "resident": resident, **found}


def _split(dataset: Dataset, updates: int) -> dict[str, Any]:
    del updates
    parts = split_episodes(dataset, generator=torch.Generator().manual_seed(0))
    mean, _ = fit_moments(parts.train.steps().observation)
    return {"note": f"mean of the first channel {mean[0]:.4g}"}


def _batches(source: Any, count: int = 3000) -> dict[str, Any]:
    generator = torch.Generator()
    for _ in range(2):  # the second pass is measured: the file is in the kernel's cache by then
        start = time.process_time()
        for step in range(count):
            source.sample(BATCH, generator.manual_seed(step))
    rate = count / (time.process_time() - start)
    return {"rate": rate, "note": f"{rate:,.0f} batches of {BATCH} a second of CPU"}


def _train(dataset: Dataset, updates: int) -> dict[str, Any]:
    import mbrl

    small = {"updates": updates, "diagnostics": True, "log_interval": updates}
    start = time.process_time()
    run = mbrl.train(dataset, "iql", progress=False, overrides=[], **small)
    spent = time.process_time() - start
    rate = run.metrics()["time/updates_per_second"][-1][1]
    return {"rate": rate, "note": f"{rate:,.0f} IQL updates a second, {spent:.0f} s of CPU in all"}


def _in_memory(dataset: Dataset) -> Dataset:
    """The same episodes as arrays of their own."""
    copied = (
        dataclasses.replace(e, observations=e.observations.copy(), actions=e.actions.copy())
        for e in dataset.episodes
    )
    return dataclasses.replace(dataset, episodes=tuple(copied))


_STAGES: Final[dict[str, Callable[[Dataset, int], dict[str, Any]]]] = {
    "open": lambda dataset, _: {"note": f"all checks, and the hash {dataset.content_hash}"},
    "split and moments": _split,
    "batches": lambda dataset, _: _batches(StoredSource(dataset.steps())),
    "batches in memory": lambda dataset, _: _batches(DatasetSource(dataset.transitions().to_batch())),
    "train": _train,
    "train in memory": lambda dataset, updates: _train(_in_memory(dataset), updates),
}


def main() -> None:
    """Makes the log, runs the stages, writes the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/large"))
    parser.add_argument("--stage", choices=tuple(_STAGES))
    parser.add_argument("--out", type=Path, default=REPORT)
    asked = parser.parse_args()
    if asked.stage:
        print(json.dumps(do_stage(asked.stage, asked.folder / f"log-{asked.rows}", asked.updates)))  # noqa: T201
        return
    asked.folder.mkdir(parents=True, exist_ok=True)
    log = make_log(asked.folder, asked.rows)
    size = sum(file.stat().st_size for file in log.rglob("*") if file.is_file())
    rows: list[dict[str, Any]] = []
    for stage in _STAGES:
        command = [sys.executable, __file__, "--stage", stage, "--rows", str(asked.rows)]
        command += ["--updates", str(asked.updates), "--folder", str(asked.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        failed = {"stage": stage, "note": f"failed: {done.stderr.strip().splitlines()[-1:]}"}
        rows.append(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else failed)
        print(rows[-1], flush=True)  # noqa: T201 - this is a program
        asked.out.write_text(report(rows, asked.rows, asked.updates, size))


def report(rows: list[dict[str, Any]], count: int, updates: int, size: int) -> str:
    """The page."""
    lines = [
        "# A log that need not fit into memory",
        "",
        f"`python scripts/measure/large.py --rows {count} --updates {updates}`: {count:,} steps of {OBS_DIM} "
        f"observations and {ACT_DIM} actions, {size / 1e9:.2f} GB in the format `mapped`, merged from parts "
        f"of {PART:,} steps; one thread, torch {torch.__version__}, {platform.machine()}.",
        "",
        "Every stage opens the log, with all checks, in a process of its own. "
        "*Own* is the peak of anonymous memory; *resident* (`ru_maxrss`) also counts pages of the mapped "
        "file, which the kernel takes back when others need them.",
        "",
        "| stage | own, MB | resident, MB | seconds | |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        numbers = [f"{row[k]:,.0f}" if k in row else "" for k in ("own", "resident", "seconds")]
        lines.append(f"| {row['stage']} | {' | '.join(numbers)} | {row['note']} |")
    known = {row["stage"]: row["rate"] for row in rows if "rate" in row}
    for one in ("batches", "train"):
        if one in known and f"{one} in memory" in known:
            lines += ["", f"{one}: {known[one] / known[f'{one} in memory']:.0%} of the rate in memory."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
