"""How many answers does a task take? Reward models and direct methods; writes results/preferences.

    .venv/bin/python scripts/measure/preferences.py  # the whole grid on pendulum-mixed; goes on where it was
    .venv/bin/python scripts/measure/preferences.py --log hopper/medium-replay --data FOLDER
    .venv/bin/python scripts/measure/preferences.py --pairs 200 --noise 0 0.3 --methods reward cpl
    .venv/bin/python scripts/measure/preferences.py --table  # the table of what is there

A piece hides the rewards of a log, lets a made-up annotator answer pairs of its segments, and learns from the
answers: `reward` fits a reward model and trains IQL on the log that it relabels, `cpl` and `dpo` learn
straight from the answers. `true` trains IQL on the hidden rewards, `bc` clones without rewards or answers.
What was done is found again in the run store (`--runs`); each piece leaves one JSON in results/preferences.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mbrl
from mbrl.api.preferences import fit_reward, synthetic_preferences
from mbrl.data.dataset import Dataset
from mbrl.preferences.files import write_preferences
from mbrl.run.files import write_json, write_text
from mbrl.run.store import code_facts

RESULTS: Final = Path(__file__).resolve().parents[2] / "results" / "preferences"
METHODS: Final = ("true", "bc", "reward", "cpl", "dpo")
ASKED: Final = ("reward", "cpl", "dpo")
"""Methods that read answers."""

HIDDEN: Final = [128, 128]
REWARD: Final = {"hidden": [64, 64], "max_updates": 600}


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One training of the grid.

    Attributes:
        log: `pendulum-mixed`, or `<task>/<name>` of `FOLDER/sim`.
        method: of `METHODS`.
        pairs: that are answered; 0 for methods that read none.
        noise: share of answers that are turned around.
        seed: of answers, fits and training.
    """

    log: str
    method: str
    pairs: int
    noise: float
    seed: int

    def path(self, folder: Path) -> Path:
        """Its result."""
        asked = f".p{self.pairs}.n{self.noise:g}" if self.method in ASKED else ""
        return folder / f"{self.log.replace('/', '-')}.{self.method}{asked}.s{self.seed}.json"

    @property
    def task(self) -> str:
        """Of the log."""
        return self.log.partition("/")[0].partition("-")[0]


def algorithm(piece: Piece, updates: int, answers: Path | None) -> dict[str, Any]:
    """The section of the run's config."""
    if piece.method in {"cpl", "dpo"}:
        learner = {"name": piece.method, "hidden": HIDDEN, "clone_updates": updates // 2}
        return {"recipe": "preferences", "updates": updates, "preferences": str(answers), "learner": learner}
    name = "bc" if piece.method == "bc" else "iql"
    return {"recipe": "model_free", "updates": updates, "learner": {"name": name, "hidden": HIDDEN}}


def measure(piece: Piece, log: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Asks, learns and evaluates; plain values."""
    found: dict[str, Any] = {}
    answers: Path | None = None
    if piece.method in ASKED:
        made = synthetic_preferences(
            log, pairs=piece.pairs, length=options.length, noise=piece.noise, seed=piece.seed
        )
        log_name = piece.log.replace("/", "-")
        name = f"{log_name}-{options.length}-{piece.pairs}-{piece.noise:g}-s{piece.seed}.jsonl"
        answers = options.runs / "answers" / name
        if not answers.exists():
            write_preferences(made.preferences, answers)
    if piece.method == "reward":
        model = fit_reward(log, answers or "", seed=piece.seed, store=options.runs, progress=False, **REWARD)
        held = model.report.held_out
        found |= {
            "accuracy": held.accuracy,
            "calibration_error": held.calibration_error,
            "correlation": model.report.correlation,
        }
        # The least alive step earns what the worst logged one does: comparisons cannot tell.
        rewards = model.stored.model.reward(*(_tensors(log)))
        offset = -float(rewards.min()) if any(e.terminated for e in log.episodes) else 0.0
        log = mbrl.relabel(log, reward_model=model, offset=offset)
    run = mbrl.train(
        log,
        algorithm(piece, options.updates, answers),
        task=piece.task,
        seed=piece.seed,
        select="last",
        diagnostics=False,
        store=options.runs,
        progress=False,
    )
    result = run.evaluate(options.episodes, seed=0, progress=False)
    mean = result.interval
    figures = {"estimate": mean.estimate, "low": mean.low, "high": mean.high, "episodes": options.episodes}
    return {**found, **figures, "updates": options.updates, "length": options.length}


def _tensors(log: Dataset) -> tuple[Any, Any]:
    from mbrl.preferences.segments import log_steps

    return log_steps(log)


def pieces(options: argparse.Namespace) -> list[Piece]:
    """The grid, references first."""
    found: list[Piece] = []
    for seed in options.seeds:
        found += [Piece(options.log, m, 0, 0.0, seed) for m in options.methods if m not in ASKED]
        for pairs in options.pairs:
            for noise in options.noise:
                found += [Piece(options.log, m, pairs, noise, seed) for m in options.methods if m in ASKED]
    return found


def write_table(folder: Path) -> str:
    """Mean return over seeds and episodes by method, pairs and noise, of every log."""
    rows: dict[tuple[str, str, int, float, int], list[Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("*.json")):
        one = json.loads(path.read_text())
        key = (one["log"], one["method"], one["pairs"], one["noise"], one["updates"])
        rows.setdefault(key, []).append(one)
    lines = [
        "| log | method | pairs | noise | updates | seeds | return | over seeds | accuracy | correlation |",
        "|---|---|--:|--:|--:|--:|--:|:--|--:|--:|",
    ]
    for (log, method, pairs, noise, updates), ones in sorted(rows.items()):
        values = [one["estimate"] for one in ones]
        spread = f"{min(values):.1f} to {max(values):.1f}" if len(values) > 1 else "-"
        told = [f"{pairs}", f"{noise:g}"] if method in ASKED else ["-", "-"]
        means = [_mean(ones, name) for name in ("accuracy", "correlation")]
        cells = [log, method, *told, f"{updates:,}", str(len(ones)), f"{np.mean(values):.1f}", spread, *means]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean(ones: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [one[name] for one in ones if one.get(name) is not None]
    return f"{np.mean(values):.2f}" if values else "-"


def main(arguments: Sequence[str]) -> int:
    """Runs what is asked and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--log", default="pendulum-mixed")
    parser.add_argument("--data", type=Path, help="folder that holds sim/<task>/<name>-v0")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--pairs", nargs="+", type=int, default=[50, 200, 1000])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0, 0.1, 0.3])
    parser.add_argument("--length", type=int, default=25, help="steps of a segment")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--updates", type=int, default=3_000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    options = parser.parse_args(arguments)
    if not options.table:
        run_grid(options)
    table = write_table(options.out)
    write_text(options.out / "table.md", table)
    print(table)  # noqa: T201 - this is a program
    return 0


def run_grid(options: argparse.Namespace) -> None:
    """Every piece whose file is missing."""
    source = options.log
    if "/" in source:
        if options.data is None:
            raise SystemExit(f"Name the folder that holds sim/{source}-v0: --data FOLDER.")
        source = str(options.data / "sim" / f"{source}-v0")
    log = mbrl.load(source)
    options.out.mkdir(parents=True, exist_ok=True)
    for piece in pieces(options):
        path = piece.path(options.out)
        if path.exists():
            continue
        began = time.process_time()
        values = measure(piece, log, options)
        seconds = round(time.process_time() - began, 1)
        write_json(path, {**dataclasses.asdict(piece), **values, "cpu_seconds": seconds, **code_facts()})
        print(path.name, round(values["estimate"], 1), f"{seconds} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
