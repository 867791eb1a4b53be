"""What a delay of the actions costs with and without a history; writes results/delay.

    .venv/bin/python scripts/measure/delay.py  # goes on where it was killed
    .venv/bin/python scripts/measure/delay.py --delays 0 3 --histories 1 4 --seeds 0
    .venv/bin/python scripts/measure/delay.py --table  # the table of what is there

The pendulum gets every action some steps late. Logs are made by evenly drawn actions, which no delay makes
better or worse, so that what differs between them is the delay alone. MOPO of `configs/experiments/
pendulum.yaml` learns from each, and its last policy is evaluated in the same delayed simulator, which nothing
else sees. Each piece leaves one JSON, so the grid can be done piece by piece.
"""

import argparse
import collections
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mbrl
from mbrl.envs.specs import load_task
from mbrl.run.files import write_json, write_text
from mbrl.run.store import code_facts

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "results" / "delay"
ENV_ID: Final = "DelayedActions-v0"


class DelayedActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """Gives the simulator the action of `delay` steps ago; before there was one, the action 0.

    Args:
        env: acts at once.
        delay: steps, >= 0.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], delay: int) -> None:
        super().__init__(env)
        self._waiting: collections.deque[Any] = collections.deque()
        self.delay = delay

    def reset(self, **how: Any) -> tuple[Any, dict[str, Any]]:
        """Nothing waits at the start of an episode."""
        zero = np.zeros(self.action_space.shape or (), np.float32)
        self._waiting = collections.deque([zero] * self.delay)
        return super().reset(**how)

    def action(self, action: Any) -> Any:
        """What reaches the simulator now."""
        self._waiting.append(action)
        return self._waiting.popleft()


def _delayed(*, env_id: str, delay: int, **how: Any) -> gymnasium.Env[Any, Any]:
    return DelayedActions(gymnasium.make(env_id, **how), delay)


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point=_delayed, disable_env_checker=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """One training of the grid.

    Attributes:
        delay: steps by which actions come late.
        history: frames that policy and model read, and one action fewer.
        seed: of log and training.
    """

    delay: int
    history: int
    seed: int

    def path(self, folder: Path) -> Path:
        """Its result."""
        return folder / f"pendulum.d{self.delay}.h{self.history}.s{self.seed}.json"


def delayed_task(delay: int, folder: Path) -> Path:
    """The pendulum's task whose simulator is late."""
    task = load_task("pendulum")
    values = task.model_dump(mode="json", exclude_none=True)
    values |= {
        "name": f"pendulum-delay-{delay}",
        "env_id": f"{Path(__file__).stem}:{ENV_ID}",
        "env_kwargs": {"env_id": str(task.env_id), "delay": delay},
    }
    path = folder / f"{values['name']}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def measure(piece: Piece, work: Path, steps: int, episodes: int, changes: list[str]) -> dict[str, Any]:
    """Collects, trains and evaluates; plain values."""
    task = delayed_task(piece.delay, work)
    log = mbrl.collect(str(task), policy="random", steps=steps, seed=piece.seed, progress=False)
    if piece.history > 1:
        log = mbrl.with_history(log, piece.history)
    config = yaml.safe_load((ROOT / "configs" / "experiments" / "pendulum.yaml").read_text())
    settings = dict(config["algorithms"]["mopo"])
    begun = time.perf_counter()
    run = mbrl.train(
        log,
        settings.pop("file"),
        dynamics=config["dynamics"],
        task=str(task),
        seed=piece.seed,
        select="last",
        diagnostics=False,
        store=work / "runs",
        progress=False,
        overrides=changes,
        **settings,
    )
    seconds = time.perf_counter() - begun
    found = run.evaluate(episodes, seed=1000, task=str(task), progress=False).evaluation
    return {
        **dataclasses.asdict(piece),
        "returns": [float(value) for value in found.episode_returns],
        "score": float(np.mean(found.normalised_scores or [np.nan])),
        "logged": float(log.episode_returns.mean()),
        "seconds": round(seconds, 1),
        "code": {key: code_facts()[key] for key in ("version", "commit", "cpus")},
    }


def table(folder: Path) -> str:
    """Means over seeds with their least and largest."""
    lines = [
        "# Actions that come late",
        "",
        "A pendulum whose actions come some steps late; MOPO from 14,000 steps of evenly drawn actions,",
        "without and with a history of frames and actions. Written by `scripts/measure/delay.py`.",
        "",
        "| delay, steps | frames | seeds | mean return | least to largest | mean score |",
        "|---|---|---|---|---|---|",
    ]
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.s*.json"))]
    for delay, history in dict.fromkeys((row["delay"], row["history"]) for row in rows):
        same = [row for row in rows if (row["delay"], row["history"]) == (delay, history)]
        means = [float(np.mean(row["returns"])) for row in same]
        score = np.mean([row["score"] for row in same])
        lines.append(
            f"| {delay} | {history} | {len(same)} | {np.mean(means):.0f} | {min(means):.0f} to "
            f"{max(means):.0f} | {score:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Does the pieces that are asked for and not there, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--delays", nargs="+", type=int, default=[0, 3])
    parser.add_argument("--histories", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=14_000)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every config")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="where logs and runs go")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table of what is there")
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    grid = [Piece(d, h, s) for s in asked.seeds for d in asked.delays for h in asked.histories]
    for piece in [] if asked.table else grid:
        path = piece.path(asked.out)
        if not path.exists():
            write_json(path, measure(piece, asked.work, asked.steps, asked.episodes, asked.set))
            write_text(asked.out / "README.md", table(asked.out))
            sys.stdout.write(f"{piece}\n")
            sys.stdout.flush()
    write_text(asked.out / "README.md", table(asked.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
