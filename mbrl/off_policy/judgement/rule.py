"""Thresholds of the deployment verdict, each with its reason."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from mbrl.off_policy.estimators.importance import MAX_TAIL_SHARE
from mbrl.off_policy.log.diagnostics import LEAST_ESS, USABLE_PARETO_K
from mbrl.off_policy.value.fqe_result import MAX_DRIFT

MOST_SUPPORT_SHARE: Final = 0.1
"""Share of the policy's actions outside of the log's above which fitted values extrapolate. It is ten times
what the behaviour itself would show; at 0.1 two of three sequences of ten steps hold such an action."""

MOST_MODEL_DISAGREEMENT: Final = 0.1
"""Share of imagined steps beyond the 99 % quantile of the data's disagreement, by the same reasoning."""

MOST_BACKTEST_Z: Final = 2.0
"""Standard errors by which an estimator may miss the known value of the behaviour: a right one misses by
more in one case of twenty."""

MOST_DISAGREEMENT: Final = 2.0
"""Standard errors by which two families may differ. They share the data, so this errs towards silence; the
paired figure stands beside it."""

Share = Annotated[float, Field(ge=0, le=1)]


class JudgeRule(BaseModel):
    """Thresholds of the verdict.

    Attributes:
        margin: by which a GO must beat the baseline, in units of the estimand.
        least_ess: effective episodes below which ratios are not counted.
        most_pareto_k: tail shape of the weights from which on ratios are not counted.
        most_tail_share: share of bootstrapped tails above which ratios or roll-outs are not counted.
        most_drift: relative movement of a value fit from which on it is not counted.
        most_support_share: share of actions outside of the log from which on fitted values are not counted.
        most_backtest_z: standard errors off the behaviour's known value from which on a family is not
            counted.
        most_model_disagreement: share of imagined steps outside of the data from which on a model is not
            counted.
        most_disagreement: difference of two families in standard errors that counts as a conflict.
        allow_go_without_ratio: let GO stand where ratios are not counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    margin: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    least_ess: Annotated[float, Field(ge=0, le=1e12)] = LEAST_ESS
    most_pareto_k: Annotated[float, Field(ge=0, le=10)] = USABLE_PARETO_K
    most_tail_share: Share = MAX_TAIL_SHARE
    most_drift: Share = MAX_DRIFT
    most_support_share: Share = MOST_SUPPORT_SHARE
    most_backtest_z: Annotated[float, Field(gt=0, le=100)] = MOST_BACKTEST_Z
    most_model_disagreement: Share = MOST_MODEL_DISAGREEMENT
    most_disagreement: Annotated[float, Field(gt=0, le=100)] = MOST_DISAGREEMENT
    allow_go_without_ratio: bool = False


DEFAULT_RULE: Final = JudgeRule()
