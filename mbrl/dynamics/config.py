"""What a user may choose about a dynamics fit."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from mbrl.nets.stack import ActivationName
from mbrl.nets.widths import Hidden

Rate = Annotated[float, Field(gt=0.0, le=1.0)]
Decay = Annotated[float, Field(ge=0.0, le=1.0)]
Recalibration: TypeAlias = Literal["interval", "likelihood", "none"]


LEAST_UPDATES: Final = 5_000
"""Gradient steps that a default fit may take, however few the rows."""

ROWS_OF_LEAST_UPDATES: Final = 20_000
"""Training rows up to which it may take no more."""


def default_updates(rows: int) -> int:
    """Most gradient steps of a default fit, `5,000 max(1, sqrt(rows / 20,000))`, in hundreds.

    More rows take more steps to be learned, but fewer passes: 10,600 steps for 90,000 rows are 30 passes of
    batches of 256, 35,400 steps for a million are 9.

    Args:
        rows: training rows.
    """
    return 100 * round(LEAST_UPDATES * max(1.0, math.sqrt(rows / ROWS_OF_LEAST_UPDATES)) / 100)


def _default_step_size(fields: Mapping[str, Any]) -> float:
    # Only LayerNorm permits large steps; and logits over states are learned worse by them.
    return 1e-2 if fields.get("layer_norm") and fields.get("kind") != "categorical" else 1e-3


class TerminationConfig(BaseModel):
    """The learned termination head.

    Attributes:
        hidden: widths of its hidden layers.
        learning_rate: Adam step size.
        max_updates: most gradient steps; None takes those of the ensemble's default.
        max_positive_weight: cap on the weight of terminated rows, or of the others where these are the rarer
            ones; the bias that it causes is taken out again.
        bins: intervals of each coordinate in the piecewise linear encoding of s'; 0 feeds plain numbers only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: Hidden = (64, 64)
    learning_rate: Rate = 1e-3
    max_updates: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_positive_weight: Annotated[float, Field(ge=1.0, le=1e6)] = 5.0
    bins: Annotated[int, Field(ge=0, le=1000)] = 32


class HorizonConfig(BaseModel):
    """Training through several steps, after the one-step fit.

    Attributes:
        steps: that members follow their own predictions for; 1 leaves the one-step fit as it is.
        weight: of the later steps together, against the likelihood of the first.
        learning_rate: Adam step size at the start.
        max_updates: most gradient steps; each costs as much as `steps` one-step ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1, le=100)] = 1
    weight: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    learning_rate: Rate = 3e-4
    max_updates: Annotated[int, Field(ge=1, le=10_000_000)] = 2_000


class CategoricalConfig(BaseModel):
    """What is special to networks over discrete states.

    Attributes:
        features: learned numbers that stand for a state among the inputs, and for a successor in its reward.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    features: Annotated[int, Field(ge=1, le=1024)] = 16


class AssessmentConfig(BaseModel):
    """The report on a fitted model; it costs time, and changes nothing but temperatures and quantiles.

    Attributes:
        horizon: longest open-loop prediction, steps.
        segments: most held-out segments for open-loop prediction.
        particles: sampled futures of each segment; one elite for the whole of each.
        max_rows: most held-out rows for one-step figures.
        bootstrap_draws: resamples of episodes behind each interval.
        trust_error: largest open-loop error that counts as trusted, dataset standard deviations.
        trust_coverage: least coverage of the 90 % particle interval that counts as trusted.
        truncation_quantiles: quantiles of each uncertainty measure that are stored as rollout thresholds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    horizon: Annotated[int, Field(ge=1, le=1000)] = 25
    segments: Annotated[int, Field(ge=1, le=100_000)] = 200
    particles: Annotated[int, Field(ge=2, le=10_000)] = 100
    max_rows: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    bootstrap_draws: Annotated[int, Field(ge=10, le=100_000)] = 200
    trust_error: Annotated[float, Field(gt=0.0, le=100.0)] = 0.3
    trust_coverage: Annotated[float, Field(ge=0.0, le=1.0)] = 0.8
    truncation_quantiles: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = (0.9, 0.95, 0.99, 0.999, 1.0)


class DynamicsConfig(BaseModel):
    """A dynamics ensemble and its training.

    An epoch is one pass through the training rows, but at least `min_epoch_updates` and at most
    `max_epoch_updates` steps, so that patience means the same on a thousand rows and on a million.

    Attributes:
        kind: `gaussian`, networks that predict changes; `tabular`, counts of a log of few states and few
            choices: members are then draws of their posterior, and nothing else below concerns them but
            `prior`, `holdout_fraction` and `assessment`; or `categorical`, networks that predict which of
            the log's states follows, for choices and more states than a table takes: `base`, `beta_nll` and
            `bound_coef` do not concern them, the log-variance bounds are those of the reward, and any
            `recalibration` but `none` is a temperature of their logits, by likelihood.
        prior: steps that the prior of a table is worth, for each state and action: what the other actions did
            in the state. None for the worth under which the counts of the log are likeliest.
        members: networks that are trained.
        elites: networks that are kept, those with the least holdout error.
        hidden: widths of the hidden layers.
        activation: hidden activation.
        layer_norm: LayerNorm between each hidden linear map and its activation.
        base: what members correct: `linear`, a ridge regression whose strength held-out episodes choose, or
            `none`.
        learning_rate: Adam step size at the start. Where it is not named: 1e-2 for gaussian networks with
            LayerNorm, 1e-3 for others, which larger steps harm.
        schedule: `cosine` lowers the step size to zero over `max_updates`; `constant` keeps it.
        batch_size: rows of each member in one step.
        max_updates: most gradient steps; an early stop usually comes first on small data. None lets them
            follow the data (`default_updates`).
        min_epoch_updates: least steps between two looks at the holdout.
        max_epoch_updates: most steps between two looks at the holdout.
        patience: epochs without an improvement of any member before the fit stops; with `cosine` it puts the
            snapshots back first, and cools down.
        improvement: relative decrease of a member's holdout error that counts as an improvement.
        weight_decay: L2 coefficient of each layer's weights; None takes the published ramp over the depth.
        beta_nll: what a row of the likelihood weighs, its predicted variance to this power: 0 is the plain
            likelihood, which learns last what is predicted badly; 1 fits means by least squares. 0.5 lowers
            one-step errors, and raises those of long paths where the log is quiet.
        bound_coef: weight of the pull that keeps the log-variance bounds together.
        log_variance_low: initial lower bound of the log-variance, normalised target units.
        log_variance_high: initial upper bound.
        bootstrap: each member trains on its own resample, drawn with replacement.
        holdout_fraction: share of the episodes that is held out.
        recalibration: how predicted deviations are scaled: `interval` so that 90 % intervals cover 90 % of
            held-out rows, `likelihood` by maximum likelihood, or `none`.
        categorical: what is special to `kind: categorical`.
        horizon: training through several steps, after the one-step fit.
        termination: the learned termination head.
        assessment: the report on the fitted model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["gaussian", "tabular", "categorical"] = "gaussian"
    prior: Annotated[float, Field(gt=0.0, le=1e6)] | None = None
    members: Annotated[int, Field(ge=1, le=1000)] = 7
    elites: Annotated[int, Field(ge=1, le=1000)] = 5
    hidden: Hidden = (200, 200, 200, 200)
    activation: ActivationName = "silu"
    layer_norm: bool = True
    base: Literal["linear", "none"] = "linear"
    learning_rate: Rate = Field(default_factory=_default_step_size)
    schedule: Literal["constant", "cosine"] = "cosine"
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    max_updates: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    min_epoch_updates: PositiveInt = 100
    max_epoch_updates: PositiveInt = 1_000
    patience: Annotated[int, Field(ge=1, le=10_000)] = 5
    improvement: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    weight_decay: tuple[Decay, ...] | None = None
    beta_nll: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    bound_coef: Annotated[float, Field(ge=0.0, le=10.0)] = 0.01
    log_variance_low: Annotated[float, Field(ge=-40.0, le=10.0)] = -10.0
    log_variance_high: Annotated[float, Field(ge=-40.0, le=10.0)] = 0.5
    bootstrap: bool = True
    holdout_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    recalibration: Recalibration = "interval"
    categorical: CategoricalConfig = CategoricalConfig()
    horizon: HorizonConfig = HorizonConfig()
    termination: TerminationConfig = TerminationConfig()
    assessment: AssessmentConfig = AssessmentConfig()

    def ensemble_updates(self, rows: int) -> int:
        """Most gradient steps of the ensemble on this many training rows."""
        return self.max_updates or default_updates(rows)

    def termination_updates(self, rows: int) -> int:
        """Most gradient steps of the termination head on this many training rows."""
        return self.termination.max_updates or default_updates(rows)

    @property
    def split_gap(self) -> int:
        """Steps between blocks of time, where a split cuts them: the longest window that will be judged."""
        return self.assessment.horizon

    @model_validator(mode="after")
    def _fits_together(self) -> "DynamicsConfig":
        if self.elites > self.members:
            raise ValueError(f"elites ({self.elites}) cannot exceed members ({self.members})")
        if self.log_variance_low >= self.log_variance_high:
            raise ValueError("log_variance_low must lie below log_variance_high")
        if self.min_epoch_updates > self.max_epoch_updates:
            raise ValueError("min_epoch_updates cannot exceed max_epoch_updates")
        if self.kind == "categorical" and self.horizon.steps > 1:
            raise ValueError("horizon.steps follows means, which are no states: it is 1 for categorical")
        layers = len(self.hidden) + 1
        if self.weight_decay is not None and len(self.weight_decay) != layers:
            raise ValueError(f"weight_decay needs {layers} values, one for each layer, or null")
        return self
