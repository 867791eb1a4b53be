"""Model-based value: each member of an ensemble rolls the policy out by itself, `J = mean_m J_m`.

A member is kept for a whole roll-out (TS-inf of Chua et al. 2018), so the spread of the J_m is what the log
leaves open of the dynamics. Random numbers are common: the noise of a roll-out depends on the seed, its first
state, its number and the step, neither on the member nor on the policy, so differences between members and
between policies are paired.

Where the members disagree more than on any logged step, a roll-out stops and a fitted value stands for the
rest. How often they disagree more than on 99 % of the held-out steps is counted. To stop there would end
nearly every long roll-out, even of the policy that acted: one of its steps in a hundred lies beyond.
"""

import dataclasses
import math
from typing import Annotated, Final

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.estimates import Estimand
from mbrl.core.protocols import Policy
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.value.evaluation_model import EvaluationModel, TailValue
from mbrl.off_policy.value.model_estimate import ModelEstimate
from mbrl.off_policy.value.model_rollouts import (
    SPARE_COLUMNS,
    RolloutRun,
    RolloutSums,
    rollout_noise,
    start_keys,
)
from mbrl.rollouts.generate import Box


class ModelValueConfig(BaseModel):
    """Evaluation by model roll-outs.

    Attributes:
        rollouts: N, of every member from every first state.
        max_starts: first states in use; of more, those that a hash of their content chooses.
        max_horizon: most steps of a roll-out where the estimand has no horizon.
        least_weight: without a horizon a roll-out also ends where `discount^t` has fallen to it.
        box_margin: by which s' may leave the range of the data, in widths of that range.
        chunk: rows that go through the model together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    rollouts: Annotated[int, Field(ge=1, le=1000)] = 1
    max_starts: Annotated[int, Field(ge=2, le=1_000_000)] = 256
    max_horizon: Annotated[int, Field(ge=1, le=100_000)] = 1000
    least_weight: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    box_margin: Annotated[float, Field(ge=0, le=100)] = 0.10
    chunk: Annotated[int, Field(ge=1, le=10_000_000)] = 1000

    def steps(self, estimand: Estimand) -> int:
        """Length of a roll-out."""
        if estimand.horizon is not None:
            return estimand.horizon
        if estimand.discount == 1.0:
            return self.max_horizon
        if estimand.discount == 0.0:
            return 1
        return min(self.max_horizon, math.ceil(math.log(self.least_weight) / math.log(estimand.discount)))


DEFAULT: Final = ModelValueConfig()


@torch.no_grad()
def model_value(
    model: EvaluationModel,
    policy: Policy,
    starts: Float[Tensor, "n obs_dim"],
    *,
    estimand: Estimand,
    box: Box,
    config: ModelValueConfig = DEFAULT,
    seed: int = 0,
    tail: TailValue | None = None,
) -> ModelEstimate:
    """Rolls the policy out of every start with every member, N times.

    A step draws an action, stops the roll-out if the members disagree there and `tail` can stand for the
    rest, else draws s' and r from the roll-out's own member, clips both to the box, counts the reward (that
    of a terminating step too) and draws the end. Without a horizon `tail` also stands for what follows the
    last step; without either the bound of what follows is reported.

    Args:
        model: what is rolled out.
        policy: acts; one without a density takes its evaluation action.
        starts: `[n, obs_dim]`, first states, raw units; of more than `config.max_starts` a part is used.
        estimand: discount and horizon.
        box: range of the data.
        config: how many roll-outs, how long.
        seed: of all draws.
        tail: fitted value of a state and an action, or None.

    Returns:
        Values `[m, n]` and what was seen on the way. Neither the order of the starts nor how they are divided
        into chunks matters, up to the rounding of matrix products.
    """
    keys, chosen = start_keys(starts, seed), None
    if len(keys) > config.max_starts:
        # Those of the smallest keys: a random part that depends on their content alone.
        chosen = sorted(sorted(range(len(keys)), key=keys.__getitem__)[: config.max_starts])
        starts, keys = starts[chosen], [keys[i] for i in chosen]
    run = RolloutRun(model, policy, estimand, box, tail, config.steps(estimand))
    n, members = len(keys), model.dynamics.ensemble_size
    sums = RolloutSums.zeros(run.steps)
    values, tails, terminated = np.zeros((3, members, n))
    width = max(1, config.chunk // members)
    for k in range(config.rollouts):
        for rows in (slice(i, i + width) for i in range(0, n, width)):
            columns = policy.act_dim + starts.shape[1] + SPARE_COLUMNS
            noise = rollout_noise(keys[rows], k, (run.steps + 1, columns))
            found = run.roll(starts[rows], noise.to(starts.dtype), sums)
            # J_m(s_i) is the mean over the N roll-outs of a member from a start.
            for total, part in zip((values, tails, terminated), found, strict=True):
                total[:, rows] += part.numpy() / config.rollouts
    estimate = _summarise(sums, (values, tails, terminated), members * n * config.rollouts, run)
    return estimate if chosen is None else dataclasses.replace(estimate, starts=np.array(chosen))


def _summarise(
    sums: RolloutSums, parts: tuple[Array, Array, Array], rollouts: int, run: RolloutRun
) -> ModelEstimate:
    """Sums over roll-outs as shares of those that lived."""
    moved = sums.live - sums.stopped  # roll-outs that took the step
    with np.errstate(invalid="ignore"):
        disagreement, clip_rate = sums.disagreement / sums.live, sums.clipped / moved
    values, tails, terminated = parts
    return ModelEstimate(
        values=values,
        tails=tails,
        terminated=terminated,
        disagreement=disagreement,
        clip_rate=clip_rate,
        stopped=sums.stopped.astype(np.int64),
        alive_share=sums.live / rollouts,
        disagreement_share=float(sums.exceeded.sum() / sums.live.sum()),
        rollouts=rollouts,
        tail_bound=run.tail_bound() if sums.ends_alive[0] > 0 else 0.0,
        estimand=run.estimand,
    )
