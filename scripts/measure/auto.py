"""The button: what `mbrl auto` takes, against what the simulator says of all it tried; writes results/auto.

    .venv/bin/python scripts/measure/auto.py --minutes 10 --logs pendulum/mixed reactor/medium
    .venv/bin/python scripts/measure/auto.py --data FOLDER --minutes 60 --logs hopper/medium-replay
    .venv/bin/python scripts/measure/auto.py --table  # the table of what is there

A log is `<task>/<name>`: FOLDER/sim/<task>/<name>-v0 where it is there, else a recipe of `configs/datasets`,
collected anew and found again. Trainings run one after the other unless `--jobs` says otherwise. When all is
decided, and not before, the policies of all candidates are evaluated in the simulator. Each log leaves one
JSON in results/auto.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mbrl
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.envs.specs import load_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.report.auto.facts import AutoReport
from mbrl.run.files import write_json, write_text
from mbrl.run.policies import load_policy, open_policy
from mbrl.run.store import RunFolder, code_facts

RESULTS = Path(__file__).resolve().parents[2] / "results" / "auto"
ALWAYS: Mapping[str, tuple[str, ...]] = {
    "BC": ("bc", "discrete_bc"),
    "IQL": ("iql", "discrete_iql"),
    "MOPO": ("mopo_careful", "discrete_mopo"),
}
"""What people take who always take the same, by its labels in the portfolios."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One press of the button.

    Attributes:
        log: `<task>/<name>`.
        seed: of collected logs and of the portfolio.
        minutes: of wall time.
        jobs: side by side.
    """

    log: str
    seed: int
    minutes: float
    jobs: int

    def path(self, folder: Path) -> Path:
        """Its result."""
        return folder / f"{self.log.replace('/', '-')}.s{self.seed}.json"


def open_log(piece: Piece, data: Path | None, work: Path) -> Dataset:
    """The log, collected where nobody has it."""
    task, _, name = piece.log.partition("/")
    given = None if data is None else data / "sim" / task / f"{name}-v0"
    if given is not None and given.exists():
        return mbrl.load(given)
    folder = work / "logs" / f"{task}-{name}-s{piece.seed}"
    if not folder.exists():
        mbrl.collect(piece.log, out=folder, seed=piece.seed, progress=False)
    return mbrl.load(folder)


def measure(
    piece: Piece, log: Dataset, work: Path, episodes: int, portfolio: str | None = None
) -> dict[str, Any]:
    """Presses the button, then looks at the simulator; plain values."""
    task = piece.log.partition("/")[0]
    result = mbrl.auto(
        log,
        minutes=piece.minutes,
        portfolio=portfolio,
        jobs=piece.jobs,
        store=work,
        command=f"scripts/measure/auto.py --logs {piece.log}",
        overrides=[f"seed={piece.seed}", f"task={task}"],
    )
    report = result.report
    true = [true_values(RunFolder(Path(one.path)), one.policy, task, episodes) for one in report.candidates]
    names = [one.label for one in report.candidates]
    taken = None if report.taken is None else names[report.taken]
    facts = report.model_dump(mode="json", include={"question", "reason", "behaviour", "left_out", "seconds"})
    return {
        "log": piece.log,
        "seed": piece.seed,
        "minutes": piece.minutes,
        "jobs": piece.jobs,
        "rows": log.num_transitions,
        **facts,
        "candidates": [
            {
                "label": one.label,
                "step": one.step,
                "updates": one.updates,
                "judged": one.mean,
                "gain": one.gain,
                **value,
            }
            for one, value in zip(report.candidates, true, strict=True)
        ],
        "taken": taken,
        "honest": report.honest,
        "verdict": None if report.estimate is None else report.estimate.verdict,
        "scale": scale(task, report, [one["selected"] for one in true]),
        "episodes": episodes,
        "code": {key: code_facts()[key] for key in ("version", "commit", "cpus")},
    }


def true_values(run: RunFolder, policy: str, task: str, episodes: int) -> dict[str, float]:
    """Mean returns of the chosen and of the last policy of a training; the first one's standard error."""
    spec = load_task(task)
    policies = {"selected": load_policy(run.path / policy), "last": open_policy(run.path, which="last")}
    returns = {
        name: np.array(evaluate(spec, one.policy, episodes=episodes, rng=RngStreams(1)).episode_returns)
        for name, one in policies.items()
    }
    error = float(returns["selected"].std(ddof=1)) / math.sqrt(episodes)
    return {**{name: float(values.mean()) for name, values in returns.items()}, "error": error}


def scale(task: str, report: AutoReport, selected: Sequence[float]) -> float:
    """What a hundred points are: the task's references, else from the behaviour to the best candidate."""
    spec = load_task(task)
    if spec.ref_min_score is not None and spec.ref_max_score is not None:
        return spec.ref_max_score - spec.ref_min_score
    behaviour = max(selected) if report.behaviour is None else report.behaviour.mean
    return max(abs(max(selected) - behaviour), 1e-9)


def row(piece: Mapping[str, Any]) -> dict[str, Any]:
    """Points above the behaviour of the pick, of the best candidate and of those who always take the same."""
    behaviour, whole = piece["behaviour"]["mean"], piece["scale"]

    def points(value: float | None) -> float | None:
        return None if value is None else 100.0 * (value - behaviour) / whole

    true = {one["label"]: one["selected"] for one in piece["candidates"]}
    last = {one["label"]: one["last"] for one in piece["candidates"]}
    # Who is told to take none keeps what made the log.
    pick = behaviour if piece["taken"] is None else true[piece["taken"]]
    best = max([*true.values(), behaviour])
    always = {
        name: points(next((last[label] for label in labels if label in last), None))
        for name, labels in ALWAYS.items()
    }
    errors = {
        one["label"]: math.hypot(one["error"], piece["behaviour"]["error"]) for one in piece["candidates"]
    }
    return {
        "pick": points(pick),
        "best": points(best),
        "regret": points(best - pick + behaviour),
        "is_worse": piece["taken"] is not None and pick < behaviour - 2.0 * errors[piece["taken"]],
        **always,
    }


def table(pieces: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: log by log, then over all."""
    rows = [row(piece) for piece in pieces]
    lines = [
        "# The button",
        "",
        "`mbrl auto` on logs of several tasks, by `scripts/measure/auto.py`: what it took, and what that is",
        "truly worth, in points above the policies that made the log (a hundred are from random to expert",
        "where the task has references, else from the behaviour to the best candidate). `best`: the best",
        "candidate's chosen policy, or the behaviour. `always`: the last policy of that method. Who is told",
        "to take none keeps the behaviour. Minutes are of wall time, times the trainings side by side.",
        "",
        "| log | seed | rows | minutes | taken | pick | best | "
        + " | ".join(f"always {a}" for a in ALWAYS)
        + " |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for piece, found in zip(pieces, rows, strict=True):
        values = " | ".join(_number(found[name]) for name in ("pick", "best", *ALWAYS))
        lines.append(
            f"| {piece['log']} | {piece['seed']} | {piece['rows']:,} "
            f"| {piece['minutes']:g} x {piece['jobs']} | {piece['taken'] or 'none'} | {values} |"
        )
    worse = sum(found["is_worse"] for found in rows)
    means = {
        name: [found[name] for found in rows if found[name] is not None] for name in ("pick", "best", *ALWAYS)
    }
    said = ", ".join(f"{name} {fmean(values):.1f}" for name, values in means.items() if values)
    lines += [
        "",
        f"Over {len(rows)} presses: mean points {said}; regret of the pick "
        f"{fmean(found['regret'] for found in rows):.1f}; picks worse than the behaviour by more than two "
        f"standard errors: {worse}.",
    ]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def write(folder: Path) -> str:
    """The page of what is there."""
    pieces = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    page = table(pieces)
    write_text(folder / "README.md", page)
    return page


def main() -> None:
    """Presses the button for every log that is asked for and not there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with sim/<task>/<name>-v0")
    parser.add_argument("--logs", nargs="+", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--portfolio", help="of `configs/auto`, or a yaml; the shipped one if not named")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    pieces = [Piece(log, seed, asked.minutes, asked.jobs) for log in asked.logs for seed in asked.seeds]
    for piece in [] if asked.table else pieces:
        path = piece.path(asked.out)
        if not path.exists():
            log = open_log(piece, asked.data, asked.runs)
            write_json(path, measure(piece, log, asked.runs, asked.episodes, asked.portfolio))
    sys.stdout.write(write(asked.out))


if __name__ == "__main__":
    main()
