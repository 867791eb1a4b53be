"""Imitation, and PPO against SAC in one model: logs x methods x seeds; writes results/imitation.

    .venv/bin/python scripts/measure/imitation.py  # pendulum; goes on where it was killed
    .venv/bin/python scripts/measure/imitation.py --methods bc airl --expert-episodes 1 5 --seeds 0 1
    .venv/bin/python scripts/measure/imitation.py --data FOLDER --logs hopper/medium-replay
    .venv/bin/python scripts/measure/imitation.py --table  # the table of what is there

A piece trains one method and evaluates its last policy in the simulator, which nothing else sees. Methods
that imitate get a few episodes of the task's expert beside the log, whose rewards they never read; `bc` gets
these episodes alone. `mopo` and `mopo_ppo` learn in one model from the rewards of the log, with as many
updates as the same processor time allows, measured by a short training. Each piece leaves one JSON in
results/imitation, so the grid can be done piece by piece and committed as it comes.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mbrl
from mbrl.run.files import write_json, write_text
from mbrl.run.store import code_facts

RESULTS: Final = Path(__file__).resolve().parents[2] / "results" / "imitation"
BEHAVIOUR: Final = Path(mbrl.__file__).parent / "assets" / "behaviour"
SMALL: Final = {"hidden": [64, 64]}
DISCOUNTS: Final[Mapping[str, float]] = {"pendulum": 0.97}
"""Tasks of short episodes; 0.99 elsewhere."""

PILOT: Final = 240
"""Updates of the training by which an update's time is measured; a longer one goes on from there."""

_ROLLOUT: Final = {"horizon": 5, "starts": 2000}
METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "bc": {"updates": 5000},
    "smodice": {"updates": 5000},
    "demodice": {"updates": 5000},
    "airl": {"updates": 6000, "rollout": _ROLLOUT},
    "gail": {"updates": 6000, "rollout": _ROLLOUT},
    "mopo": {"rollout": _ROLLOUT, "learner": {"critics": 2}},
    "mopo_ppo": {"rollout": {"horizon": 24, "starts": 1024}, "learner": {"batch_size": 2048}},
}
TIMED: Final = ("mopo", "mopo_ppo")
IMITATE: Final = ("smodice", "demodice", "airl", "gail")


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One training of the grid.

    Attributes:
        log: a bundled dataset, or `<task>/<name>` of `FOLDER/sim`.
        method: of `METHODS`.
        demonstrated: episodes of the expert; 0 for methods that see none.
        seed: of its training, and of the expert's episodes.
    """

    log: str
    method: str
    demonstrated: int
    seed: int

    @property
    def task(self) -> str:
        """That the log is of."""
        return self.log.partition("/")[0].partition("-")[0]

    def path(self, folder: Path) -> Path:
        """Its result."""
        shown = f".e{self.demonstrated}" if self.demonstrated else ""
        return folder / f"{self.log.replace('/', '-')}.{self.method}{shown}.s{self.seed}.json"

    def source(self, data: Path | None) -> str:
        """The log as it is opened."""
        if "/" not in self.log:
            return self.log
        if data is None:
            raise SystemExit(f"Name the folder that holds sim/{self.log}-v0: --data FOLDER.")
        return str(data / "sim" / f"{self.log}-v0")


def expert_log(piece: Piece, folder: Path) -> Path:
    """Episodes of the task's expert; made once, another set for each seed."""
    path = folder / f"expert-{piece.task}-{piece.demonstrated}-s{piece.seed}"
    if not path.exists():
        policy = str(BEHAVIOUR / piece.task / "expert.safetensors")
        # A thousand steps are the longest episode of any of these tasks.
        log = mbrl.collect(
            piece.task, policy=policy, steps=1000 * piece.demonstrated, seed=piece.seed, progress=False
        )
        mbrl.save(log.select(range(piece.demonstrated)), path)
    return path


def train(piece: Piece, asked: argparse.Namespace, updates: int | None = None) -> mbrl.Run:
    """The piece's training, as its settings say or for so many updates."""
    learner: dict[str, Any] = {**SMALL, "discount": DISCOUNTS.get(piece.task, 0.99)}
    settings = dict(METHODS[piece.method])
    settings["learner"] = {**learner, **settings.get("learner", {})}
    if updates is not None:
        settings["updates"] = updates
    log = piece.source(asked.data)
    if piece.method in IMITATE:
        settings["expert"] = str(expert_log(piece, asked.runs / "experts"))
    if piece.method == "bc":
        log, settings["learner"] = str(expert_log(piece, asked.runs / "experts")), {**SMALL}
    return mbrl.train(
        log,
        piece.method,
        dynamics={**SMALL, "max_updates": 3000},
        task=piece.task,
        seed=piece.seed,
        store=asked.runs,
        progress=False,
        select="last",
        diagnostics=False,
        overrides=asked.set,
        **settings,
    )


def measure(piece: Piece, asked: argparse.Namespace) -> dict[str, Any]:
    """Trains and evaluates; plain values."""
    updates = None
    if piece.method in TIMED:
        train(piece, asked, PILOT // 2)  # the fit of the dynamics is not timed
        begin = time.process_time()
        train(piece, asked, PILOT)
        each = (time.process_time() - begin) / (PILOT - PILOT // 2)
        updates = max(PILOT, PILOT * round(asked.cpu_seconds / each / PILOT))
    begin = time.process_time()
    run = train(piece, asked, updates)
    seconds = time.process_time() - begin
    found = run.evaluate(asked.episodes, seed=0, progress=False).to_dict()
    summary = run.to_dict()
    return {
        "log": piece.log,
        "method": piece.method,
        "expert_episodes": piece.demonstrated,
        "seed": piece.seed,
        "updates": summary["updates"],
        "cpu_seconds": round(seconds, 1),
        "returns": found["episode_returns"],
        "return": found["return_interval"],
        "score": found["score_interval"],
        "recovered_reward": summary.get("recovered_reward"),
        "last_metrics": summary["last_metrics"],
        "code": {key: code_facts()[key] for key in ("version", "commit", "cpus")},
    }


def table(folder: Path) -> str:
    """What is there, as Markdown."""
    lines = [
        "| log | method | expert episodes | seed | updates | CPU s | return | score | reward r, rank r |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted(folder.glob("*.s*.json")):
        piece = json.loads(path.read_text())
        reward: dict[str, float | None] = piece["recovered_reward"] or {}
        cells = [
            piece["log"],
            piece["method"],
            piece["expert_episodes"] or "-",
            piece["seed"],
            piece["updates"],
            f"{piece['cpu_seconds']:.0f}",
            _interval(piece["return"]),
            _interval(piece["score"]),
            ", ".join(_number(reward.get(name)) for name in ("pearson", "spearman")),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _interval(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "-"
    return f"{found['estimate']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def pieces_of(asked: argparse.Namespace) -> list[Piece]:
    """The grid; methods that see no expert are in it once for each log and seed."""
    found: list[Piece] = []
    for log in asked.logs:
        for seed in asked.seeds:
            for method in asked.methods:
                shown = [0] if method in TIMED else asked.expert_episodes
                found += [Piece(log, method, count, seed) for count in shown]
    return found


def main() -> None:
    """Does the pieces that are asked for and not there, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with sim/<task>/<name>-v0")
    parser.add_argument("--logs", nargs="+", default=["pendulum-mixed"])
    parser.add_argument("--methods", nargs="+", default=[*METHODS], choices=[*METHODS])
    parser.add_argument("--expert-episodes", nargs="+", type=int, default=[5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=20, help="simulated for each policy")
    parser.add_argument("--cpu-seconds", type=float, default=120.0, help="of mopo and mopo_ppo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every config")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    pieces: list[Piece] = [] if asked.table else pieces_of(asked)
    for piece in pieces:
        if not piece.path(asked.out).exists():
            write_json(piece.path(asked.out), measure(piece, asked))
            write_text(asked.out / "table.md", table(asked.out))
            sys.stdout.write(f"{piece}\n")
            sys.stdout.flush()
    write_text(asked.out / "table.md", table(asked.out))
    sys.stdout.write(table(asked.out))


if __name__ == "__main__":
    main()
