"""What a fitted model says apart from the policy, measured once: a look at the policy then costs little."""

import dataclasses
import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.normaliser import fit_action_moments, fit_moments
from mbrl.dynamics.arrays import thin
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.assessment.open_loop import Segments, draw_segments, run_open_loop
from mbrl.rollouts.generate import Imagination, RolloutConfig
from mbrl.uncertainty.measures import StepContext
from mbrl.uncertainty.penalty import CAP

MAX_HORIZON: Final = 10
"""Longest rollout along which uncertainty is measured; the model's trusted horizon may shorten it."""

MAX_EDGE_HORIZON: Final = 100
"""Longest rollout whose edge is looked for: a look is to cost little, and of longer ones little is edge."""

_BASELINE_ROWS: Final = 1_000  # held-out rows behind the mean uncertainty that rollouts are compared with
_SEGMENTS: Final = 500
_SEGMENT_HORIZON: Final = 5
_PARTICLES: Final = 20
_FIT_ROWS: Final = 20_000  # training rows behind the linear model that open-loop errors are made beside


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ModelProbe:
    """What a fitted model says, apart from the policy.

    Attributes:
        imagination: the model with a unit-free measure and no threshold, so that uncertainty ends no rollout.
        flag_level: unit-free uncertainty of the data's 0.99 quantile.
        baseline: mean unit-free uncertainty on held-out rows, capped like that of rollouts.
        horizon: steps of a rollout.
        segments: of held-out episodes.
        error: `[s, K]` open-loop error along them.
        action_std: `[act_dim]` deviations of the logged actions, environment units.
    """

    imagination: Imagination
    flag_level: float
    baseline: float
    horizon: int
    segments: Segments
    error: NDArray[np.float64]
    action_std: NDArray[np.float64]

    @classmethod
    @torch.no_grad()
    def make(
        cls,
        dynamics: FittedDynamics,
        imagination: Imagination,
        *,
        train: Transitions,
        holdout: Dataset,
        generator: torch.Generator,
    ) -> "ModelProbe":
        """Measures `dynamics` on held-out data.

        Args:
            dynamics: the fit.
            imagination: of it, with a unit-free measure whose threshold is the data's 0.99 quantile.
            train: rows of the fit.
            holdout: episodes that were held out of it.
            generator: segments and particles.
        """
        # One step at least: also of a model that nobody should trust it is worth saying how wrong it is.
        trusted = max(1, dynamics.report.trusted_horizon)
        # The last row of a truncated episode may have no successor to learn from.
        known = train.successors_known()
        segments = draw_segments(
            holdout, count=_SEGMENTS, horizon=min(trusted, _SEGMENT_HORIZON), generator=generator
        )
        loop = run_open_loop(
            dynamics.model,
            dynamics.termination,
            # Open loops are run beside a linear baseline; its errors are not read here.
            LinearModel.fit(thin(known, _FIT_ROWS)),
            segments,
            particles=_PARTICLES,
            obs_std=fit_moments(train.observation)[1],
            generator=generator,
        )
        rows = thin(holdout.transitions(), _BASELINE_ROWS)
        return cls(
            # No cut: rollouts that end where the model is unsure would measure only what is left.
            imagination=dataclasses.replace(imagination, threshold=math.inf),
            flag_level=imagination.threshold,
            baseline=_mean_uncertainty(imagination, rows),
            horizon=min(trusted, MAX_HORIZON),
            segments=segments,
            error=loop.error,
            action_std=fit_action_moments(train.action)[1],
        )


def _mean_uncertainty(imagination: Imagination, rows: Transitions) -> float:
    assert imagination.measure is not None
    obs, action = torch.tensor(rows.observation), torch.tensor(rows.action)
    context = StepContext(obs=obs, action=action, reference=imagination.reference)
    # The same measure on rows that the fit did not see, since rollouts meet new states as well.
    values = imagination.measure(imagination.model.predict(obs, action), context)
    # Capped like the rollouts that are held against it, or the ratio of the two would mix units.
    return float(values.double().clamp_max(CAP).mean())


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeProbe:
    """The rollouts that a recipe learns from.

    Attributes:
        imagination: with the recipe's threshold.
        rollout: with the recipe's horizon, as limited by the model.
    """

    imagination: Imagination
    rollout: RolloutConfig
