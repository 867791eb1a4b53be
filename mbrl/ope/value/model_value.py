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
import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.core.protocols import DynamicsModel, Policy, TerminationFn, UncertaintyMeasure
from mbrl.core.rng import RngStreams
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.ope.log.layout import Array
from mbrl.ope.log.policies import act_with
from mbrl.ope.statistics.ensembles import ensemble_estimate
from mbrl.ops.gaussian import standard_normal_cdf
from mbrl.rollouts.generate import Box
from mbrl.uncertainty.measures import ens_std

MEASURE: Final = "ens_std"
"""Disagreement of the members' means, each dimension in deviations of the data."""

MAX_DISAGREEMENT_SHARE: Final = 0.1
"""Share of live steps beyond the threshold (1 % is nominal) that means another world than the log's."""

_ALARM_ERRORS: Final = 2.0
"""Standard errors by which a model may exceed the fitted value before that looks like exploitation."""

_SPARE_COLUMNS: Final = 2  # noise of the reward and of termination, beside that of the action and of s'

TailValue: TypeAlias = Callable[[Tensor, Tensor, int | None], Tensor]
"""`(obs, action, steps to go, or None without a horizon) -> [b]`, reward units."""


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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ModelEstimate:
    """What the roll-outs of one policy found; shares are those of the live roll-outs of a step.

    Attributes:
        values: `[m, n]` float64, each member's value of each first state, plain sum.
        tails: `[m, n]`, the part of it that a fitted value stands for.
        terminated: `[m, n]`, share of the roll-outs that ended the task.
        disagreement: `[H]`, mean over live roll-outs; NaN where none lives.
        clip_rate: `[H]`, share whose s' or reward left the data and was clipped; NaN likewise.
        stopped: `[H]` int64, roll-outs that ended because the members disagreed beyond the limit.
        alive_share: `[H]`, share of all roll-outs that live.
        disagreement_share: share of all live steps with a disagreement beyond the threshold.
        rollouts: of all members.
        tail_bound: most that the steps beyond the roll-outs can be worth where no value stands for them.
        estimand: what was estimated.
        starts: `[n]`, which of the first states these are, where only a part of them was used.
    """

    values: Array
    tails: Array
    terminated: Array
    disagreement: Array
    clip_rate: Array
    stopped: NDArray[np.int64]
    alive_share: Array
    disagreement_share: float
    rollouts: int
    tail_bound: float
    estimand: Estimand
    starts: NDArray[np.int64] | None = None

    @property
    def tail_share(self) -> float:
        """`|mean of the tails| / |mean value|`; inf where only the latter is 0."""
        tail, point = abs(float(self.tails.mean())), abs(float(self.values.mean()))
        return tail / point if point > 0 else (0.0 if tail == 0.0 else math.inf)

    def estimate(self, reference: Estimate | None = None) -> Estimate:
        """The ensemble's estimate; hybrid where fitted values stand for a part of it.

        Args:
            reference: a valid estimate by fitted values, to notice a policy that exploits the model.
        """
        estimate = ensemble_estimate("model_value", "model", self.values, self.estimand)
        details = {**estimate.details, **self._findings()}
        if not math.isfinite(estimate.point):
            return dataclasses.replace(estimate, details={**details, "exploitation_alarm": True})
        alarm = self._is_exploited(estimate, reference)
        estimate = dataclasses.replace(
            estimate,
            family="hybrid" if self.tail_share > 0 else "model",
            details={**details, "exploitation_alarm": alarm},
        )
        if alarm:
            estimate = estimate.flagged(Flag.EXPLOITATION_ALARM)
        if self.tail_bound > 0:
            estimate = estimate.flagged(Flag.TAIL_LEFT_OUT)
        if self.disagreement_share >= MAX_DISAGREEMENT_SHARE:
            reason = f"{self.disagreement_share:.0%} of the imagined steps lie beyond what the data can tell"
            estimate = estimate.invalidated(reason, Flag.LEAVES_THE_DATA)
        return estimate

    def _is_exploited(self, estimate: Estimate, reference: Estimate | None) -> bool:
        if self.disagreement_share > MAX_DISAGREEMENT_SHARE:
            return True
        if reference is None or not (math.isfinite(reference.point) and math.isfinite(reference.se)):
            return False
        spread = math.hypot(estimate.se if math.isfinite(estimate.se) else 0.0, reference.se)
        return estimate.point > reference.point + _ALARM_ERRORS * spread

    def _findings(self) -> dict[str, Any]:
        names = ("disagreement", "clip_rate", "stopped", "alive_share", "disagreement_share", "rollouts")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        scale = self.estimand.scale
        if self.starts is not None:
            found["starts"] = self.starts
        found |= {"tail_share": self.tail_share, "tail_bound": scale * self.tail_bound}
        if self.rollouts == self.values.size:  # a mean over several roll-outs has another distribution
            found |= {"rollout_returns": scale * self.values, "rollout_terminated": self.terminated}
        return found


def model_diagnostics(estimate: Estimate) -> dict[str, Any]:
    """What a report says of the roll-outs, as plain values; empty for an estimate without roll-outs.

    `stopped` counts roll-outs out of `model_rollouts`, `clip_rate` holds shares of the live ones.
    """
    details: Mapping[str, Any] = estimate.details
    if "disagreement_share" not in details:
        return {}
    return {
        "model_disagreement_share": float(details["disagreement_share"]),
        "model_rollouts": int(details["rollouts"]),
        "stopped": [int(count) for count in details["stopped"]],
        "clip_rate": [float(rate) if math.isfinite(rate) else None for rate in details["clip_rate"]],
        "exploitation_alarm": bool(details["exploitation_alarm"]),
    }


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
    keys, chosen = _start_keys(starts, seed), None
    if len(keys) > config.max_starts:
        chosen = sorted(sorted(range(len(keys)), key=keys.__getitem__)[: config.max_starts])
        starts, keys = starts[chosen], [keys[i] for i in chosen]
    run = _Run(model, policy, estimand, box, tail, config.steps(estimand))
    n, members = len(keys), model.dynamics.ensemble_size
    sums = _Sums.zeros(run.steps)
    values, tails, terminated = np.zeros((3, members, n))
    width = max(1, config.chunk // members)
    for k in range(config.rollouts):
        for rows in (slice(i, i + width) for i in range(0, n, width)):
            noise = _noise(keys[rows], k, (run.steps + 1, policy.act_dim + starts.shape[1] + _SPARE_COLUMNS))
            found = run.roll(starts[rows], noise.to(starts.dtype), sums)
            for total, part in zip((values, tails, terminated), found, strict=True):
                total[:, rows] += part.numpy() / config.rollouts
    found = sums.summarise(values, (tails, terminated), members * n * config.rollouts, run)
    return found if chosen is None else dataclasses.replace(found, starts=np.array(chosen))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sums over roll-outs, `[H]` float64 each."""

    live: Array
    disagreement: Array
    exceeded: Array
    stopped: Array
    clipped: Array
    ends_alive: Array  # [1], roll-outs that live after the last step

    @classmethod
    def zeros(cls, steps: int) -> "_Sums":
        return cls(*np.zeros((5, steps)), ends_alive=np.zeros(1))

    def summarise(
        self, values: Array, parts: tuple[Array, Array], rollouts: int, run: "_Run"
    ) -> ModelEstimate:
        moved = self.live - self.stopped  # roll-outs that took the step
        with np.errstate(invalid="ignore"):
            disagreement, clip_rate = self.disagreement / self.live, self.clipped / moved
        return ModelEstimate(
            values=values,
            tails=parts[0],
            terminated=parts[1],
            disagreement=disagreement,
            clip_rate=clip_rate,
            stopped=self.stopped.astype(np.int64),
            alive_share=self.live / rollouts,
            disagreement_share=float(self.exceeded.sum() / self.live.sum()),
            rollouts=rollouts,
            tail_bound=run.tail_bound() if self.ends_alive[0] > 0 else 0.0,
            estimand=run.estimand,
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Roll-outs that live: `[b]` each, in any order."""

    obs: Tensor
    member: Tensor
    start: Tensor  # row of the noise

    def keep(self, mask: Tensor) -> "_Rows":
        return self if bool(mask.all()) else _Rows(self.obs[mask], self.member[mask], self.start[mask])


class _Found(NamedTuple):
    """`[m, b]` float64 each, filled step by step."""

    value: Tensor
    tails: Tensor
    terminated: Tensor


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """All that a roll-out needs besides its start and its noise."""

    model: EvaluationModel
    policy: Policy
    estimand: Estimand
    box: Box
    tail: TailValue | None
    steps: int

    def tail_bound(self) -> float:
        """`discount^H max|r| sum_t discount^t`, 0 where nothing is left out."""
        if self.estimand.horizon is not None or self.tail is not None:
            return 0.0
        largest = max(abs(float(self.box.reward_low)), abs(float(self.box.reward_high)))
        return self.estimand.discount**self.steps * largest * self.estimand.weight_sum

    def to_go(self, t: int) -> int | None:
        return None if self.estimand.horizon is None else self.estimand.horizon - t

    def roll(self, starts: Tensor, noise: Tensor, sums: _Sums) -> tuple[Tensor, Tensor, Tensor]:
        """`[m, b]` values, tails and ends of `b` starts with noise `[b, H + 1, d]`; adds to `sums`."""
        members, b = self.model.dynamics.ensemble_size, len(starts)
        value = torch.zeros(members, b, dtype=torch.float64)
        tails, terminated = torch.zeros_like(value), torch.zeros_like(value)
        found = _Found(value, tails, terminated)
        rows = _Rows(
            starts.repeat(members, 1),
            torch.arange(members).repeat_interleave(b),
            torch.arange(b).repeat(members),
        )
        for t in range(self.steps):
            rows = self._step(t, rows, noise, found, sums)
            if len(rows.obs) == 0:
                break
        sums.ends_alive[0] += len(rows.obs)
        if self.estimand.horizon is None and self.tail is not None and len(rows.obs) > 0:
            action = act_with(self.policy, rows.obs, noise[rows.start, self.steps, : self.policy.act_dim])
            self._end(self.steps, rows, action, self.tail, tails)
        return value + tails, tails, terminated

    def _step(self, t: int, rows: _Rows, noise: Tensor, found: "_Found", sums: _Sums) -> _Rows:
        """Takes step t of the live roll-outs; returns those that live on."""
        draws = noise[rows.start, t]
        action = act_with(self.policy, rows.obs, draws[:, : self.policy.act_dim])
        posterior = self.model.dynamics.predict(rows.obs, action)
        uncertainty = self.model.measure(posterior).double()
        is_beyond = uncertainty > self.model.limit
        sums.live[t] += len(rows.obs)
        sums.disagreement[t] += float(uncertainty.sum())
        sums.exceeded[t] += int((uncertainty > self.model.threshold).sum())
        row = torch.arange(len(rows.obs))
        if self.tail is not None and bool(is_beyond.any()):
            self._end(t, rows.keep(is_beyond), action[is_beyond], self.tail, found.tails)
            sums.stopped[t] += int(is_beyond.sum())
            row = row[~is_beyond]
            rows, action, draws = rows.keep(~is_beyond), action[~is_beyond], draws[~is_beyond]
        mean, variance = posterior.mean[rows.member, row], posterior.variance[rows.member, row]
        reward_mean = posterior.reward_mean[rows.member, row]
        reward_std = posterior.reward_variance[rows.member, row].sqrt()
        state_draws = draws[:, self.policy.act_dim : -_SPARE_COLUMNS]
        next_obs = torch.addcmul(mean, variance.sqrt(), state_draws)
        reward = torch.addcmul(reward_mean, reward_std, draws[:, -2])
        is_finite = next_obs.isfinite().all(-1) & reward.isfinite()
        inside, reward_inside = self.box.clip(next_obs, reward)
        sums.clipped[t] += int(((inside != next_obs).any(-1) | (reward_inside != reward)).sum())
        # An infinity would be clipped to a number: what a broken model says stays visible.
        earned = torch.where(is_finite, reward_inside, torch.nan).double()
        found.value[rows.member, rows.start] += self.estimand.discount**t * earned
        end = self.model.termination(rows.obs, action, inside)
        lives = is_finite & (standard_normal_cdf(draws[:, -1]) >= end)
        found.terminated[rows.member, rows.start] = (is_finite & ~lives).double()
        return _Rows(inside, rows.member, rows.start).keep(lives)

    def _end(self, t: int, rows: _Rows, action: Tensor, tail: TailValue, tails: Tensor) -> None:
        worth = tail(rows.obs, action, self.to_go(t)).double()
        tails[rows.member, rows.start] = self.estimand.discount**t * worth


def _start_keys(starts: Tensor, seed: int) -> list[int]:
    """A number for each start from the seed, its content and how many equal ones came before.

    So it does not depend on the order of the episodes or on which others are there.
    """
    rng, seen, keys = RngStreams(seed), dict[str, int](), list[int]()
    for row in starts.numpy():
        content = hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()
        seen[content] = seen.get(content, -1) + 1
        keys.append(rng.integer(f"start/{content}", seen[content]))
    return keys


def _noise(keys: list[int], rollout: int, shape: tuple[int, int]) -> Tensor:
    """`[len(keys), *shape]` standard normal draws, each start's from a counter-based generator of its own.

    They are drawn step by step, so a longer roll-out begins like a shorter one.
    """
    out = np.empty((len(keys), *shape), dtype=np.float32)
    for row, key in zip(out, keys, strict=True):
        bits = np.random.Philox(key=np.array([key, rollout], dtype=np.uint64))
        np.random.Generator(bits).standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(out)
