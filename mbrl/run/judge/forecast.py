"""What a judgement by a log will do, and about how long it takes here: told before it starts."""

import time
from typing import Final

from mbrl.core.estimates import Estimand
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import DynamicsFit
from mbrl.off_policy.value.fqe import FQEConfig, FQEFit

PROBE_UPDATES: Final = 20
"""Gradient steps that are timed; what a forecast costs is about a second."""


def time_value_fit(dataset: Dataset, policy: Policy, *, estimand: Estimand, config: FQEConfig) -> float:
    """Seconds of an update of fitted Q evaluation with this config on this machine, now."""
    fit = FQEFit(dataset, policy, estimand=estimand, config=config, rng=RngStreams(0))
    state = fit.init()
    begin = time.perf_counter()
    for _ in range(PROBE_UPDATES):
        fit.update(state)
    return (time.perf_counter() - begin) / PROBE_UPDATES


def time_dynamics_fit(dataset: Dataset, config: DynamicsConfig) -> float:
    """Seconds of an update of a dynamics ensemble with this config on this machine, now."""
    probe = config.model_copy(update={"min_epoch_updates": PROBE_UPDATES, "max_epoch_updates": PROBE_UPDATES})
    fit = DynamicsFit(dataset, probe, RngStreams(0))
    begin = time.perf_counter()
    fit.run_epoch()
    return (time.perf_counter() - begin) / PROBE_UPDATES


def forecast_estimates(name: str, *, fits: int, updates: int, seconds: float) -> str:
    """A line about the estimates of one candidate.

    Args:
        name: of the candidate.
        fits: value fits.
        updates: of each.
        seconds: of one update.
    """
    return (
        f"{name}: {_count(fits, 'value fit')} of {updates:,} updates, {_minutes(fits * updates * seconds)}, "
        "then the other estimates. Fewer with --updates."
    )


def forecast_backtest(
    *,
    folds: int,
    updates: int,
    seconds: float,
    dynamics_updates: int | None,
    dynamics_seconds: float,
) -> str:
    """A line about the back-test of a log.

    Args:
        folds: parts of the log, with a value fit each.
        updates: of each value fit.
        seconds: of one of these updates.
        dynamics_updates: the most of a dynamics fit for each fold; None where none is made.
        dynamics_seconds: of one of these updates.
    """
    total, work = folds * updates * seconds, f"{_count(folds, 'value fit')} of {updates:,} updates"
    if dynamics_updates is not None:
        total += folds * dynamics_updates * dynamics_seconds
        work += f" and {_count(folds, 'dynamics fit')} of {dynamics_updates:,} updates at most"
    return f"Back-test, once for this log: {work}, {_minutes(total)}. --no-backtest leaves it away."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _minutes(seconds: float) -> str:
    return "about a minute at most" if seconds < 60 else f"about {seconds / 60:.0f} min"
