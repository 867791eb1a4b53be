"""Methods over choices on CartPole and Acrobot: a grid of logs x methods x seeds; writes results/discrete.

    .venv/bin/python scripts/measure/discrete.py  # the whole grid; goes on where it was killed
    .venv/bin/python scripts/measure/discrete.py --logs cartpole/random --methods discrete_mopo --seeds 0 1
    .venv/bin/python scripts/measure/discrete.py --table  # the table of what is there

A log is a recipe of `configs/datasets`, collected anew and found again. A piece trains a method on a log and
evaluates its last policy in the simulator, which nothing else sees. Each piece leaves one JSON in
results/discrete, so the grid can be done piece by piece and committed as it comes. `--peer-python` names an
interpreter with d3rlpy; its discrete CQL and BCQ are then trained on the same logs, with the same settings.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mbrl
from mbrl.api.progress import LineProgress
from mbrl.core.assets import PACKAGE
from mbrl.core.errors import ConfigError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.envs.specs import load_task
from mbrl.run.files import write_json, write_text
from mbrl.run.store import code_facts

RESULTS = Path(__file__).resolve().parents[2] / "results" / "discrete"
LOGS = tuple(f"{task}/{tier}" for task in ("cartpole", "acrobot") for tier in ("random", "mixed", "expert"))
UPDATES = 4000
_SMALL = {"hidden": [64, 64], "batch_size": 128}
_FIT = {"members": 4, "elites": 3, "hidden": [64, 64], "max_updates": 2000}


def _model_free(name: str, **settings: Any) -> dict[str, Any]:
    return {"recipe": "model_free", "updates": UPDATES, "learner": {"name": name, **_SMALL, **settings}}


_FAST = {"actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3, "polyak_tau": 0.02}
_SAC = {"critics": 5, "critic_layer_norm": True, "has_entropy_backup": False, "entropy_coef": 0.1}


def _on_a_model(recipe: str, **settings: Any) -> dict[str, Any]:
    learner = {"name": "discrete_sac", **_SMALL, **_SAC, **_FAST, "target_entropy_share": 0.3}
    rollout = {"horizon": 5, "starts": 2000}
    return {"recipe": recipe, "updates": UPDATES, "rollout": rollout, "learner": learner, **settings}


METHODS: Mapping[str, Mapping[str, Any]] = {
    "discrete_bc": _model_free("discrete_bc"),
    "discrete_bcq": _model_free("discrete_bcq"),
    "discrete_cql": _model_free("discrete_cql"),
    "discrete_iql": _model_free("discrete_iql", **_FAST),
    "dqn": _model_free("dqn"),
    "qr_dqn": _model_free("qr_dqn"),
    "discrete_sac": _model_free("discrete_sac", **_SAC, **_FAST, target_entropy_share=0.3),
    "discrete_mopo": _on_a_model("mopo", real_ratio=0.05),
    "discrete_mbrl_default": _on_a_model("mbrl_default", real_ratio=0.5),
}
"""Networks of 2 x 64 and 4,000 updates of 128 rows: a tenth of what the shipped files take.

The fast rates were chosen on seed 0 of `cartpole/random`, for each family apart: there they raise discrete
IQL and everything on a model, and harm discrete CQL and DQN, which keep the slow ones.
"""

PEERS: Mapping[str, str] = {"d3rlpy_bcq": "discrete_bcq", "d3rlpy_cql": "discrete_cql"}
_PEER_SETTINGS = {**_SMALL, "updates": UPDATES, "learning_rate": 3e-4, "discount": 0.99, "threads": 1}
_REFUSAL = "trusted horizon of the dynamics model is 0"
_PEER_TARGETS = 200
"""Updates between two copies of its targets: ours take 1/200 of the online values at every update."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One training of the grid.

    Attributes:
        log: a recipe of `configs/datasets`.
        method: of `METHODS`.
        seed: of its training.
    """

    log: str
    method: str
    seed: int

    def path(self, folder: Path) -> Path:
        """Its result."""
        return folder / f"{self.log.replace('/', '-')}.{self.method}.s{self.seed}.json"


def measure(piece: Piece, logs: Path, runs: Path, episodes: int, peer_python: str | None) -> dict[str, Any]:
    """Collects where it must, trains and evaluates; plain values."""
    folder = logs / piece.log.replace("/", "-")
    if not folder.exists():
        mbrl.collect(piece.log, out=folder, seed=0, progress=False)
    data = mbrl.load(folder)
    if piece.method in PEERS:
        found = ask_peer(piece, data, episodes, str(peer_python))
    else:
        found = train_ours(piece, data, runs, episodes)
    return {
        "log": piece.log,
        "method": piece.method,
        "seed": piece.seed,
        "updates": UPDATES,
        "steps_logged": data.num_transitions,
        "mean_return_logged": float(data.episode_returns.mean()),
        **found,
        "code": code_facts(),
    }


def train_ours(piece: Piece, data: Dataset, runs: Path, episodes: int) -> dict[str, Any]:
    """Returns and seconds of the training; a fit that another method left in the store is not made again.

    A method on a model that is trusted for no step is refused: no returns, and why.
    """
    begun = time.perf_counter()
    how: dict[str, Any] = {"dynamics": _FIT, "seed": piece.seed, "select": "last", "store": runs}
    try:
        run = mbrl.train(data, METHODS[piece.method], progress=False, **how)
    except ConfigError as error:
        if _REFUSAL not in str(error):
            raise
        return {"returns": [], "refused": str(error), "seconds": round(time.perf_counter() - begun, 1)}
    seconds = time.perf_counter() - begun
    found = run.evaluate(episodes, seed=1000, progress=False)
    returns = [float(value) for value in found.evaluation.episode_returns]
    return {"returns": returns, "seconds": round(seconds, 1)}


def ask_peer(piece: Piece, data: Dataset, episodes: int, python: str) -> dict[str, Any]:
    """Returns, seconds of the training and version of another library."""
    options = {
        **_PEER_SETTINGS,
        "work": PEERS[piece.method],
        "target_update_interval": _PEER_TARGETS,
        "env_id": load_task(piece.log.partition("/")[0]).env_id,
        "episodes": episodes,
        "seed": piece.seed,
    }
    with tempfile.TemporaryDirectory(prefix="mbrl-peer-") as name:
        folder = Path(name)
        write_json(folder / "options.json", options)
        np.savez(
            folder / "log.npz",
            observations=np.concatenate([one.observations[: len(one)] for one in data.episodes]),
            actions=np.concatenate([one.actions.argmax(1) for one in data.episodes]),
            rewards=np.concatenate([one.rewards for one in data.episodes]),
            terminals=np.concatenate([_flags(one, is_set=one.terminated) for one in data.episodes]),
            timeouts=np.concatenate([_flags(one, is_set=not one.terminated) for one in data.episodes]),
        )
        subprocess.run(
            [python, str(PACKAGE / "bench" / "peers" / "d3rlpy_choices.py"), name],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_text(encoding="utf-8"))
    return answer


def _flags(episode: Episode, *, is_set: bool) -> NDArray[np.float32]:
    flags = np.zeros(len(episode), dtype=np.float32)
    flags[-1] = is_set
    return flags


def table(folder: Path) -> str:
    """Mean returns by log and method: mean over seeds, and their standard error where there are several."""
    rows: list[dict[str, Any]] = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    logs = [log for log in LOGS if any(row["log"] == log for row in rows)]
    lines = [
        "# Methods over choices",
        "",
        f"Mean return in the simulator of the last policy, networks of 2 x 64, {UPDATES:,} updates of 128",
        "rows; mean over seeds ± its standard error (number of seeds). A training is refused where no",
        "step of its model can be trusted. Written by `scripts/measure/discrete.py --table`.",
        "",
        f"| method | {' | '.join(logs)} |",
        f"|---|{'---|' * len(logs)}",
    ]
    logged = {row["log"]: row["mean_return_logged"] for row in rows}
    lines.append(f"| the log itself | {' | '.join(f'{logged[log]:.1f}' for log in logs)} |")
    for method in (*METHODS, *PEERS):
        cells = [_cell([r for r in rows if (r["log"], r["method"]) == (log, method)]) for log in logs]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    values = [fmean(row["returns"]) for row in rows if row["returns"]]
    refused = f"{len(rows) - len(values)} refused" if len(rows) > len(values) else ""
    if not values:
        return refused
    error = "" if len(values) == 1 else f" ± {np.std(values, ddof=1) / np.sqrt(len(values)):.1f}"
    return f"{float(np.mean(values)):.1f}{error} ({len(values)}{', ' + refused if refused else ''})"


def main() -> None:
    """Measures what is missing, then writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--logs", nargs="*", default=LOGS)
    parser.add_argument("--methods", nargs="*", default=tuple(METHODS), choices=(*METHODS, *PEERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=(0, 1, 2, 3, 4))
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where logs and runs go")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--peer-python", help="interpreter with d3rlpy, for the methods d3rlpy_*")
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    options = parser.parse_args()
    if options.peer_python is None and any(method in PEERS for method in options.methods):
        parser.error("the methods d3rlpy_* need --peer-python")
    options.out.mkdir(parents=True, exist_ok=True)
    pieces = [
        Piece(log, method, seed)
        for seed in options.seeds
        for log in options.logs
        for method in options.methods
    ]
    for piece in [] if options.table else pieces:
        path = piece.path(options.out)
        if path.exists():
            continue
        found = measure(piece, options.work / "logs", options.work, options.episodes, options.peer_python)
        write_json(path, found)
        said = f"{np.mean(found['returns']):.1f}" if found["returns"] else "refused"
        LineProgress().message(f"{path.name}: {said} in {found['seconds']} s")
    write_text(options.out / "README.md", table(options.out))


if __name__ == "__main__":
    main()
