"""Conditions that a log carries about itself, asked of imagined steps."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.data.expressions.parse import ExpressionError, parse_expression
from mbrl.data.expressions.steps import NEXT
from mbrl.data.info import DatasetInfo


class LoggedTermination:
    """The condition under which a step ends the task, as a `TerminationFn`: 1 where it holds, else 0.

    Who wrote it into a schema knows when the machine has fallen; no head need learn it from a few falls.

    Args:
        rule: expression over the names, and over observations after the step as `next_NAME`.
        obs_names: of the observation dimensions, in order.
        act_names: of the action dimensions.

    Raises:
        ExpressionError: the rule is none, or reads another name.
    """

    def __init__(self, rule: str, obs_names: tuple[str, ...], act_names: tuple[str, ...]) -> None:
        self._obs_names, self._act_names = obs_names, act_names
        known = [*obs_names, *act_names, *(NEXT + name for name in obs_names)]
        self._rule = parse_expression(rule, known=known)

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]`, 0 or 1 in the type of `next_obs`; a successor that is not finite gives 1."""
        columns = {
            **dict(zip(self._obs_names, obs.unbind(-1), strict=True)),
            **dict(zip(self._act_names, action.unbind(-1), strict=True)),
            **dict(zip((NEXT + name for name in self._obs_names), next_obs.unbind(-1), strict=True)),
        }
        value = self._rule.evaluate_torch(columns, like=next_obs[:, 0])
        # Beyond what is finite nothing may be imagined further.
        return ((value != 0) | ~torch.isfinite(next_obs).all(-1)).to(next_obs.dtype)


def logged_termination(info: DatasetInfo) -> LoggedTermination | None:
    """The condition that a log carries over all of its dimensions, or None.

    Raises:
        DataError: what it carries is no condition over its names.
    """
    if info.termination_rule is None or info.obs_names is None or info.act_names is None:
        return None
    try:
        return LoggedTermination(info.termination_rule, info.obs_names, info.act_names)
    except ExpressionError as error:
        raise DataError(
            f"the log {info.name!r} carries no condition over its names: {error}",
            field="termination_rule",
            remedy="Write another dataset with mbrl relabel LOG --termination EXPRESSION --out NEW.",
        ) from error
