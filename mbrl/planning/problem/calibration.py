"""What uncertainty should cost, from held-out logs alone: lambda, kappa and a halt threshold.

Nothing here sees a simulator, and nothing is chosen by an online return. The deviations that a model
predicts for its own noise are recalibrated when it is fitted (`mbrl.dynamics.assessment.calibration`).
"""

import math
from typing import Annotated, Final, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.data.dataset import Transitions
from mbrl.nets.action_box import ActionBox
from mbrl.ops.spread import PlausibleRange
from mbrl.planning.problem.problem import Pessimism, PlanningProblem, discounted_steps

LCB_COEFS: Final = (0.0, 0.5, 1.0, 2.0)
"""What kappa is chosen from: none, and one and two deviations with a step between none and one."""

DEFAULT_LCB_COEF: Final = 1.0
"""Kappa where no held-out row can tell: one deviation, the middle of what it is chosen from."""

MIN_ROWS: Final = 20
"""Held-out rows below which quantiles say nothing: one of fewer is more than a twentieth of them."""

_BINS: Final = 10
"""Groups by u of the binned form: enough for a slope, with 500 rows in each at the default `max_rows`."""

_CHUNK: Final = 2048
"""Rows that go through the model at a time; bounds memory, as each is stepped by every member."""

_TINY: Final = 1e-6
"""Share of the spread of returns that counts as rounding: float32 holds sums of rewards to about that."""


class CalibrationConfig(BaseModel):
    """How the cost of uncertainty is set.

    Attributes:
        method: `quantile` takes the quantile of `|delta| / max(u, floor)`, which is right where the task is
            nearly deterministic; `binned` fits `|mean delta|` of ten equal groups by u as lambda u, so that
            the task's own noise averages out.
        quantile: of the ratio (`quantile` only).
        floor_quantile: of u on held-out rows; a lower u counts as this much (`quantile` only).
        halt_quantile: of u on held-out rows, above which a planner that halts does so.
        horizon: k, steps of the logged returns that kappa is chosen by.
        max_rows: held-out rows that are used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    method: Literal["quantile", "binned"] = "quantile"
    quantile: Annotated[float, Field(gt=0, le=1)] = 0.9
    floor_quantile: Annotated[float, Field(ge=0, lt=1)] = 0.05
    halt_quantile: Annotated[float, Field(gt=0, le=1)] = 0.9
    horizon: Annotated[int, Field(ge=1, le=1000)] = 5
    max_rows: Annotated[int, Field(ge=MIN_ROWS, le=10_000_000)] = 5000


class PlannerCalibration(BaseModel):
    """The cost of uncertainty and what it was made of; one JSON.

    Attributes:
        penalty_coef: lambda.
        lcb_coef: kappa.
        halt_threshold: u_max, reward units.
        reward_least: least logged reward that is no outlier, reward units.
        reward_steps: `sum_t discount^t` over the longest episode, or without an end: how often it may come.
        uncertainty_mean: mean u on held-out rows, reward units, > 0.
        uncertainty_floor: what a lower u counts as.
        coverage: share of held-out rows with `|delta| <= lambda u`.
        delta_mean: mean of `logged target - imagined target`; negative where the model is optimistic.
        delta_abs_mean: mean of its absolute value.
        lcb_gaps: mean of the bound of the behaviour's k-step value less the logged one, for each of 0, 0.5, 1
            and 2 deviations; None where no held-out row can tell.
        is_lcb_satisfied: whether the chosen kappa keeps its bound below the logged value.
        rows: held-out rows that were used.
        config: how.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    penalty_coef: Annotated[float, Field(ge=0)]
    lcb_coef: Annotated[float, Field(ge=0)]
    halt_threshold: Annotated[float, Field(ge=0)]
    reward_least: float
    reward_steps: Annotated[float, Field(gt=0)]
    uncertainty_mean: Annotated[float, Field(gt=0)]
    uncertainty_floor: Annotated[float, Field(ge=0)]
    coverage: Annotated[float, Field(ge=0, le=1)]
    delta_mean: float
    delta_abs_mean: float
    lcb_gaps: tuple[float, ...] | None
    is_lcb_satisfied: bool
    rows: Annotated[int, Field(ge=1)]
    config: CalibrationConfig

    def pessimism(
        self, *, scale: float = 1.0, halts: bool = False, soft_horizon_coef: float = 0.0
    ) -> Pessimism:
        """The calibrated coefficients; where edges halt, so that halting never pays.

        The worst that an edge may cost without halting is `r_min - lambda u_max` at every step, so halting
        costs as much as that for ever (or to the end of the longest episode).

        Args:
            scale: multiplies lambda and kappa; 0 is the plain planner.
            halts: whether edges beyond the halt threshold end.
            soft_horizon_coef: eta of the soft horizon.
        """
        penalty_coef = scale * self.penalty_coef
        worst = min(self.reward_least - penalty_coef * self.halt_threshold, 0.0)
        return Pessimism(
            penalty_coef=penalty_coef,
            lcb_coef=scale * self.lcb_coef,
            halt_threshold=self.halt_threshold if halts else math.inf,
            halt_loss=-worst * self.reward_steps if halts else 0.0,
            soft_horizon_coef=soft_horizon_coef,
            uncertainty_mean=self.uncertainty_mean,
        )


class _Gaps(NamedTuple):
    delta: Float[Tensor, "n"]  # logged less imagined target
    uncertainty: Float[Tensor, "n"]


@torch.no_grad()
def calibrate_planner(
    problem: PlanningProblem,
    held_out: Transitions,
    *,
    box: ActionBox | None,
    config: CalibrationConfig | None = None,
    generator: torch.Generator,
) -> PlannerCalibration:
    """Sets lambda, kappa and the halt threshold on held-out rows.

    With `delta = r + g (1 - terminated) V(s') - mean_e [r_e + g (1 - ended_e) V(s'_e)]`, lambda is a quantile
    of `|delta| / max(u, floor)`, or the slope of its binned form; kappa is the least for which the bound
    `mean_e - kappa std_e` of the logged actions' k-step value lies below the logged k-step value on average.

    Args:
        problem: whose step measures u; its critics are averaged.
        held_out: rows that neither the model nor the critics were fitted on.
        box: maps logged actions to [-1, 1]; None for one-hot actions.
        config: how.
        generator: draws the rows where there are too many.

    Raises:
        ValueError: fewer than 20 rows with a known successor.
    """
    config = CalibrationConfig() if config is None else config
    known = torch.from_numpy(held_out.is_successor_known.copy()).nonzero().flatten()
    if len(known) < MIN_ROWS:
        raise ValueError(f"calibration needs {MIN_ROWS} held-out rows at least, not {len(known)}")
    rows = known[torch.randperm(len(known), generator=generator)[: config.max_rows]]
    log = _Log.read(held_out, box, problem.dtype)
    slack = _TINY * problem.value_scale
    # 1. How far the imagined one-step target is from the logged one, and how unsure the model was of it.
    parts = [_target_gaps(problem, log, part) for part in torch.split(rows, _CHUNK)]
    delta, uncertainty = (torch.cat(column).double() for column in zip(*parts, strict=True))
    # 2. lambda: what covers these errors. Tiny u are floored, else their ratios would set the quantile.
    floor = max(float(uncertainty.quantile(config.floor_quantile)), slack)
    coef = _penalty_coef(delta, uncertainty, floor=floor, config=config)
    # 3. kappa: the least that keeps the lower bound of k imagined steps below what the log returned.
    gaps = _lcb_gaps(problem, log, rows, config.horizon)
    kappa, is_satisfied = _choose_lcb_coef(gaps, problem.value_scale)
    return PlannerCalibration(
        penalty_coef=coef,
        lcb_coef=kappa,
        halt_threshold=float(uncertainty.quantile(config.halt_quantile)),
        # One wrong row must not set what halting costs; falls that come back are no outliers.
        reward_least=PlausibleRange.of_all_but_few(torch.tensor(held_out.reward)).least,
        reward_steps=discounted_steps(
            problem.discount, None if problem.discount < 1.0 else int(held_out.step.max()) + 1
        ),
        uncertainty_mean=max(float(uncertainty.mean()), slack),
        uncertainty_floor=floor,
        coverage=float((delta.abs() <= coef * uncertainty.clamp_min(floor) + slack).double().mean()),
        delta_mean=float(delta.mean()),
        delta_abs_mean=float(delta.abs().mean()),
        lcb_gaps=gaps,
        is_lcb_satisfied=is_satisfied,
        rows=len(rows),
        config=config,
    )


class _Log(NamedTuple):
    """Logged rows as tensors, actions scaled."""

    obs: Float[Tensor, "n obs_dim"]
    action: Float[Tensor, "n act_dim"]
    reward: Float[Tensor, "n"]
    next_obs: Float[Tensor, "n obs_dim"]
    terminated: Bool[Tensor, "n"]
    known: Bool[Tensor, "n"]
    episode: Tensor

    @classmethod
    def read(cls, rows: Transitions, box: ActionBox | None, dtype: torch.dtype) -> "_Log":
        # All rows, not only those that are judged: k-step values run on along the log from each of them.
        action = torch.tensor(rows.action)
        return cls(
            torch.tensor(rows.observation, dtype=dtype),
            # Clipped, as whoever executed the action did.
            (action if box is None else box.scale(action).clamp(-1.0, 1.0)).to(dtype),
            torch.tensor(rows.reward, dtype=dtype),
            torch.tensor(rows.next_observation, dtype=dtype),
            torch.tensor(rows.terminated),
            torch.tensor(rows.is_successor_known),
            torch.tensor(rows.episode),
        )


def _value(problem: PlanningProblem, obs: Float[Tensor, "n obs_dim"]) -> Float[Tensor, "n"]:
    """V(s), mean over critics."""
    # Without pessimism: what is calibrated must not contain what it calibrates.
    return problem.leaf.value(obs).mean(0)


def _target_gaps(problem: PlanningProblem, log: _Log, rows: Tensor) -> _Gaps:
    """`r + g (1 - terminated) V(s')` of the log less the members' mean of the same, and u of the step."""
    # All members, their means: noise of the task is in the logged side alone.
    out = problem.step(log.obs[rows], log.action[rows])
    discount = problem.discount
    # The same V on both sides: most of its error cancels, and what is left is the model's.
    logged = log.reward[rows] + discount * ~log.terminated[rows] * _value(problem, log.next_obs[rows])
    value = _value(problem, out.next_observation.flatten(0, 1)).view_as(out.reward)
    imagined = (out.reward + discount * ~out.terminated * value).mean(0)
    return _Gaps(logged - imagined, out.uncertainty)


def _penalty_coef(
    delta: Float[Tensor, "n"], uncertainty: Float[Tensor, "n"], *, floor: float, config: CalibrationConfig
) -> float:
    """A quantile of the ratios `|delta| / max(u, floor)`, or the slope through 0 of mean errors in bins."""
    if config.method == "quantile":
        # lambda u >= |delta| on `quantile` of the rows.
        return float((delta.abs() / uncertainty.clamp_min(floor)).quantile(config.quantile))
    # Equal groups by u; within one, the task's own noise averages out of the mean error.
    bins = [part for part in uncertainty.argsort().tensor_split(_BINS) if len(part)]
    u = torch.stack([uncertainty[part].mean() for part in bins])
    bias = torch.stack([delta[part].mean().abs() for part in bins])
    count = torch.tensor([len(part) for part in bins], dtype=u.dtype)
    # Weighted least squares through 0: lambda = sum n u |bias| / sum n u^2.
    power = float((count * u.square()).sum())
    return float((count * u * bias).sum()) / power if power > 0.0 else 0.0


def _lcb_gaps(problem: PlanningProblem, log: _Log, rows: Tensor, horizon: int) -> tuple[float, ...] | None:
    """`mean [bound_kappa of the imagined k-step value - logged k-step value]` for each kappa."""
    lengths = _lengths(log, rows, horizon)
    # Rows whose very first successor is not known begin no stretch.
    rows, lengths = rows[lengths > 0], lengths[lengths > 0]
    if len(rows) < MIN_ROWS:
        return None
    parts = [
        (_imagined_values(problem, log, r, k), _logged_values(problem, log, r, k))
        for r, k in zip(torch.split(rows, _CHUNK), torch.split(lengths, _CHUNK), strict=True)
    ]
    imagined = torch.cat([part for part, _ in parts], 1).double()
    logged = torch.cat([part for _, part in parts]).double()
    # The bound that a planner would use of the same actions, E[mean_e - kappa std_e - logged].
    mean, std = imagined.mean(0), imagined.std(0, correction=0)
    return tuple(float((mean - kappa * std - logged).mean()) for kappa in LCB_COEFS)


def _choose_lcb_coef(gaps: tuple[float, ...] | None, scale: float) -> tuple[float, bool]:
    """The least kappa whose gap is not above 0, and whether there is one."""
    if gaps is None:
        return DEFAULT_LCB_COEF, False
    for kappa, gap in zip(LCB_COEFS, gaps, strict=True):
        # The least that suffices: more pessimism than the log asks for costs return.
        if gap <= _TINY * scale:
            return kappa, True
    return LCB_COEFS[-1], False


def _lengths(log: _Log, rows: Tensor, horizon: int) -> Tensor:
    """Steps of each stretch that begins at a row: k, or fewer where its episode ends or is not known."""
    last = len(log.episode) - 1
    ahead = rows[:, None] + torch.arange(horizon)
    index = ahead.clamp_max(last)
    # Rows of an episode stand together: the next row is the next step while the episode is the same.
    is_same = (ahead <= last) & (log.episode[index] == log.episode[rows, None]) & log.known[index]
    # The product stops at the first step that does not belong.
    return is_same.long().cumprod(1).sum(1)


def _logged_values(problem: PlanningProblem, log: _Log, rows: Tensor, lengths: Tensor) -> Tensor:
    """`[s]`: `sum_{t<k} g^t r_t + g^k (1 - terminated) V(s_k)` along the log."""
    steps = torch.arange(int(lengths.max()))
    index = (rows[:, None] + steps).clamp_max(len(log.reward) - 1)
    # g^t within the stretch, 0 beyond it.
    weight = problem.discount ** steps.to(problem.dtype) * (steps < lengths[:, None])
    last = rows + lengths - 1
    tail = problem.discount ** lengths.to(problem.dtype) * ~log.terminated[last]
    return (weight * log.reward[index]).sum(1) + tail * _value(problem, log.next_obs[last])


def _imagined_values(problem: PlanningProblem, log: _Log, rows: Tensor, lengths: Tensor) -> Tensor:
    """`[e, s]`: the same sum when each member replays the logged actions for itself."""
    members, count = problem.step.ensemble_size, len(rows)
    # [e s] rows: each member has the stretch to itself, without noise, as its own prediction.
    member = torch.arange(members).repeat_interleave(count)
    obs = log.obs[rows].repeat(members, 1)
    total, alive = torch.zeros(members * count, dtype=problem.dtype), torch.ones(members * count)
    alive = alive.to(problem.dtype)
    length = lengths.repeat(members)
    for t in range(int(lengths.max())):
        # The logged actions, so that both sums are of the behaviour.
        action = log.action[(rows + t).clamp_max(len(log.reward) - 1)].repeat(members, 1)
        out = problem.step(obs, action, member=member)
        # The step that ends a task still pays its reward; beyond it nothing counts.
        alive = alive * (t < length)
        total = total + problem.discount**t * alive * out.reward
        alive = alive * ~out.terminated
        # Stretches that end here are closed by the value of where they lead.
        is_last = torch.eq(length, t + 1)
        if bool(is_last.any()):
            tail = problem.discount ** (t + 1) * alive * is_last
            total = total + tail * _value(problem, out.next_observation)
        obs = out.next_observation
    return total.view(members, count)
