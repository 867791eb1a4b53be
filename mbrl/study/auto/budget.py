"""How long work takes on this machine, and how a given time is shared out among candidates."""

import time
from collections.abc import Mapping
from typing import Final

from mbrl.algorithms.base import RECIPES
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.run.config import ResolvedConfig
from mbrl.run.inputs import find_run_task
from mbrl.run.loop import renew
from mbrl.run.train import make_recipe_context

PROBE_SECONDS: Final = 1.0
"""For which updates are timed, after one that warms up."""

_CHECKPOINTS: Final = 1.15
"""What checkpoints, diagnostics and rows of metrics add to updates."""


def time_training(resolved: ResolvedConfig, dataset: Dataset, fitted: FittedDynamics | None) -> float:
    """Seconds of an update of a training on this machine, now, its share of model roll-outs included.

    Args:
        resolved: config of the training.
        dataset: the log.
        fitted: model of recipes that need one.
    """
    config, rng = resolved.run, RngStreams(0)
    needs_model = RECIPES.get(config.recipe).needs_dynamics
    fit = (lambda: fitted) if needs_model and fitted is not None else None
    context = make_recipe_context(config, dataset, find_run_task(config, dataset), fit)
    training = RECIPES.get(config.recipe).build(config.algorithm, context)
    state = training.learner.init(rng.at("init"))
    renewal = 0.0
    if training.refresh is not None:
        begin = time.perf_counter()
        renew(training, state, 0, rng.at("rollout"))
        renewal = (time.perf_counter() - begin) / training.refresh_interval
    generator, count, begin = rng.at("update"), -1, time.perf_counter()
    while count < 1 or time.perf_counter() - begin < PROBE_SECONDS:
        if count == 0:
            begin = time.perf_counter()  # the first one allocates
        training.learner.update(state, training.source.sample(training.batch_size, generator), generator)
        count += 1
    return _CHECKPOINTS * ((time.perf_counter() - begin) / count + renewal)


def share_out(
    seconds: float,
    cost: Mapping[str, float],
    *,
    weights: Mapping[str, float],
    most: Mapping[str, int],
    least: int,
) -> dict[str, int]:
    """Updates of each candidate, so that all together take a given time.

    Each has a part of the time by its weight; what one cannot use, because its config asks for fewer updates,
    goes to the others. A candidate whose part is too small for `least` updates is left out, the one that
    could make the fewest first.

    Args:
        seconds: in all.
        cost: seconds of an update, by label.
        weights: of the parts, by label.
        most: updates, by label.
        least: updates that are worth a training; fewer where the config asks for fewer.

    Returns:
        By label, in the order of `cost`; those that are left out are missing.
    """
    labels = list(cost)
    while labels:
        updates = _fill(max(seconds, 0.0), {label: cost[label] for label in labels}, weights, most)
        short = [label for label in labels if updates[label] < min(least, most[label])]
        if not short:
            return {label: updates[label] for label in labels}
        labels.remove(min(short, key=lambda label: (updates[label], -labels.index(label))))
    return {}


def _fill(
    seconds: float, cost: Mapping[str, float], weights: Mapping[str, float], most: Mapping[str, int]
) -> dict[str, int]:
    updates: dict[str, int] = {}
    rest, left = dict(cost), seconds
    while rest:
        whole = sum(weights[label] for label in rest)
        part = {label: left * weights[label] / whole / rest[label] for label in rest}
        full = [label for label in rest if part[label] >= most[label]]
        if not full:
            return {**updates, **{label: _round(number) for label, number in part.items()}}
        for label in full:
            updates[label] = most[label]
            left -= most[label] * rest.pop(label)
    return updates


def _round(number: float) -> int:
    """Down to two digits: a time that is measured knows no more."""
    size = 10 ** max(len(str(int(number))) - 2, 0)
    return int(number) // size * size
