"""Do judges rank policies as the simulator does? A grid of logs x methods x seeds; writes results/judge.

    .venv/bin/python scripts/measure/judge.py --data FOLDER  # the whole grid; goes on where it was killed
    .venv/bin/python scripts/measure/judge.py --data FOLDER --logs hopper/medium-replay --methods mbrl_default
    .venv/bin/python scripts/measure/judge.py --table  # the table of what is there

A piece trains a method on a log, lets judges take its result, and evaluates its twenty policies in the
simulator, which nothing else sees. What was done is found again in the run store (`--runs`); each piece
leaves one JSON in results/judge, so the grid can be done piece by piece and committed as it comes.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mbrl.api.progress import LineProgress
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import load_task
from mbrl.evaluation.evaluator import evaluate
from mbrl.off_policy.judgement.benchmark.metrics import spearman
from mbrl.report.kit.palette import BLUE, BRICK, INK, LIGHT, MUTED
from mbrl.report.kit.style import panels, save_png
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.files import write_json, write_text
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import load_policy
from mbrl.run.stage import Workspace, set_up_torch
from mbrl.run.store import RunFolder, RunStore, code_facts
from mbrl.run.train import train_policy_stage

RESULTS = Path(__file__).resolve().parents[2] / "results" / "judge"
LOGS = (
    "hopper/medium-replay",
    "hopper/medium",
    "halfcheetah/medium-replay",
    "halfcheetah/medium",
    "pendulum-mixed",
)

_SMALL = {"hidden": [128, 128]}

METHODS: Mapping[str, Mapping[str, Any]] = {
    "bc": {"recipe": "model_free", "updates": 50_000, "learner": {"name": "bc", **_SMALL}},
    "td3_bc": {"recipe": "model_free", "updates": 50_000, "learner": {"name": "td3_bc", **_SMALL}},
    "iql": {"recipe": "model_free", "updates": 50_000, "learner": {"name": "iql", **_SMALL}},
    "mopo-1": {"recipe": "mbrl_default", "updates": 50_000, "penalty": {"coef": 1.0}},
}
"""Networks of 2 x 128, a fifth of the defaults' cost; others by their names in `mbrl list algorithms`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One training of the grid.

    Attributes:
        log: a dataset of `FOLDER/sim`, `<task>/<name>`, or a bundled one.
        method: of `METHODS`, or a name of `mbrl list algorithms`.
        seed: of its training.
    """

    log: str
    method: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Its result."""
        return folder / f"{self.log.replace('/', '-')}.{self.method}.s{self.seed}.json"

    def resolve(self, data: Path | None, changes: Sequence[str]) -> ResolvedConfig:
        """Its config."""
        source = self.log
        if "/" in self.log:
            if data is None:
                raise SystemExit(f"Name the folder that holds sim/{self.log}-v0: --data FOLDER.")
            source = str(data / "sim" / f"{self.log}-v0")
        algorithm = METHODS.get(self.method, self.method)
        return resolve(
            arguments={
                "dataset": source,
                "task": self.log.partition("/")[0].partition("-")[0],
                "algorithm": dict(algorithm) if isinstance(algorithm, Mapping) else algorithm,
                "select": {"rule": "judge", "kept": 20},
                "seed": self.seed,
            },
            overrides=list(changes),
        )


def measure(piece: Piece, resolved: ResolvedConfig, workspace: Workspace, episodes: int) -> dict[str, Any]:
    """Trains, judges and evaluates; plain values."""
    run = train_policy_stage(resolved, workspace)
    summary = run.summary()
    contestants = summary["selection"]["contestants"]
    true = [_true_return(run, resolved, one, episodes) for one in contestants]
    judged = [one["judged"] for one in contestants]
    columns: dict[str, list[float | None] | None] = {
        "lower_bound": [one["low"] for one in contestants],
        "mean": [one["point"] for one in contestants],
        "least_member": [_least(value["by_member"]) for value in judged],
        **{
            f"judge_{k}": [value["by_judge"][k] for value in judged]
            for k in range(len(judged[0]["by_judge"]))
        },
        "own_model": (summary.get("exploitation") or {}).get("own"),
        "critic": critic_values(read_metrics(run.path), [one["changes"]["updates"] for one in contestants]),
    }
    found = {name: score(values, true) for name, values in columns.items() if values is not None}
    chosen = summary["selection"]["chosen"]
    return {
        "log": piece.log,
        "method": piece.method,
        "seed": piece.seed,
        "updates": [one["changes"]["updates"] for one in contestants],
        "true": true,
        "judged": columns,
        "by": found,
        "chosen": chosen,
        "last": true[-1],
        "selected": true[chosen],
        "best": max(true),
        "honest": summary["selection"]["honest"],
        "facts": _facts(summary["selection"]["facts"], workspace.store.root),
        "exploitation": summary.get("exploitation"),
        "episodes": episodes,
        "train_seconds": summary["seconds"],
        "code": {key: code_facts()[key] for key in ("version", "commit", "cpus")},
    }


def _facts(facts: Mapping[str, Any], store: Path) -> dict[str, Any]:
    """Who was asked what; judges by their folders in the run store, wherever that lay."""
    judges = [{**judge, "path": os.path.relpath(judge["path"], store)} for judge in facts["judges"]]
    return {key: value for key, value in facts.items() if key != "warnings"} | {"judges": judges}


def critic_values(rows: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> list[float] | None:
    """What the learner's own critics think of the data they see when each policy is kept.

    Args:
        rows: of the training's metrics, each the mean since the row before.
        steps: updates after which policies are kept.

    Returns:
        For each of `steps` the last value told up to then; None for learners without critics.
    """
    told = [(row["step"], row["critic/value"]) for row in rows if row.get("critic/value") is not None]
    if not told or told[0][0] > min(steps):
        return None
    return [[value for step, value in told if step <= until][-1] for until in steps]


def score(values: Sequence[float | None], true: Sequence[float]) -> dict[str, float | None]:
    """How a column ranks and measures: Spearman, the return of its pick, and judged over true there."""
    column = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    truth = np.array(true, dtype=np.float64)
    is_known = np.isfinite(column)
    if not is_known.any():
        return dict.fromkeys(("spearman", "pick", "regret", "judged_over_true"))
    pick = int(np.nanargmax(column))
    rank = spearman(truth[is_known], column[is_known]).value
    return {
        "spearman": rank if np.isfinite(rank) else None,
        "pick": float(truth[pick]),
        "regret": float(truth.max() - truth[pick]),
        "judged_over_true": float(column[pick] / truth[pick]) if truth[pick] != 0 else None,
    }


def _true_return(run: RunFolder, resolved: ResolvedConfig, one: Mapping[str, Any], episodes: int) -> float:
    """Mean return in the simulator; kept beside the run, so that a killed measurement goes on."""
    path = run.path / one["path"]
    kept = path.with_suffix(f".true-{episodes}.json")
    if not kept.exists():
        task = load_task(str(resolved.run.task))
        found = evaluate(task, load_policy(path).policy, episodes=episodes, rng=RngStreams(0))
        write_json(kept, {"returns": list(found.episode_returns)})
    returns: list[float] = json.loads(kept.read_text())["returns"]
    return sum(returns) / len(returns)


def table(pieces: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: training by training, then all policies of a log together."""
    lines = [
        "# Judges against the simulator",
        "",
        "Twenty policies along each training, by `scripts/measure/judge.py`. Spearman is between what is",
        "said of them and their mean return in the simulator (`episodes` of each file); the last column",
        "is what the judges that did not choose say of the chosen one, over its true return.",
        "",
        "| log | method | seed | last | selected | best | Spearman: bound, mean, own model, critic "
        "| judged / true |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for piece in pieces:
        by = piece["by"]
        ranks = ", ".join(_number(by.get(name, {}).get("spearman")) for name in _RANKED)
        ratio = None if piece["honest"] is None else piece["honest"]["mean"] / piece["selected"]
        returns = " | ".join(f"{piece[name]:.0f}" for name in ("last", "selected", "best"))
        who = " | ".join(str(piece[name]) for name in ("log", "method", "seed"))
        lines.append(f"| {who} | {returns} | {ranks} | {_number(ratio)} |")
    lines += [
        "",
        "All policies of a log, whatever trained them: the pick is that of the best lower bound.",
        "",
        "| log | trainings | policies | mean of last | mean of selected | pick | best "
        "| Spearman: bound, mean, least member |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for log in dict.fromkeys(piece["log"] for piece in pieces):
        lines.append(_portfolio_row(log, [piece for piece in pieces if piece["log"] == log]))
    return "\n".join(lines) + "\n"


_RANKED = ("lower_bound", "mean", "own_model", "critic")


def draw(pieces: Sequence[Mapping[str, Any]]) -> Figure:
    """Of one log: judged mean against true return, a panel for each method, all seeds in it."""
    methods = list(dict.fromkeys(piece["method"] for piece in pieces))
    columns = min(3, len(methods))
    shape, ends = (-(-len(methods) // columns), columns), _ends(pieces)
    with panels(*shape, x_label="true return", y_label="judged return", size=(2.9, 2.6)) as (figure, grid):
        for axes, method in zip(grid, methods, strict=False):
            axes.plot(ends, ends, color=LIGHT[MUTED], linewidth=1.0, linestyle=(0, (2, 2)))
            for piece in (piece for piece in pieces if piece["method"] == method):
                true, judged = piece["true"], piece["judged"]["mean"]
                axes.plot(true, judged, "o", color=LIGHT[BLUE], markersize=4.0, alpha=0.6)
                axes.plot(true[-1:], judged[-1:], "x", color=LIGHT[INK], markersize=7.0)
                taken = slice(piece["chosen"], piece["chosen"] + 1)
                axes.plot(
                    true[taken], judged[taken], "o", color=LIGHT[BRICK], markersize=8.0, fillstyle="none"
                )
            axes.set_title(method)
        for axes in grid[len(methods) :]:
            axes.set_axis_off()
    return figure


def _ends(pieces: Sequence[Mapping[str, Any]]) -> list[float]:
    true = [value for piece in pieces for value in piece["true"]]
    return [min(true), max(true)]


def write(folder: Path) -> str:
    """The page and its figures; the page."""
    pieces: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(folder.glob("*.s*.json"))]
    names: list[str] = []
    for log in dict.fromkeys(piece["log"] for piece in pieces):
        names.append(f"{log.replace('/', '-')}.png")
        save_png(draw([piece for piece in pieces if piece["log"] == log]), folder / names[-1])
    shown = ["", "Dots are policies, a cross is the last of a training, a ring the one that judges take.", ""]
    page = table(pieces) + "\n".join([*shown, *(f"![{name}]({name})" for name in names)]) + "\n"
    write_text(folder / "README.md", page)
    return page


def _portfolio_row(log: str, pieces: Sequence[Mapping[str, Any]]) -> str:
    true = [value for piece in pieces for value in piece["true"]]
    found = {
        name: score([value for piece in pieces for value in piece["judged"][name]], true)
        for name in ("lower_bound", "mean", "least_member")
    }
    means = [f"{np.mean([piece[name] for piece in pieces]):.0f}" for name in ("last", "selected")]
    pick = found["lower_bound"]["pick"]
    taken = "-" if pick is None else f"{pick:.0f}"
    ranks = ", ".join(_number(one["spearman"]) for one in found.values())
    return (
        f"| {log} | {len(pieces)} | {len(true)} | {' | '.join(means)} | {taken} | {max(true):.0f} | {ranks} |"
    )


def _least(values: Sequence[float | None]) -> float | None:
    """None where a model broke down in one of them."""
    known = [value for value in values if value is not None]
    return min(known) if len(known) == len(values) else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    """Does the pieces that are asked for and not there, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with sim/<task>/<name>-v0")
    parser.add_argument("--logs", nargs="+", default=list(LOGS))
    parser.add_argument("--methods", nargs="+", default=[*METHODS, "mbrl_default"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=6, help="simulated for each policy")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every config")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(RunStore(asked.runs), LineProgress())
    set_up_torch(1)
    pieces = [
        Piece(log, method, seed) for log in asked.logs for method in asked.methods for seed in asked.seeds
    ]
    for piece in [] if asked.table else pieces:
        if piece.path(asked.out).exists():
            continue
        begin = time.perf_counter()
        resolved = piece.resolve(asked.data, asked.set)
        found = measure(piece, resolved, workspace, asked.episodes)
        write_json(piece.path(asked.out), {**found, "seconds": round(time.perf_counter() - begin, 1)})
        write(asked.out)
    sys.stdout.write(write(asked.out))


if __name__ == "__main__":
    main()
