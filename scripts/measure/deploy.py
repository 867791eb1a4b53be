"""Bundles of BC, IQL and MOPO, on three machines and on a pole with two choices; writes results/deploy.

    .venv/bin/python scripts/measure/deploy.py --data FOLDER  # everything; goes on where it was killed
    .venv/bin/python scripts/measure/deploy.py --data FOLDER --logs hopper --methods bc
    .venv/bin/python scripts/measure/deploy.py --table  # the page of what is there

Four fifths of the episodes of a log train and calibrate; the others say how often the guard is wrong. Its
hits are counted on logs of other controllers, on sensors that fail, and on machines of another mass in the
simulator.
Each piece leaves one JSON in results/deploy; trainings are found again in the run store (`--runs`).
"""

import argparse
import dataclasses
import functools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mbrl
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.deploy.runtime import Controller
from mbrl.envs.make import make_env
from mbrl.envs.specs import load_task
from mbrl.run.bundle.open import logged_scores
from mbrl.run.files import write_json, write_text
from mbrl.run.store import code_facts

RESULTS = Path(__file__).resolve().parents[2] / "results" / "deploy"
LOGS = ("pendulum", "pendubot", "hopper", "cartpole")
SMALL = {"hidden": [128, 128]}
METHODS: dict[str, dict[str, Any]] = {
    "bc": {"algorithm": "bc", "updates": 5000},
    "iql": {"algorithm": "iql", "updates": 2000},
    "mopo": {
        "algorithm": "mopo", "updates": 4000, "dynamics": "small",
        "learner": {
            "name": "sac", **SMALL, "critics": 2, "critic_layer_norm": True, "has_entropy_backup": False,
            "entropy_coef": 0.1,
        },
    },
}  # fmt: skip
CHOICES: dict[str, dict[str, Any]] = {
    "bc": {"algorithm": "discrete_bc", "updates": 3000, "learner": SMALL},
    "iql": {"algorithm": "discrete_iql", "updates": 4000, "learner": SMALL},
    "mopo": {"algorithm": "discrete_mopo", "updates": 4000, "dynamics": "small", "learner": SMALL},
}
"""The same over choices."""

SHORT: dict[str, dict[str, Any]] = {
    "hopper": {"updates": 1500, "dynamics": {"hidden": [64, 64], "max_updates": 2000}},
    "pendubot": {"updates": 1500, "dynamics": {"max_updates": 5000}},  # a smaller fit is trusted for no step
}
"""Of MOPO on the larger logs: what is measured are bundles, not how good a policy may become."""

EPISODES, SPIKES, CALLS = 12, 0.1, 20_000


@dataclasses.dataclass(frozen=True)
class Logs:
    """Of which machine; what trains, what was held out, and logs of others by name."""

    name: str
    train: Dataset
    held: Dataset
    others: dict[str, Dataset]

    @property
    def task(self) -> str | None:
        """Its simulator."""
        return None if self.name == "pendubot" else self.name


def collected(recipe: str, store: Path) -> Path:
    """The log of a recipe of `configs/datasets`, made where it is not there."""
    folder = store / "logs" / recipe.replace("/", "-")
    if not folder.exists():
        mbrl.collect(recipe, out=folder, seed=0, progress=False)
    return folder


def open_logs(name: str, data: Path, store: Path) -> Logs:
    """Every fifth episode is held out."""
    if name == "pendulum":
        log, others = mbrl.load("pendulum-mixed"), {}
    elif name == "pendubot":
        folder = data / "real" / "dfki_double_pendulum" / "pendubot"
        whole = mbrl.import_log("dfki_pendubot", folder).log
        # By the order of their folders: ilqr, mcpilco, sac_lqr, ten runs each.
        log = whole.select(range(20))
        others = {"controller sac_lqr": whole.select(range(20, 30))}
    elif name == "cartpole":
        log, random = (mbrl.load(collected(f"cartpole/{tier}", store)) for tier in ("expert", "random"))
        others = {"controller random": random}
    else:
        tiers = {tier: mbrl.load(data / "sim" / "hopper" / f"{tier}-v0") for tier in ("medium", "random")}
        expert = mbrl.load(data / "sim" / "hopper" / "medium-expert-v0")
        log = tiers["medium"]
        best = np.argsort(expert.episode_returns)[-20:]
        others = {
            "controller random": tiers["random"].select(range(500)),
            "controller expert": expert.select(best),
        }
    train = [k for k in range(len(log)) if k % 5]
    held = [k for k in range(len(log)) if k % 5 == 0]
    return Logs(name, log.select(train), log.select(held), others)


def train(logs: Logs, method: str, store: Path) -> mbrl.Run:
    """The training of a method, or the one of before."""
    is_choice = logs.train.spec.choices is not None
    short = SHORT.get(logs.name, {}) if method == "mopo" else {}
    how = {**(CHOICES if is_choice else METHODS)[method], **short}
    name = how.pop("algorithm")
    return mbrl.train(logs.train, name, seed=0, select="last", store=store, task=logs.task, **how)


def altered(log: Dataset, change: Callable[[np.ndarray, int], np.ndarray]) -> Dataset:
    """The log with other observations; `change` takes those of an episode and its index."""
    episodes: list[Episode] = []
    for k, episode in enumerate(log.episodes):
        obs = change(np.array(episode.observations), k).astype(np.float32)
        episodes.append(dataclasses.replace(episode, observations=obs))
    return dataclasses.replace(log, episodes=tuple(episodes))


def faults(log: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Sensors that fail, each channel in turn over the episodes."""
    scale = np.concatenate([episode.observations for episode in log.episodes]).std(0)

    def channel(k: int) -> int:
        return k % log.spec.obs_dim

    def stuck(obs: np.ndarray, k: int, value: float | None = None) -> np.ndarray:
        obs[:, channel(k)] = obs[0, channel(k)] if value is None else value
        return obs

    def offset(obs: np.ndarray, k: int) -> np.ndarray:
        obs[:, channel(k)] += scale[channel(k)]
        return obs

    def noisy(obs: np.ndarray, k: int) -> np.ndarray:
        rng = np.random.default_rng(k)
        obs[:, channel(k)] += 0.5 * scale[channel(k)] * rng.standard_normal(len(obs))
        return obs

    yield "sensor stuck", altered(log, stuck)
    yield "sensor reads 0", altered(log, functools.partial(stuck, value=0.0))
    yield "sensor offset, 1 std", altered(log, offset)
    yield "sensor noise, 0.5 std", altered(log, noisy)


def rate(alarms: np.ndarray, log: Dataset) -> dict[str, float]:
    """Share of steps with an alarm; its 95 % interval by resampling episodes."""
    lengths = np.array([max(len(e) - 1, 0) for e in log.episodes])
    found = np.add.reduceat(alarms, np.r_[0, np.cumsum(lengths[lengths > 0])[:-1]])
    lengths = lengths[lengths > 0]
    draws = np.random.default_rng(0).integers(0, len(lengths), (2000, len(lengths)))
    low, high = np.quantile(found[draws].sum(1) / lengths[draws].sum(1), (0.025, 0.975))
    return {"rate": float(alarms.mean()), "low": float(low), "high": float(high), "steps": len(alarms)}


def guard_numbers(bundle: mbrl.Export, logs: Logs) -> dict[str, Any]:
    """False alarms on held-out episodes, and hits."""

    def ask(log: Dataset) -> dict[str, float]:
        assert bundle.contract is not None
        scores, guard = logged_scores(bundle.path, bundle.contract, log), bundle.contract.guard
        assert scores is not None and guard is not None  # noqa: PT018
        found = rate(scores.alarms(guard.threshold), log)
        return {**found, "surprise": scores.surprise_ratio(guard.usual_surprise)[0]}

    hits = {name: ask(log) for name, log in [*logs.others.items(), *faults(logs.held)]}
    return {"held_out": ask(logs.held), "hits": hits}


def latency(bundle: Path, log: Dataset) -> dict[str, float]:
    """Milliseconds of a call with the guard, batch 1, one thread: by the clock, and of the processor."""
    controller = Controller(bundle, guard=False)
    rows = np.concatenate([episode.observations for episode in log.episodes])
    rows = rows[np.random.default_rng(0).integers(0, len(rows), CALLS + 200)]
    wall, own = np.empty(len(rows)), np.empty(len(rows))
    for k, row in enumerate(rows):
        begun, worked = time.perf_counter(), time.thread_time()
        controller.act(row)
        wall[k], own[k] = time.perf_counter() - begun, time.thread_time() - worked
    found: dict[str, float] = {"calls": CALLS}
    for name, spent in (("wall", wall), ("cpu", own)):
        p50, p99 = np.percentile(1e3 * spent[200:], (50, 99))
        found |= {f"{name}_p50": float(p50), f"{name}_p99": float(p99)}
    return found


def heavier(env: Any, factor: float) -> None:
    """Multiplies the mass of the pendulum, of the hopper's torso, or of the pole."""
    inner = env.unwrapped
    if hasattr(inner, "masspole"):  # the pole's simulator keeps what follows from it beside it
        inner.total_mass += (factor - 1.0) * inner.masspole
        inner.masspole, inner.polemass_length = factor * inner.masspole, factor * inner.polemass_length
    elif hasattr(inner, "model"):
        inner.model.body_mass[1] *= factor
    else:
        inner.m *= factor


def taken(controller: Controller, action: Any) -> np.ndarray:
    """What the simulator takes: a choice as a one-hot vector, anything else as it is."""
    ids = controller.contract["action"].get("ids")
    return (
        np.asarray(action)
        if ids is None
        else np.eye(len(ids), dtype=np.float32)[ids.index(np.asarray(action).tolist())]
    )


def drive(
    task: str, bundle: Path, *, spikes: float = 0.0, mass: float = 1.0, scale: np.ndarray, **how: Any
) -> dict[str, Any]:
    """Episodes in the simulator; with `spikes` a sensor reads nonsense in that share of the steps."""
    env = make_env(load_task(task))
    if mass != 1.0:
        heavier(env, mass)
    returns, alarms, sources, surprise = [], [], [], []
    controller = Controller(bundle, **how)
    for episode in range(EPISODES):
        rng = np.random.default_rng(episode)
        obs, _ = env.reset(seed=1000 + episode)
        controller.reset()
        total, over = 0.0, False
        while not over:
            seen = np.array(obs, np.float32)
            is_hit, channel, size = rng.random() < spikes, rng.integers(len(seen)), rng.standard_normal()
            if is_hit:
                seen[channel] += 5.0 * scale[channel] * size
            action = controller.act(seen)
            assert controller.last is not None
            alarms.append(controller.last.alarm)
            sources.append(controller.last.source == "policy")
            surprise.append(controller.last.surprise)
            obs, reward, terminated, truncated, _ = env.step(taken(controller, action))
            total, over = total + float(reward), bool(terminated or truncated)
        returns.append(total)
    env.close()
    usual = controller.contract["guard"]["usual_surprise"]
    return {
        "returns": returns, "alarms": float(np.mean(alarms)), "policy": float(np.mean(sources)),
        "surprise": float(np.nanmedian(surprise)) / usual,
    }  # fmt: skip


def without_fallback(bundle: Path) -> Path:
    """The same bundle as it would be exported without a fallback policy."""
    folder = bundle.with_name(f"{bundle.name}-alone")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    contract = json.loads((folder / "contract.json").read_text())
    contract["runtime"] |= {"fallback": "hold", "patience": None}
    (folder / "contract.json").write_text(json.dumps(contract))
    return folder


def loops(task: str, bundle: mbrl.Export, log: Dataset) -> dict[str, Any]:
    """The bare and the guarded policy with a good and with a failing sensor, and on heavier machines."""
    scale = np.concatenate([episode.observations for episode in log.episodes]).std(0)
    assert bundle.contract is not None
    alone = without_fallback(bundle.path)
    ways = {"bare": (bundle.path, {"guard": False}), "guarded": (alone, {})}
    if bundle.contract.runtime.fallback == "policy":
        ways["guarded, bc acts when far"] = (bundle.path, {})
    found: dict[str, Any] = {}
    for name, (folder, how) in ways.items():
        found[f"good sensors, {name}"] = drive(task, folder, scale=scale, **how)
        found[f"failing sensor, {name}"] = drive(task, folder, scale=scale, spikes=SPIKES, **how)
    for factor in (1.5, 2.0):
        found[f"mass x {factor:g}, bare"] = drive(task, bundle.path, scale=scale, mass=factor, guard=False)
    return found


def difference(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Mean of `first - second` over the same episodes, with its 95 % bootstrap interval."""
    gap = np.array(first) - np.array(second)
    draws = np.random.default_rng(0).integers(0, len(gap), (5000, len(gap)))
    low, high = np.quantile(gap[draws].mean(1), (0.025, 0.975))
    return {"mean": float(gap.mean()), "low": float(low), "high": float(high)}


def measure(name: str, method: str, data: Path, store: Path) -> None:
    """One piece: a method on a log."""
    logs = open_logs(name, data, store)
    run = train(logs, method, store)
    folder = store / "bundles" / f"{name}-{method}"
    shutil.rmtree(folder, ignore_errors=True)
    fallback = None if method == "bc" else train(logs, "bc", store)
    begun = time.perf_counter()
    bundle = run.export(folder, log=logs.train, fallback=fallback)
    seconds = time.perf_counter() - begun
    assert bundle.contract is not None
    values: dict[str, Any] = {
        "log": name, "method": method, "contract": bundle.contract.model_dump(mode="json"),
        "export_seconds": seconds, "guard": guard_numbers(bundle, logs),
        "latency_ms": latency(folder, logs.held), "code": code_facts(),
    }  # fmt: skip
    if logs.task is not None:
        found = loops(logs.task, bundle, logs.train)
        bare = found["failing sensor, bare"]["returns"]
        values["closed_loop"] = found
        values["guarded_less_bare"] = {
            way.removeprefix("failing sensor, "): difference(each["returns"], bare)
            for way, each in found.items()
            if way.startswith("failing sensor, guarded")
        }
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{name}-{method}.json", values)


def percent(values: dict[str, float]) -> str:
    """A rate with its interval."""
    return f"{100 * values['rate']:.2f} [{100 * values['low']:.2f}, {100 * values['high']:.2f}]"


def table() -> str:
    """The page of all pieces that are there."""
    pieces = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    lines = [
        "# Bundles, measured", "",
        "By `scripts/measure/deploy.py`; the numbers of each piece lie in a JSON beside. Rates are per cent",
        "of steps with 95 % intervals over episodes, times milliseconds of `Controller.act` with the guard,",
        "batch 1, one thread. The machine of two cores was busy with other work: the clock counts waiting",
        "for a core, the processor's own time does not.", "",
        "| log | method | parity | clock p50 | p99 | processor p50 | p99 | false alarms, cross-fitted"
        " | false alarms, held-out episodes | alarms with the policy's action |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for piece in pieces:
        contract, speed = piece["contract"], piece["latency_ms"]
        own = contract["guard"]["rate"]
        crossed = percent({"rate": own["estimate"], "low": own["low"], "high": own["high"]})
        lines.append(
            f"| {piece['log']} | {piece['method']} | {contract['parity']['policy']:.1e} | "
            f"{speed['wall_p50']:.3f} | {speed['wall_p99']:.3f} | {speed['cpu_p50']:.3f} | "
            f"{speed['cpu_p99']:.3f} | {crossed} | {percent(piece['guard']['held_out'])} | "
            f"{100 * contract['guard']['policy_alarms']:.2f} |"
        )
    lines += ["", "## Hits", "", "Logged actions; the guard is a function of the log alone.", ""]
    lines += ["| log | what | alarms | surprise |", "|---|---|---|---|"]
    for piece in (piece for piece in pieces if piece["method"] == "bc"):
        for name, hit in piece["guard"]["hits"].items():
            lines.append(f"| {piece['log']} | {name} | {percent(hit)} | {hit['surprise']:.2f} |")
    lines += [
        "", "## In the simulator", "",
        f"Mean return of {EPISODES} episodes. A failing sensor reads nonsense in {100 * SPIKES:g} % of the",
        "steps: one channel is off by a normal draw of five standard deviations.",
        "Surprise is its median over that of the log.", "",
        "| log | method | case | mean return | alarms, % | surprise | steps of the policy, % |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {piece['log']} | {piece['method']} | {case} | {np.mean(found['returns']):.1f} | "
        f"{100 * found['alarms']:.2f} | {found['surprise']:.2f} | {100 * found['policy']:.1f} |"
        for piece in pieces for case, found in piece.get("closed_loop", {}).items()
    ]  # fmt: skip
    lines += ["", "| log | method | guard | guarded less bare, failing sensor |", "|---|---|---|---|"]
    for piece in pieces:
        for way, gap in piece.get("guarded_less_bare", {}).items():
            shown = f"{gap['mean']:.1f} [{gap['low']:.1f}, {gap['high']:.1f}]"
            lines.append(f"| {piece['log']} | {piece['method']} | {way} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures what is missing, then writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the shared datasets")
    parser.add_argument("--logs", nargs="*", default=LOGS, choices=LOGS)
    parser.add_argument("--methods", nargs="*", default=tuple(METHODS), choices=tuple(METHODS))
    parser.add_argument("--runs", type=Path, default=Path("runs/deploy"))
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--table", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    for name in () if arguments.table else arguments.logs:
        for method in arguments.methods:
            if arguments.again or not (RESULTS / f"{name}-{method}.json").is_file():
                measure(name, method, arguments.data, arguments.runs)
    write_text(RESULTS / "README.md", table())


if __name__ == "__main__":
    main()
