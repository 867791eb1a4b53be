"""Laws of looking at any shipped algorithm in training: it changes nothing, and explains what it lacks."""

import math
from pathlib import Path

import pytest

from mbrl.algorithms.base import RECIPES
from mbrl.core.rng import RngStreams
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.run.config import RunConfig, part_names
from mbrl.run.diagnostics import ShiftMonitor, make_shift_probe
from mbrl.run.loop import train
from mbrl.shift.report import MEASURED
from tests.conformance.test_learners import SETTINGS, build, dynamics, final, run, small_algorithm
from tests.run.toy import TINY_DYNAMICS, assert_same, make_dataset

__all__ = ["dynamics"]  # the fixture


@pytest.mark.parametrize("name", part_names("algorithms"))
def test_a_training_has_the_same_bits_when_it_is_looked_at(
    name: str, dynamics: FittedDynamics, tmp_path: Path
) -> None:
    recipe, algorithm = small_algorithm(name)
    if RECIPES.get(recipe).is_online:
        return
    training, context = build(name, dynamics)
    config = RunConfig(recipe=recipe, algorithm=algorithm, dynamics=TINY_DYNAMICS)  # pyright: ignore[reportArgumentType]
    monitor = ShiftMonitor(
        lambda: make_shift_probe(
            config, make_dataset(), context, value_bounds=training.value_bounds, supports={}
        )
    )
    folder = tmp_path / "seen"
    folder.mkdir()
    train(training, folder=folder, rng=RngStreams(0), settings=SETTINGS, diagnostics=monitor)
    assert_same(final(folder), run(build(name, dynamics)[0], tmp_path / "unseen"))
    report = monitor.report
    assert report is not None
    assert {measured for measured in MEASURED if report[measured] is None} == set(report["why_not"])
    assert all(math.isfinite(report[name]) for name in set(MEASURED) - set(report["why_not"]))
