"""Rules that a log carries about itself, asked of imagined steps: when the task ends, what a step earns."""

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.expressions.parse import ExpressionError, parse_expression
from mbrl.data.expressions.steps import NEXT, StepNames
from mbrl.data.info import DatasetInfo


class _LoggedRule:
    """An expression over the names of a step, and over observations after it as `next_NAME`.

    Args:
        rule: the expression.
        obs_names: of the observation dimensions, in order.
        act_names: of the action dimensions.

    Raises:
        ExpressionError: the rule is none, or reads another name.
    """

    def __init__(self, rule: str, obs_names: tuple[str, ...], act_names: tuple[str, ...]) -> None:
        self._obs_names, self._act_names = obs_names, act_names
        known = [*obs_names, *act_names, *(NEXT + name for name in obs_names)]
        self._rule = parse_expression(rule, known=known)

    def _value(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        columns = {
            **dict(zip(self._obs_names, obs.unbind(-1), strict=True)),
            **dict(zip(self._act_names, action.unbind(-1), strict=True)),
            **dict(zip((NEXT + name for name in self._obs_names), next_obs.unbind(-1), strict=True)),
        }
        return self._rule.evaluate_torch(columns, like=next_obs[:, 0])


class LoggedTermination(_LoggedRule):
    """The condition under which a step ends the task, as a `TerminationFn`: 1 where it holds, else 0.

    Who wrote it into a schema knows when the machine has fallen; no head need learn it from a few falls.
    """

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]`, 0 or 1 in the type of `next_obs`; a successor that is not finite gives 1."""
        value = self._value(obs, action, next_obs)
        # Beyond what is finite nothing may be imagined further.
        return ((value != 0) | ~torch.isfinite(next_obs).all(-1)).to(next_obs.dtype)


class LoggedReward(_LoggedRule):
    """What a step earns, as a `RewardFn`; a policy cannot exploit it, as it can a learned head."""

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]` in the type of `next_obs`."""
        return self._value(obs, action, next_obs).to(next_obs.dtype)


class StepConstraint(_LoggedRule):
    """Whether a step keeps to a condition, as a `RewardFn`: 1 where it holds, else 0."""

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]`, 0 or 1 in the type of `next_obs`; a condition without a value (NaN) does not hold."""
        value = self._value(obs, action, next_obs)
        return ((value != 0) & value.isfinite()).to(next_obs.dtype)


def read_step_rules(
    dataset: Dataset, *, constraint: str | None, cost: str | None
) -> tuple[StepConstraint | None, LoggedReward | None]:
    """A constraint and a cost over the names of a log, `next_NAME` for observations after a step.

    Args:
        dataset: whose names they read; `obs_0`, `act_0`, ... where it has none.
        constraint: a condition that steps have to keep to; None for none.
        cost: what a step costs; None for nothing.

    Raises:
        ExpressionError: one is no expression, or reads another name.
    """
    names = StepNames(dataset.obs_names, dataset.act_names)
    condition, price = names.parse(constraint), names.parse(cost)
    return (
        None if condition is None else StepConstraint(condition.text, names.obs, names.act),
        None if price is None else LoggedReward(price.text, names.obs, names.act),
    )


_Rule = TypeVar("_Rule", bound=_LoggedRule)


def logged_termination(info: DatasetInfo) -> LoggedTermination | None:
    """The condition that a log carries over all of its dimensions, or None.

    Raises:
        DataError: what it carries is no condition over its names.
    """
    return _read(info, info.termination_rule, LoggedTermination, field="termination")


def logged_reward(info: DatasetInfo) -> LoggedReward | None:
    """The reward that a log carries as an expression over all of its dimensions, or None.

    Raises:
        DataError: what it carries is no expression over its names.
    """
    return _read(info, info.reward_rule, LoggedReward, field="reward")


def _read(
    info: DatasetInfo,
    rule: str | None,
    make: Callable[[str, tuple[str, ...], tuple[str, ...]], _Rule],
    *,
    field: str,
) -> _Rule | None:
    if rule is None or info.obs_names is None or info.act_names is None:
        return None
    try:
        return make(rule, info.obs_names, info.act_names)
    except ExpressionError as error:
        raise DataError(
            f"the log {info.name!r} carries no expression over its names: {error}",
            field=f"{field}_rule",
            remedy=f"Write another dataset with mbrl relabel LOG --{field} EXPRESSION --out NEW.",
        ) from error
