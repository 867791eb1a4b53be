#!/usr/bin/env python
"""Fits default ensembles to public logs of real machines and writes how well they predict other episodes.

    python scripts/measure/real.py --data FOLDER [--out results/real] [--only CASE ...] [--set KEY=VALUE ...]

FOLDER holds `quanser_qube`, `dfki_double_pendulum/pendubot`, `dfki_simple_pendulum/results` and
`g1_lerobot/data` as their sources have them (`docs/import`); what is absent is skipped. Every case is a file
of its own, and one that is there for the same settings and log is not measured again; fits lie in a run
store, and go on where they were interrupted. One thread, one case at a time.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import mbrl  # noqa: E402
from mbrl.core.rng import RngStreams  # noqa: E402
from mbrl.data.dataset import Dataset  # noqa: E402
from mbrl.data.normaliser import measure_moments  # noqa: E402
from mbrl.data.stacking.choose import apply_history  # noqa: E402
from mbrl.dynamics.arrays import thin  # noqa: E402
from mbrl.dynamics.artifact import DYNAMICS_FORMAT, FittedDynamics  # noqa: E402
from mbrl.dynamics.assessment.baselines import LinearModel  # noqa: E402
from mbrl.dynamics.assessment.open_loop import Segments, draw_segments  # noqa: E402
from mbrl.dynamics.config import DynamicsConfig  # noqa: E402
from mbrl.report.kit.plots import Line, draw_lines  # noqa: E402
from mbrl.report.kit.style import save_png  # noqa: E402
from tests.data.importing.qube import import_qube  # noqa: E402

HORIZON = 25
SHOWN = (1, 5, 10, 25)
SEGMENTS = 300
ROWS = 10_000
EVERY = 5  # test episodes; the qube's are its first eight


@dataclasses.dataclass(frozen=True)
class Case:
    """A log and how it is read.

    Attributes:
        log: name of the log.
        history: of `with_history`; None leaves the import as it is.
        overrides: of the schema.
        outside: channels that no model of the machine can know, such as a reference that moves.
        settings: of the fit.
    """

    log: str
    history: Any = None
    overrides: tuple[tuple[tuple[str, ...], Any], ...] = ()
    outside: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])


CASES = {
    "pendubot": Case("pendubot"),
    "pendubot-auto": Case("pendubot", history="auto"),
    "pendubot-auto-h10": Case(
        "pendubot", history="auto", settings={"horizon": {"steps": 10, "max_updates": 1_000}}
    ),
    "qube": Case("qube", outside=("target_theta",)),
    "qube-5": Case("qube", history=5, outside=("target_theta",)),
    "qube-auto": Case("qube", history="auto", outside=("target_theta",)),
    "g1": Case("g1", history=3, overrides=((("history",), 1),)),
    "simple-pendulum": Case("simple-pendulum"),
    "simple-pendulum-auto": Case("simple-pendulum", history="auto"),
}

PLACES = {
    "pendubot": ("dfki_double_pendulum/pendubot", "dfki_pendubot"),
    "simple-pendulum": ("dfki_simple_pendulum/results", "dfki_simple_pendulum"),
    "g1": ("g1_lerobot/data", "g1_lerobot"),
    "qube": ("quanser_qube", "quanser_qube"),
}


def main(arguments: list[str] | None = None) -> int:
    """Measures what is there and not yet measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the raw logs")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "real")
    parser.add_argument("--store", type=Path, default=ROOT / "runs" / "real", help="run store of the fits")
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--set", nargs="*", default=[], help="of the fit's config, KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    changes = {key: json.loads(value) for key, _, value in (text.partition("=") for text in options.set)}
    for name in options.only:
        case = dataclasses.replace(CASES[name], settings={**CASES[name].settings, **changes})
        if not (options.data / PLACES[case.log][0]).is_dir():
            _say(f"{name}: no {PLACES[case.log][0]} in {options.data}; skipped")
            continue
        measure(name, case, options, seed=options.seed)
    for file in options.out.glob("*.json"):
        draw(json.loads(file.read_text())["by_step"], file.with_suffix(".png"))
    (options.out / "README.md").write_text(page(options.out))
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def measure(name: str, case: Case, options: argparse.Namespace, *, seed: int) -> None:
    """Fits and judges a case, or finds that this was done."""
    log = apply_history(read_log(case, options.data), case.history)
    config = DynamicsConfig.model_validate(dict(case.settings))
    key = {
        "log": log.content_hash,
        "config": config.model_dump(mode="json"),
        "format": DYNAMICS_FORMAT,
        "outside": list(case.outside),
        "seed": seed,
    }
    file = options.out / f"{name}.json"
    if file.is_file() and json.loads(file.read_text())["key"] == key:
        _say(f"{name}: measured before")
        return
    train, test = split(case.log, log)
    begin, cpu = time.perf_counter(), time.process_time()
    model = mbrl.fit(train, config, seed=seed, store=options.store, progress=False)
    fitted = model.fitted
    took, used = time.perf_counter() - begin, time.process_time() - cpu
    manifest = json.loads((model.path / "manifest.json").read_text())
    wall = float(manifest["wall_seconds"])
    # A fit that was found, or went on from an interruption, took more than this process knows of.
    seconds = {"wall": wall, "cpu": used if took >= wall else None}
    found = {
        "key": key,
        "commit": manifest.get("commit"),
        "seconds": seconds,
        "frames": 1 if log.info.history is None else log.info.history.frames,
        "rows": train.num_transitions,
        "updates": fitted.report.training.updates[-1],
        "trusted": fitted.trusted_horizon,
        **judge(fitted, train, test, outside=case.outside, seed=seed),
    }
    file.write_text(json.dumps(found, indent=1) + "\n")
    _say(f"{name}: {found['one_step']}, {seconds}")


def read_log(case: Case, data: Path) -> Dataset:
    """The log by its shipped schema."""
    place, schema = PLACES[case.log]
    if case.log == "qube":
        with tempfile.TemporaryDirectory() as folder:
            return import_qube(data.parent if data.name == "real" else data, Path(folder), case.overrides)
    return mbrl.import_log(schema, [data / place], overrides=case.overrides).log


def split(log: str, dataset: Dataset) -> tuple[Dataset, Dataset]:
    """Episodes to fit to, and those that no part of a fit sees."""
    test = [k for k in range(len(dataset)) if (k < 8 if log == "qube" else k % EVERY == 0)]
    return dataset.select(k for k in range(len(dataset)) if k not in set(test)), dataset.select(test)


def judge(
    fitted: FittedDynamics, train: Dataset, test: Dataset, *, outside: tuple[str, ...], seed: int
) -> dict[str, Any]:
    """Errors of the newest frame in deviations of the training observations, mean over dimensions."""
    size = fitted.model.frame_dim
    moments = measure_moments(train.transitions().observation[:, :size])
    names = train.obs_names[:size]
    counts = ~moments.is_constant & np.array([name not in outside for name in names])
    linear = LinearModel.fit(train.transitions().successors_known())

    def nrmse(error: np.ndarray[Any, Any]) -> float:
        return float(np.sqrt(np.square(error).mean(0))[counts].mean())

    rows = thin(test.transitions().successors_known(), ROWS)
    after, now = rows.next_observation[:, :size].astype(float), rows.observation[:, :size]
    step = fitted.predict(rows.observation, rows.action).observation[:, :size]
    guesses = {
        "model": step,
        "linear": linear.predict(rows.observation, rows.action)[:, :size],
        "persistence": now,
    }
    one_step = {name: nrmse((guess - after) / moments.scale) for name, guess in guesses.items()}
    generator = RngStreams(seed).at("real_segments")
    segments = draw_segments(test, count=SEGMENTS, horizon=HORIZON, generator=generator)
    by_step = open_loop(fitted, linear, segments, (moments.mean, moments.scale, counts), nrmse)
    return {
        "channels": [n for n, c in zip(names, counts, strict=True) if c],
        "one_step": one_step,
        "by_step": by_step,
    }


def open_loop(
    fitted: FittedDynamics,
    linear: LinearModel,
    segments: Segments,
    moments: tuple[np.ndarray[Any, Any], ...],
    nrmse: Callable[[np.ndarray[Any, Any]], float],
) -> list[dict[str, float]]:
    """Figures of every step from 1 on."""
    (mean, scale, counts), size = moments, len(moments[0])
    path = fitted.rollout(segments.observations[:, 0], segments.actions)
    line, found = segments.observations[:, 0].astype(float), list[dict[str, float]]()
    for k in range(segments.actions.shape[1]):
        line = np.clip(linear.predict(line, segments.actions[:, k]), -1e12, 1e12)
        rows = segments.alive[:, k]
        truth = segments.observations[rows, k + 1, :size].astype(float)
        low, high = (ends[rows, k, :size] for ends in (path.observation_low, path.observation_high))
        guesses = {
            "model": path.observation[rows, k, :size],
            "linear": line[rows, :size],
            "persistence": segments.observations[rows, 0, :size],
            "mean": np.broadcast_to(mean, truth.shape),
        }
        errors = {name: nrmse((guess - truth) / scale) for name, guess in guesses.items()}
        inside = ((truth >= low) & (truth <= high))[:, counts].mean()
        found.append({"step": k + 1, **errors, "coverage": float(inside)})
    return found


def draw(steps: list[dict[str, float]], file: Path) -> None:
    """Errors against the horizon, the log's mean as the line that no forecast should cross."""
    x = [row["step"] for row in steps]
    names = {
        "model": "forecast",
        "linear": "ridge-linear",
        "persistence": "persistence",
        "mean": "log's mean",
    }
    lines = [
        Line(label, x, [row[name] for row in steps], role=role)
        for role, (name, label) in zip((0, 1, 5, 3), names.items(), strict=True)
    ]
    figure = draw_lines(lines, x_label="steps ahead", y_label="NRMSE", y_limits=(0.0, 2.0))
    save_png(figure, file)


def page(out: Path) -> str:
    """The table of all cases."""
    lines = [
        "# Real machines",
        "",
        "Default ensembles on public logs of real machines, by",
        "`python scripts/measure/real.py --data FOLDER`. Errors are NRMSE of the newest frame: root mean",
        "square over test episodes in deviations of the training observations, mean over dimensions. Test",
        "episodes (every fifth; the first eight of the qube) are seen by no part of a fit. Several steps are",
        "open loop with the logged actions, from 300 starts: the mean of `rollout`; `log's mean` is what",
        "predicting the training mean gives; `covered` is of 90 % intervals. The reference that the qube",
        "follows is read by its model, and is not among what is judged. Seconds are of one thread (CPU), on",
        "two cores that had other work to do.",
        "",
        "| case | frames | step | model | linear | persistence | log's mean | covered | seconds | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for file in sorted(out.glob("*.json")):
        found: dict[str, Any] = json.loads(file.read_text())
        for place, k in enumerate(SHOWN):
            row = found["by_step"][k - 1]
            errors: dict[str, float] = {**row, **(found["one_step"] if k == 1 else {})}
            cells = [f"{errors[name]:.3g}" for name in ("model", "linear", "persistence", "mean")]
            head = [file.stem, str(found["frames"])] if place == 0 else ["", ""]
            cpu, wall = found["seconds"]["cpu"], found["seconds"]["wall"]
            spent = f"{wall:.0f} on the wall" if cpu is None else f"{cpu:.0f}"
            tail = [spent, str(found["commit"] or "")[:7]] if place == 0 else ["", ""]
            share = f"{100 * row['coverage']:.0f} %"
            lines.append(f"| {' | '.join([*head, str(k), *cells, share, *tail])} |")
    notes = [(file.stem, json.loads(file.read_text()).get("note")) for file in sorted(out.glob("*.json"))]
    lines += ["", *(f"- `{name}`: {note}" for name, note in notes if note)]
    lines += ["", *(f"![{file.stem}]({file.stem}.png)" for file in sorted(out.glob("*.json")))]
    lines += [
        "",
        "Sources: [pendubot](../../docs/import/dfki_pendubot.md) and",
        "[simple pendulum](../../docs/import/dfki_simple_pendulum.md) (DFKI, BSD-3-Clause),",
        "[qube](../../docs/import/quanser_qube.md) (decargroup, MIT),",
        "[g1](../../docs/import/g1_lerobot.md) (MIT).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
