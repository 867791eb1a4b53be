"""Do planners help the policies that they stand on? Logs x policies x seeds; writes results/planning.

    .venv/bin/python scripts/measure/planning.py --data FOLDER  # the whole grid; goes on where it was killed
    .venv/bin/python scripts/measure/planning.py --data FOLDER --logs pendulum-mixed --methods bc
    .venv/bin/python scripts/measure/planning.py --audit --data FOLDER --logs pendulum-mixed
    .venv/bin/python scripts/measure/planning.py --table  # the table of what is there

A piece takes a policy of `judge.py`, found again in the run store where that grid has trained it,
puts each planner on top of it at its default settings, and evaluates both from common starts in the
simulator, which nothing else sees. Whatever the method, the model is the fit of the log by the default
config and the run's seed. Each piece leaves one JSON in results/planning/returns. `--audit` holds estimated
gains of actions against true ones, by `mbrl plan-audit`, for one clone of each log.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from judge import LOGS, Piece

import mbrl
from mbrl.api.planning import audit_plans
from mbrl.api.progress import LineProgress
from mbrl.core.errors import ConfigError
from mbrl.run.files import write_json, write_text
from mbrl.run.stage import Workspace, set_up_torch
from mbrl.run.store import RunStore, code_facts
from mbrl.run.train import train_policy_stage

RESULTS = Path(__file__).resolve().parents[2] / "results" / "planning"
POLICIES = ("bc", "td3_bc", "iql", "mbrl_default")
PLANNERS = ("rollout", "mppi", "sampled_gumbel")


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A planner on a policy.

    Attributes:
        piece: the training.
        planner: of `configs/planners`.
    """

    piece: Piece
    planner: str

    def path(self, folder: Path) -> Path:
        """Its result."""
        name = self.piece.path(folder).name
        return folder / name.replace(".s", f".{self.planner}.s")


def measure(
    cell: Cell, data: Path | None, changes: Sequence[str], workspace: Workspace, episodes: int
) -> dict[str, Any]:
    """Trains where it must, and evaluates; plain values."""
    piece = cell.piece
    run = train_policy_stage(piece.resolve(data, changes), workspace)
    about = {"log": piece.log, "method": piece.method, "seed": piece.seed, "planner": cell.planner}
    begin = time.perf_counter()
    try:
        found = mbrl.plan(
            run.path, cell.planner, episodes=episodes, store=workspace.store.root, progress=False
        ).summary
    except ConfigError as refusal:  # values at the leaves that did not settle, say
        return {**about, "refused": str(refusal)}
    return {
        **about,
        "policy_returns": found["policy_returns"],
        "returns": found["episode_returns"],
        "gain": found["gain_interval"],
        "gate": found["gate"],
        "plans": found["plans"],
        "seconds": round(time.perf_counter() - begin, 1),
        "code": {key: code_facts()[key] for key in ("version", "commit", "cpus")},
    }


def table(folder: Path) -> str:
    """Returns with and without each planner: means over seeds, and what was said beforehand.

    A planner that refused a policy (its values did not settle, say) has not been tried on it: means are
    over the others.
    """
    rows: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(folder.glob("*.s*.json"))]
    lines = [
        "| log | policy | planner | alone | planned | gain ± standard error over seeds | gate open "
        "| refused | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    keys = dict.fromkeys((row["log"], row["method"], row["planner"]) for row in rows)
    for key in keys:
        asked = [row for row in rows if (row["log"], row["method"], row["planner"]) == key]
        same = [row for row in asked if "refused" not in row]
        refused = f"{len(asked) - len(same)} of {len(asked)}"
        if not same:
            lines.append(f"| {' | '.join(key)} | - | - | - | - | {refused} | {len(asked)} |")
            continue
        alone = np.array([np.mean(row["policy_returns"]) for row in same])
        planned = np.array([np.mean(row["returns"]) for row in same])
        gains = planned - alone
        error = f" ± {gains.std(ddof=1) / np.sqrt(len(gains)):.1f}" if len(gains) > 1 else ""
        opened = sum(bool(row["gate"] and row["gate"]["is_open"]) for row in same)
        lines.append(
            f"| {' | '.join(key)} | {alone.mean():.1f} | {planned.mean():.1f} | {gains.mean():+.1f}{error} | "
            f"{opened} of {len(same)} | {refused} | {len(asked)} |"
        )
    return "\n".join(lines) + "\n"


def audit(log: str, data: Path | None, changes: Sequence[str], workspace: Workspace) -> Mapping[str, Any]:
    """Estimated against true gains around a clone; plain values."""
    run = train_policy_stage(Piece(log, "bc", 0).resolve(data, changes), workspace)
    values = audit_plans(run.path, store=workspace.store.root, progress=False).to_dict()
    return {key: value for key, value in values.items() if key != "path"}


def main() -> None:
    """Does the pieces that are asked for and not there, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with sim/<task>/<name>-v0")
    parser.add_argument("--logs", nargs="+", default=list(LOGS))
    parser.add_argument("--methods", nargs="+", default=list(POLICIES))
    parser.add_argument("--planners", nargs="+", default=list(PLANNERS), choices=PLANNERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every config")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--audit", action="store_true", help="hold estimated gains against true ones")
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    asked = parser.parse_args()
    folder = asked.out / "returns"
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(RunStore(asked.runs), LineProgress())
    set_up_torch(1)
    for log in asked.logs if asked.audit else []:
        path = asked.out / f"audit.{log.replace('/', '-')}.json"
        if not path.exists():
            write_json(path, audit(log, asked.data, asked.set, workspace))
    cells = [
        Cell(Piece(log, method, seed), planner)
        for log in asked.logs
        for seed in asked.seeds
        for method in asked.methods
        for planner in asked.planners
    ]
    for cell in [] if asked.table or asked.audit else cells:
        path = cell.path(folder)
        if not path.exists():
            write_json(path, measure(cell, asked.data, asked.set, workspace, asked.episodes))
            write_text(asked.out / "returns.md", table(folder))
    write_text(asked.out / "returns.md", table(folder))
    sys.stdout.write(table(folder))


if __name__ == "__main__":
    main()
