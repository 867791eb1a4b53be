"""Who acted? The density of logged actions, as it was logged or fitted, and whether ratios to it can hold."""

import dataclasses
from typing import Any, Final

import numpy as np

from mbrl.core.estimates import Flag, finite_or_none
from mbrl.core.kept import Kept
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.off_policy.log.behaviour_fit import BehaviourConfig, BehaviourFit, fit_behaviour
from mbrl.off_policy.log.diagnostics import mean_ratio_z
from mbrl.off_policy.log.layout import Array, OPEArrays

BEHAVIOUR_FITTED: Final = Flag.BEHAVIOUR_FITTED
BEHAVIOUR_MISCALIBRATED: Final = Flag.BEHAVIOUR_MISCALIBRATED
BOUNDARY_ACTIONS: Final = Flag.BOUNDARY_ACTIONS

MAX_CALIBRATION_ERROR: Final = 0.1
"""Distance of held-out actions from draws of the fit above which its ratios mean little."""

MOST_Z: Final = 3.0
MAX_Z_SHARE: Final = 0.05
"""Share of the steps whose mean ratio may differ from 1 by more than `MOST_Z` standard errors."""

MAX_BOUNDARY_SHARE: Final = 0.01
"""Share of rows with an action at a bound above which ratios mean little: they have a probability."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """The density of a log's actions, whoever says it.

    Attributes:
        log_prob: `[N]` nats, step by step through all episodes.
        fit: how it was found; None where it was logged.
    """

    log_prob: Array
    fit: BehaviourFit | None = None

    def flags(self, arrays: OPEArrays) -> tuple[Flag, ...]:
        """What to know before believing ratios to it; none where it was logged.

        Args:
            arrays: the log with the ratios of some policy to this behaviour.
        """
        if self.fit is None:
            return ()
        z = mean_ratio_z(arrays.log_ratio, arrays.alive)
        known = z[np.isfinite(z)]
        is_off = known.size > 0 and float((np.abs(known) > MOST_Z).mean()) > MAX_Z_SHARE
        found = {
            BEHAVIOUR_FITTED: True,
            BEHAVIOUR_MISCALIBRATED: is_off or self.fit.calibration_error > MAX_CALIBRATION_ERROR,
            BOUNDARY_ACTIONS: self.fit.boundary_share > MAX_BOUNDARY_SHARE,
        }
        return tuple(flag for flag, is_set in found.items() if is_set)

    def facts(self, arrays: OPEArrays | None) -> dict[str, Any]:
        """Plain values for a report: where the density comes from, and how well it holds.

        Args:
            arrays: the log with the ratios of a policy to this behaviour; None for a policy without ratios.
        """
        fit = self.fit
        z = None if arrays is None else mean_ratio_z(arrays.log_ratio, arrays.alive)
        return {
            "behaviour": "given" if fit is None else "fitted",
            "family": None if fit is None else fit.family,
            "fit_nll": None if fit is None else fit.nll,
            "calibration_error": None if fit is None else fit.calibration_error,
            "mean_ratio_z": None if z is None else [finite_or_none(float(value)) for value in z],
            "floored_rows": None if fit is None else fit.floored_rows,
            "boundary_share": None if fit is None else fit.boundary_share,
        }


# A dozen policies are judged by one log one after the other, by calls that know nothing of each other.
_FITS: Final = Kept[tuple[str, BehaviourConfig], Behaviour](4)


class BehaviourCache:
    """Reads the behaviour's density off a log, or fits it once for all that ask for it in this process.

    Args:
        config: of the fits.
    """

    def __init__(self, config: BehaviourConfig | None = None) -> None:
        self._config = config or BehaviourConfig()

    def of(self, dataset: Dataset) -> Behaviour:
        """The behaviour of this log: as logged where every episode has it, else fitted on the first call."""
        logged = [episode.behaviour_log_prob for episode in dataset.episodes]
        given = [log_prob for log_prob in logged if log_prob is not None]
        if len(given) == len(logged):
            return Behaviour(np.concatenate(given).astype(np.float64))
        return _FITS.get((dataset.content_hash, self._config), lambda: self._fit(dataset))

    def _fit(self, dataset: Dataset) -> Behaviour:
        rng = RngStreams(self._config.seed).at("behaviour")
        fit = fit_behaviour(dataset, config=self._config, generator=rng)
        return Behaviour(fit.log_prob, fit)
