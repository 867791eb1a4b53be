"""What off-policy evaluation says: an estimand, and estimates of it with what speaks against them."""

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import EstimandError

Family: TypeAlias = Literal["ratio", "value", "model", "hybrid"]
"""Where an estimate takes its knowledge from: density ratios, a fitted value, a fitted model, or several."""


class Flag(enum.StrEnum):
    """What to know before believing an estimate: a member is its id in files, `meaning` the sentence."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "Flag":
        """A member of this id with its sentence."""
        member = str.__new__(cls, value)
        member._value_, member.meaning = value, meaning
        return member

    ALL_WEIGHTS_ZERO = "all_weights_zero", "no logged episode could have come from the policy"
    BACKTEST_INCONCLUSIVE = (
        "backtest_inconclusive",
        "the family could not be asked for the behaviour's known value",
    )
    BANDWIDTH_SENSITIVE = (
        "bandwidth_sensitive",
        "half or twice the kernel's width gives an answer outside of the interval",
    )
    BEHAVIOUR_FITTED = (
        "behaviour_fitted",
        "the density of the policy that acted was fitted, and may be wrong",
    )
    BEHAVIOUR_MISCALIBRATED = (
        "behaviour_miscalibrated",
        "the density of the policy that acted does not fit these ratios",
    )
    BOOTSTRAPPED_TAIL = (
        "bootstrapped_tail",
        "more than a tenth of it is a fitted value of what the log does not show",
    )
    BOTH_END_FLAGS = (
        "both_end_flags",
        "some episodes are marked terminated and truncated; they count as terminated",
    )
    BOUNDARY_ACTIONS = (
        "boundary_actions",
        "many logged actions lie at a bound, where a density hides probability",
    )
    CENSORED_LEFT_OUT = (
        "censored_left_out",
        "cut episodes are left out; whole ones stand for them by inverse probability of censoring",
    )
    DIVERGED = "diverged", "the values grew without bound"
    DOMINATED = "dominated", "one episode carries more than a tenth of the weight"
    EXPLOITATION_ALARM = (
        "exploitation_alarm",
        "the model promises more than fitted values, or leaves the data too often",
    )
    FAILS_BACKTEST = "fails_backtest", "asked for the behaviour's known value, it misses it"
    HEAVY_TAIL = "heavy_tail", "the weights have too heavy a tail for any mean of them"
    HUBER = "huber", "the loss does not estimate a mean"
    INVALID_PARTS = "invalid_parts", "fewer than two of the estimates that it blends count themselves"
    INVALID_VALUES = "invalid_values", "it rests on fitted values that do not count themselves"
    LEAVES_THE_DATA = "leaves_the_data", "the members of the model disagree beyond the data too often"
    LOW_ESS = "low_ess", "too few episodes carry the weight"
    MODEL_OF_OTHER_DATA = "model_of_other_data", "the model was fitted to another log"
    NO_CROSSFIT = (
        "no_crossfit",
        "the values were fitted to the episodes that they correct (dr, wdr, magic: --crossfit)",
    )
    NO_EPISTEMIC = "no_epistemic", "one member has no spread"
    NO_INTERVAL = "no_interval", "no interval can be made of it"
    NOT_CONVERGED = "not_converged", "the value still moved at the end of its fit (raise --updates)"
    OWN_MODEL = "own_model", "the model is the one in which the policy was trained, and may be exploited"
    TAIL_LEFT_OUT = "tail_left_out", "what follows the last imagined step is missing"
    TARGETS_CLIPPED = (
        "targets_clipped",
        "many targets of the value fit lay outside of what the logged rewards permit",
    )
    TOO_FEW_UPDATES = "too_few_updates", "the value fit cannot have crossed the horizon (raise --updates)"
    UNBALANCED = "unbalanced", "no weights on the log match the visits of the policy"
    UNBALANCED_VALUE = "unbalanced_value", "the weights on the log miss what the fitted value shows"
    UNRELIABLE_TAIL = "unreliable_tail", "roll-outs end in a fitted value that does not count itself"
    UNTESTED_WEIGHTS = "untested_weights", "the fitted value that tests the weights had too few updates"
    WEIGHTS_OVERFLOW = "weights_overflow", "the weights are too large for a number"


@dataclasses.dataclass(frozen=True, slots=True)
class Estimand:
    """What is estimated: `J = E[sum_{t < horizon} discount^t r_t]`, the first reward at discount^0.

    A terminal state is absorbing with reward 0. With a finite horizon every episode ends there. A cut before
    is censoring and never a part of the question: what would have followed counts, and has to be estimated.

    Attributes:
        discount: gamma, in [0, 1].
        horizon: H, steps that count; None for all.
        normalised: multiply by `1 - discount`, as density-ratio papers and DOPE do.
        is_proper: every policy's episodes surely end; needed for a discount of 1 without a horizon.

    Raises:
        EstimandError: the sum has no meaning.
    """

    discount: float
    horizon: int | None = None
    normalised: bool = False
    is_proper: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise EstimandError(f"The discount must lie in [0, 1], not at {self.discount}.")
        if self.horizon is not None and self.horizon < 1:
            raise EstimandError(f"The horizon must be at least one step, not {self.horizon}.")
        if self.discount == 1.0 and self.horizon is None and not self.is_proper:
            raise EstimandError(
                "A discount of 1 sums for ever. Remedy: declare a horizon, or that every episode surely ends "
                "(is_proper)."
            )
        if self.normalised and self.discount == 1.0:
            raise EstimandError("A discount of 1 cannot be normalised: 1 - discount is 0.")

    @property
    def scale(self) -> float:
        """Factor between the plain sum and what is reported."""
        return 1.0 - self.discount if self.normalised else 1.0

    @property
    def weight_sum(self) -> float:
        """`sum_t discount^t` over the steps that count; inf where they are endless at discount 1."""
        if self.discount == 1.0:
            return math.inf if self.horizon is None else float(self.horizon)
        whole = 1.0 / (1.0 - self.discount)
        return whole if self.horizon is None else whole * (1.0 - self.discount**self.horizon)

    @property
    def words(self) -> str:
        """What is asked, in plain words: `mean return of an episode of at most 1,000 steps`, say."""
        factor = "" if self.discount == 1.0 else f", discounted by {self.discount:g} a step"
        share = f", times {1.0 - self.discount:g}" if self.normalised else ""
        if self.horizon is None:
            whole = "a whole episode" if self.is_proper else "an episode without a limit of steps"
            return f"mean return of {whole}{factor}{share}"
        plural = "" if self.horizon == 1 else "s"
        return f"mean return of an episode of at most {self.horizon:,} step{plural}{factor}{share}"

    def describe(self) -> str:
        """As a formula, such as `E[sum_{t<500} 0.99^t r_t], absorbing after terminal, ...`."""
        limit = "t>=0" if self.horizon is None else f"t<{self.horizon}"
        factor = f"{1.0 - self.discount:g} " if self.normalised else ""
        censoring = (
            "time-outs bootstrapped" if self.horizon is None else f"every episode cut at {self.horizon}"
        )
        return f"{factor}E[sum_{{{limit}}} {self.discount:g}^t r_t], absorbing after terminal, {censoring}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**dataclasses.asdict(self), "text": self.describe()}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """One estimator's answer, with everything that is needed to judge it.

    Attributes:
        name: id of the estimator.
        family: where its knowledge comes from.
        point: the estimate, in units of the estimand; NaN with a reason in `why_not`.
        se: standard error; NaN where unknown.
        ci95: lower and upper end of the 95 % interval; NaN where unknown.
        method_of_ci: how the interval was made, or why there is none.
        n_eff: effective number of episodes behind it.
        flags: what to know before believing it.
        valid: whether it may enter a verdict.
        why_not: the reason if it may not, with the numbers behind it; `flags` name its kind.
        per_episode: `[n]` influence values, their mean is the point; None where there are none.
        estimand: what was estimated.
        details: further findings, by name.
    """

    name: str
    family: Family
    point: float
    se: float
    ci95: tuple[float, float]
    method_of_ci: str
    n_eff: float
    estimand: Estimand
    flags: tuple[Flag, ...] = ()
    valid: bool = True
    why_not: str | None = None
    per_episode: NDArray[np.float64] | None = None
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if not math.isfinite(self.point) and (self.valid or not self.why_not):
            raise ValueError(f"{self.name}: a point of {self.point} needs a reason and cannot be valid")

    def invalidated(self, reason: str, *flags: Flag) -> "Estimate":
        """The same estimate, kept out of verdicts; an earlier reason stays in front."""
        why_not = reason if self.why_not is None else f"{self.why_not}; {reason}"
        return dataclasses.replace(self.flagged(*flags), valid=False, why_not=why_not)

    def flagged(self, *flags: Flag) -> "Estimate":
        """The same estimate with further flags."""
        new = tuple(flag for flag in flags if flag not in self.flags)
        return dataclasses.replace(self, flags=(*self.flags, *new)) if new else self

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become None, arrays are left out."""
        return {
            "name": self.name,
            "family": self.family,
            "point": finite_or_none(self.point),
            "ci95": [finite_or_none(end) for end in self.ci95],
            "method_of_ci": self.method_of_ci,
            "se": finite_or_none(self.se),
            "n_eff": finite_or_none(self.n_eff),
            "flags": list(self.flags),
            "valid": self.valid,
            "why_not": self.why_not,
            "tail_share": self.details.get("tail_share"),
        }


def finite_or_none(value: float) -> float | None:
    """The number for strict JSON: None for a NaN or an infinity."""
    return float(value) if math.isfinite(value) else None
