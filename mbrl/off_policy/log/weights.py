"""Cumulative importance weights in log space, in blocks of time.

`log w_t = sum_{k<=t} log rho_k`; no product of ratios is ever formed before it is normalised. Weights are
normalised over ALL episodes, those that have ended included: dividing by the living alone would estimate
`E[r_t | alive]` and forget that survival depends on the policy.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mbrl.core.errors import ConfigError
from mbrl.off_policy.log.layout import Array, OPEArrays

BLOCK_ENTRIES: Final = 500_000
"""Entries of a block: four megabytes an array, so that the passes over a block stay near the processor."""

LOG_OVERFLOW: Final = 700.0
"""Largest logarithm of a weight that a float64 can hold with room for a reward."""

Positive = Annotated[float, Field(gt=0, le=1e12)]


class WeightTransform(BaseModel):
    """Variance for bias: changes of the weights, all off by default, in the order of application.

    Attributes:
        clip_log_ratio: limits of every step's log-ratio (DOPE: -6, 2).
        cap: largest cumulative weight.
        switch: cumulative weights above it become 0, so that Q fills in (Wang et al. 2017).
        shrinkage: lambda of `lambda w / (w^2 + lambda)` (Su et al. 2020).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    clip_log_ratio: tuple[float, float] | None = None
    cap: Positive | None = None
    switch: Positive | None = None
    shrinkage: Positive | None = None

    @classmethod
    def parse(cls, text: str) -> "WeightTransform":
        """Reads `switch=10`, `cap=20,clip_log_ratio=-6:2` and the like.

        Raises:
            ConfigError: a name is not known, or a value is out of its range.
        """
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = part.partition("=")
            values[name.strip()] = tuple(value.split(":")) if ":" in value else value.strip()
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ConfigError(
                f"weights {text!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}. Remedy: of "
                f"{', '.join(cls.model_fields)}, each as NAME=NUMBER (clip_log_ratio=LOW:HIGH), with commas."
            ) from error

    def on_ratio(self, log_ratio: Array) -> Array:
        """Per-step log-ratios, clipped."""
        return log_ratio if self.clip_log_ratio is None else np.clip(log_ratio, *self.clip_log_ratio)

    def on_weight(self, log_weight: Array) -> Array:
        """Cumulative log-weights, capped, switched off or shrunk."""
        if self.cap is not None:
            log_weight = np.minimum(log_weight, math.log(self.cap))
        if self.switch is not None:
            log_weight = np.where(log_weight > math.log(self.switch), -np.inf, log_weight)
        if self.shrinkage is not None:
            log_lambda = math.log(self.shrinkage)
            log_weight = log_lambda + log_weight - np.logaddexp(2 * log_weight, log_lambda)
        return log_weight


PLAIN: Final = WeightTransform()


@dataclasses.dataclass(frozen=True, slots=True)
class WeightBlock:
    """Weights of the steps `rows` of every episode, k of them.

    Attributes:
        rows: which steps.
        log_weight: `[n, k]`, log w_t.
        share: `[n, k]`, `w_t / sum_i w_t`; columns sum to 1, or are NaN where every weight is 0.
        before_log_weight: `[n]`, log w of the step before the block; `OPEArrays.log_start` at the start.
        before_share: `[n]`, likewise; 1/n at the start without one.
    """

    rows: slice
    log_weight: Array
    share: Array
    before_log_weight: Array
    before_share: Array

    @property
    def previous_log_weight(self) -> Array:
        """`[n, k]`, log w_{t-1}."""
        return _shifted(self.before_log_weight, self.log_weight)

    @property
    def previous_share(self) -> Array:
        """`[n, k]`, the shares of the step before."""
        return _shifted(self.before_share, self.share)


def weight_blocks(
    arrays: OPEArrays, transform: WeightTransform = PLAIN, *, entries: int = BLOCK_ENTRIES
) -> Iterator[WeightBlock]:
    """The weights of all steps, block by block.

    Args:
        arrays: padded log.
        transform: changes of the weights.
        entries: about how many numbers an array of a block holds.
    """
    n = len(arrays)
    width = max(1, entries // n)
    # Cumulative, before the transform of cumulative weights.
    raw = np.zeros(n) if arrays.log_start is None else arrays.log_start
    before, before_share = raw, _normalised(raw[:, None])[:, 0]
    for start in range(0, arrays.steps, width):
        rows = slice(start, min(start + width, arrays.steps))
        # log w_t = log w_{t-1} + log rho_t, carried over from the block before.
        log_weight = np.empty((n, rows.stop - start), order="F")
        ratio = transform.on_ratio(arrays.log_ratio[:, rows])
        np.cumsum(ratio, axis=1, out=log_weight)
        log_weight += raw[:, None]
        raw = log_weight[:, -1].copy()
        # The sum that is carried on stays untransformed: a cap at one step does not shrink the next.
        log_weight = np.asfortranarray(transform.on_weight(log_weight))
        share = _normalised(log_weight)
        yield WeightBlock(rows, log_weight, share, before, before_share)
        before, before_share = log_weight[:, -1], share[:, -1]


def final_block(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> WeightBlock:
    """The block that holds the last step."""
    *_, last = weight_blocks(arrays, transform)
    return last


def final_ess(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> float:
    """Effective number of episodes `(sum w)^2 / sum w^2` of the last step's weights; 0 if all are 0."""
    log_weight = final_block(arrays, transform).log_weight[:, -1:]
    if not np.isfinite(log_weight).any():
        return 0.0
    return float(np.exp(2 * log_sum_exp(log_weight) - log_sum_exp(2 * log_weight))[0])


def first_empty_step(arrays: OPEArrays, transform: WeightTransform = PLAIN) -> int:
    """The first step at which no episode has a weight."""
    for block in weight_blocks(arrays, transform):
        empty = ~np.isfinite(block.log_weight).any(0)
        if empty.any():
            return block.rows.start + int(empty.argmax())
    return arrays.steps


def exp_weights(log_weight: Array) -> Array:
    """Weights; NaN from an overflow on, which the estimate then reports."""
    return np.where(log_weight > LOG_OVERFLOW, np.nan, np.exp(np.minimum(log_weight, LOG_OVERFLOW)))


def log_sum_exp(values: Array) -> Array:
    """`log sum_i exp(values)` over the first axis, `[n, k] -> [k]`; -inf where all are."""
    # The largest is taken out first: what is exponentiated lies in (0, 1].
    largest = values.max(0)
    safe = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - safe).sum(0)) + safe


def _normalised(log_weight: Array) -> Array:
    largest = log_weight.max(0)
    with np.errstate(invalid="ignore"):  # -inf - -inf: every weight of the step is 0, and shares are NaN
        share = log_weight - largest
        np.exp(share, out=share)
        share /= share.sum(0)
    return share


def _shifted(first: Array, rest: Array) -> Array:
    out = np.empty_like(rest, order="F")
    out[:, 0] = first
    out[:, 1:] = rest[:, :-1]
    return out
