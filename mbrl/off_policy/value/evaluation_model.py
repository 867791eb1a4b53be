"""A dynamics model made ready to roll policies out: its end of the task, and where it leaves its data."""

import dataclasses
import math
from collections.abc import Callable
from typing import Final, TypeAlias

from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DynamicsModel, TerminationFn, UncertaintyMeasure
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.uncertainty.measures import ens_std

MEASURE: Final = "ens_std"
"""Disagreement of the members' means, each dimension in deviations of the data."""

TailValue: TypeAlias = Callable[[Tensor, Tensor, int | None], Tensor]
"""`(obs, action, steps to go, or None without a horizon) -> [b]`, reward units."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EvaluationModel:
    """A model to roll out.

    Attributes:
        dynamics: every member's belief; a member is rolled out by itself.
        termination: probability that the task ends.
        threshold: u_max, exceeded by the disagreement at 1 % of logged steps that the members were not fitted
            to; live steps beyond it are counted. The measure's units.
        limit: disagreement beyond which a roll-out stops, the same units: the largest on any logged step.
        measure: disagreement of the members.
        dataset_hash: of the log that the model was fitted to; empty where unknown.
    """

    dynamics: DynamicsModel
    termination: TerminationFn
    threshold: float = math.inf
    limit: float = math.inf
    measure: UncertaintyMeasure = ens_std
    dataset_hash: str = ""

    @classmethod
    def of(
        cls,
        fitted: FittedDynamics,
        *,
        termination: TerminationFn | None = None,
        quantile: float = 0.99,
        stop_quantile: float = 1.0,
    ) -> "EvaluationModel":
        """A fit with the quantiles of its disagreement on logged steps.

        Args:
            fitted: what a fit left behind.
            termination: replaces the learned head, such as a task's known rule.
            quantile: of the threshold; the fit must have stored it.
            stop_quantile: of the limit; likewise.

        Raises:
            ConfigError: it has not.
        """
        stored = fitted.thresholds.get(MEASURE, {})
        for wanted in (quantile, stop_quantile):
            if wanted not in stored:
                raise ConfigError(
                    f"The fit stored no {wanted:g} quantile of {MEASURE!r}, so roll-outs cannot tell where "
                    "they leave the data. Remedy: add it to dynamics.assessment.truncation_quantiles and fit "
                    "again."
                )
        return cls(
            fitted.model,
            termination or fitted.termination,
            threshold=stored[quantile],
            limit=stored[stop_quantile],
            dataset_hash=fitted.dataset_hash,
        )
