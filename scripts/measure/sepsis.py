#!/usr/bin/env python
"""Policies from logs of the clinicians of ICU-Sepsis: what judges said of them, and what they are worth.

    pip install 'mbrl-offline[healthcare]'
    python scripts/measure/sepsis.py [--out results/icu-sepsis] [--stays 1000 10000 100000]

For each size one log is made and cut in half: policies come from the first half, and are judged by the second
one alone, with a table and value fits of its own. `--learners` adds networks that learn from the first half.
A killed measurement goes on with the first policy that is not in `results.json` yet.
True values are linear solves in the task's tables, which no part of the method reads. Writes `README.md` with
the tables, `results.json` with every number.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import mbrl  # noqa: E402
from mbrl.core.protocols import DiscretePolicy  # noqa: E402
from mbrl.core.rng import RngStreams  # noqa: E402
from mbrl.data.dataset import Dataset  # noqa: E402
from mbrl.dynamics.tabular.counts import fit_table  # noqa: E402
from mbrl.dynamics.tabular.model import TabularDynamics  # noqa: E402
from mbrl.off_policy.value.exact_value import state_probabilities  # noqa: E402
from mbrl.planning.tabular.iteration import behaviour_policy, best_policy, spibb_policy  # noqa: E402
from mbrl.planning.tabular.policy import TabularPolicy  # noqa: E402
from mbrl.run.policies import StoredPolicy  # noqa: E402
from mbrl.study.icu_sepsis import SepsisTask  # noqa: E402
from mbrl.uncertainty.measures import ens_std  # noqa: E402

LEAST_COUNT = 20.0  # steps from which on SPIBB changes a pair: the threshold of the records themselves
PENALTY = 1.0  # of the greatest reward, at the disagreement of the 0.95 quantile of logged steps
TABULAR = ("clone", "spibb", "penalised", "greedy", "uniform")
SHOWN = ("pdwis", "fqe", "dr", "switch_dr", "dros", "model_value", "blend")


def main(arguments: list[str] | None = None) -> int:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "icu-sepsis")
    parser.add_argument("--stays", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--updates", type=int, default=20_000, help="of a value fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learners", nargs="*", default=[], help="networks besides, as discrete_bcq")
    parser.add_argument("--learner-updates", type=int, default=10_000)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    task = SepsisTask.load()
    found = begun(options) or facts(options) | {
        "clinicians": task.value(task.clinicians),
        "best": best_value(task),
        "rows": [],
    }
    found["command"] = f"python scripts/measure/sepsis.py {asked(options, found['rows'])}"
    for stays in options.stays:
        there = {row["policy"] for row in found["rows"] if row["stays"] == stays}
        for row in measure(task, stays, options, there):
            found["rows"].append(row)
            sys.stdout.write(f"{stays:,} stays, {row['policy']}: {row['verdict']}, {row['seconds']} s\n")
            sys.stdout.flush()
            (options.out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
            (options.out / "README.md").write_text(page(found))
    return 0


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """What all rows of a table have in common."""
    return {"updates": options.updates, "seed": options.seed, "learner_updates": options.learner_updates}


def asked(options: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    """The words that make the whole table again, what was there before included."""
    sizes = sorted({*options.stays, *(row["stays"] for row in rows)})
    learners = list(dict.fromkeys([*(row["policy"] for row in rows), *options.learners]))
    learners = [name for name in learners if name not in TABULAR]
    words = f"--stays {' '.join(map(str, sizes))} --updates {options.updates} --seed {options.seed}"
    if learners:
        words += f" --learners {' '.join(learners)} --learner-updates {options.learner_updates}"
    return words


def begun(options: argparse.Namespace) -> dict[str, Any] | None:
    """The table that is there, to go on with; one of other settings is not written over."""
    path = options.out / "results.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    if not facts(options).items() <= found.items():
        raise SystemExit(
            f"{path} was made by `{found['command']}`. Remedy: the same settings, or another --out."
        )
    return found


def best_value(task: SepsisTask) -> float:
    """Of the best policy that knows the tables."""
    return task.value(task.best_policy())


def measure(
    task: SepsisTask, stays: int, options: argparse.Namespace, there: Set[str]
) -> Iterator[dict[str, Any]]:
    """One row for each policy of a log of this size, but for those that are there."""
    if there >= {*TABULAR, *options.learners}:
        return
    seed = int(options.seed)
    log = task.log(stays, seed=seed)
    half = np.random.default_rng(seed).permutation(len(log))
    train, judge = log.select(half[: stays // 2]), log.select(half[stays // 2 :])
    model = fit_table(train, train, members=7, prior=None, rng=RngStreams(seed))
    fitted = mbrl.fit(judge, progress=False, seed=seed, kind="tabular")
    made = {**policies(train, model), **learned(train, options)}
    for name, policy in ((name, policy) for name, policy in made.items() if name not in there):
        started = time.time()
        candidate = mbrl.Policy(StoredPolicy.in_memory(policy, name=name))
        found = mbrl.ope(
            candidate, judge, dynamics=fitted, stochastic=True, updates=options.updates, backtest=True,
            progress=False, seed=seed,
        )  # fmt: skip
        report = found.report.proposed_report
        yield {
            "stays": stays,
            "policy": name,
            "true": true_value(task, policy),
            "logged": float(judge.episode_returns.mean()),
            "verdict": found.verdict,
            "reasons": list(report.verdict.final.reasons),
            "estimates": {
                one.name: {"point": one.point, "ci95": one.ci95, "valid": one.valid, "why_not": one.why_not}
                for one in report.estimates
            },
            "seconds": round(time.time() - started, 1),
        }


def policies(train: Dataset, model: TabularDynamics) -> dict[str, DiscretePolicy]:
    """Candidates, from the training half alone; the last one is a control that no log speaks for."""
    clone = behaviour_policy(model, prior=1.0)
    codes = model.get_buffer("codes")
    actions = model.table.count.shape[0]
    pairs = codes.repeat_interleave(actions, 0), torch.eye(actions).repeat(len(codes), 1)
    dispute = ens_std(model.predict(*pairs)).double().numpy().reshape(len(codes), actions)
    rows = train.transitions()
    logged = dispute[model.state(torch.tensor(rows.observation)).numpy(), rows.action.argmax(1)]
    cost = PENALTY * dispute / np.quantile(logged, 0.95)
    allowed = model.table.allowed.double()
    uniform = allowed / allowed.sum(1, keepdim=True)
    made = (
        clone,
        spibb_policy(model, clone, least_count=LEAST_COUNT, discount=1.0),
        best_policy(model, discount=0.99, cost=cost),
        best_policy(model, discount=0.99),
        TabularPolicy(model, uniform),
    )
    return dict(zip(TABULAR, made, strict=True))


def learned(train: Dataset, options: argparse.Namespace) -> dict[str, DiscretePolicy]:
    """Networks of 2 x 256, trained on the log alone, among the actions that were allowed."""
    found: dict[str, DiscretePolicy] = {}
    with tempfile.TemporaryDirectory(prefix="mbrl-sepsis-") as store:
        for name in options.learners:
            algorithm = {
                "recipe": "model_free",
                "updates": options.learner_updates,
                "learner": {"name": name},
            }
            run = mbrl.train(train, algorithm, seed=options.seed, select="last", store=store, progress=False)
            policy = run.policy.stored.policy
            assert isinstance(policy, DiscretePolicy)
            found[name] = policy
    return found


def true_value(task: SepsisTask, policy: DiscretePolicy) -> float:
    """The chance of survival under the policy, by a linear solve in the task's tables."""
    table = np.zeros_like(task.clinicians)
    live = slice(task.states)
    states, allowed = torch.from_numpy(task.centres[live]), torch.from_numpy(task.allowed[live])
    table[live] = state_probabilities(policy, states, allowed)
    return task.value(table)


def page(found: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    lines = [
        "# ICU-Sepsis: what judges said, and what is true",
        "",
        f"Made by `{found['command']}`.",
        "",
        f"Values are chances of survival: {found['clinicians']:.4f} under the clinicians,",
        f"{found['best']:.4f} under the best policy that knows the tables. Policies come from one half of",
        "the stays, estimates and verdicts from the other one. In brackets: estimates that a verdict does",
        "not count; `results.json` says why. `model_value` is a table that is solved exactly. Value fits had",
        f"{found['updates']:,} updates; those that cannot carry a value over a stay are not counted, nor is",
        "what is corrected by them. What it means is told in `docs/healthcare.md`.",
        "",
    ]
    for stays in sorted({row["stays"] for row in found["rows"]}):
        lines += [f"## {stays:,} stays", "", f"| policy | true | {' | '.join(SHOWN)} | verdict |"]
        lines.append("|" + "---|" * (len(SHOWN) + 3))
        for row in (row for row in found["rows"] if row["stays"] == stays):
            cells = [cell(row["estimates"].get(name)) for name in SHOWN]
            lines.append(f"| {row['policy']} | {row['true']:.4f} | {' | '.join(cells)} | {row['verdict']} |")
        lines.append("")
    return "\n".join(lines)


def cell(estimate: dict[str, Any] | None) -> str:
    """Point and interval; in brackets where it does not count."""
    if estimate is None or estimate["point"] is None:
        return "-"
    low, high = estimate["ci95"]
    ends = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    text = f"{estimate['point']:.3f}{ends}"
    return text if estimate["valid"] else f"({text})"


if __name__ == "__main__":
    sys.exit(main())
