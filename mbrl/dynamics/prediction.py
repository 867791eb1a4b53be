"""Predictions of a fitted model for people: NumPy in, NumPy out, raw units, one state or many."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.protocols import Policy, TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.core.types import DynamicsPosterior
from mbrl.dynamics.fitted_model import FittedModel
from mbrl.dynamics.forecast import Forecast
from mbrl.dynamics.particles import (
    Act,
    ParticleStep,
    central_probabilities,
    simulate_particles,
    summarise_particles,
)

_BLOCK = 1_024  # rows of one forward pass
_CHUNK_PARTICLES = 10_000  # particles that go through the model together

MIN_PARTICLES: Final = 2
"""Sampled futures that an interval needs."""

Array: TypeAlias = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StepPrediction:
    """What a model says of one step from each `(s, a)`; without the axis `n` where one row was asked for.

    Deviations are those of the members' equal mixture, with the temperature that was fitted on held-out
    episodes: `std^2 = mean_e sigma_e^2 + Var_e mu_e`.

    Attributes:
        observation: `[n, obs_dim]` float32, mean next observation, raw units.
        observation_std: `[n, obs_dim]`, its standard deviation: noise and disagreement together.
        disagreement: `[n, obs_dim]`, the part of it that more data would remove, `sqrt(Var_e mu_e)`.
        reward: `[n]`, mean reward, reward units.
        reward_std: `[n]`, its standard deviation.
        termination: `[n]`, probability that the step ends the task, in [0, 1]; 0 where no logged step did.
    """

    observation: Array
    observation_std: Array
    disagreement: Array
    reward: Array
    reward_std: Array
    termination: Array


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RolloutPrediction:
    """What a model says of `h` steps ahead; without the axis `n` where one start was asked for.

    Step k is what follows the k-th action: `observation[..., 0, :]` is one step ahead. All figures are those
    of sampled futures, which go on where the task may have ended; `ended` says how likely that is. A fit
    corrects means and intervals by what held-out episodes say of such futures (`Forecast`).

    Attributes:
        observation: `[n, h, obs_dim]` float32, mean, raw units.
        observation_low: `[n, h, obs_dim]`, lower end of the central interval.
        observation_high: `[n, h, obs_dim]`, upper end.
        reward: `[n, h]`, mean reward of the step, reward units.
        reward_low: `[n, h]`, lower end of the central interval.
        reward_high: `[n, h]`, upper end.
        ended: `[n, h]`, probability that the task has ended with this step or before, in [0, 1].
        level: of the intervals, in (0, 1).
    """

    observation: Array
    observation_low: Array
    observation_high: Array
    reward: Array
    reward_low: Array
    reward_high: Array
    ended: Array
    level: float


@torch.no_grad()
def predict_steps(
    model: FittedModel, termination: TerminationFn, obs: ArrayLike, action: ArrayLike
) -> StepPrediction:
    """Mean, deviation and end of one step.

    The termination head reads s'; its probability is averaged over the members' means of s'.

    Args:
        model: the elites.
        termination: the head.
        obs: `[obs_dim]` or `[n, obs_dim]`, raw units.
        action: `[act_dim]` or `[n, act_dim]`, environment units.

    Raises:
        DataError: shapes do not fit the model or one another, or a value is not finite.
    """
    states = _read(obs, "obs", model.obs_dim, axes=("n",))
    acts = _read(action, "action", _act_dim(model), axes=("n",))
    if states.shape[:-1] != acts.shape[:-1]:
        raise DataError(
            f"{_describe(states)} of observations, {_describe(acts)} of actions",
            field="action",
            remedy="Give one action for each observation.",
        )
    # One row or many: computed alike, and handed back as it was asked.
    is_single = states.dim() == 1
    states, acts = _to_rows(states), _to_rows(acts)
    # Blocks bound the memory; every row is a function of itself alone, so they change no digit.
    blocks = [slice(k, k + _BLOCK) for k in range(0, len(states), _BLOCK)]
    parts = [_predict_block(model, termination, states[k], acts[k]) for k in blocks]
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    return StepPrediction(*(_to_array(column[0] if is_single else column) for column in columns))


def _predict_block(
    model: FittedModel, termination: TerminationFn, obs: Tensor, action: Tensor
) -> tuple[Tensor, ...]:
    posterior: DynamicsPosterior = model.predict(obs, action)
    # Disagreement is that of the predicted changes: where |s| is large, float32 would round it away.
    change = posterior.mean - obs if posterior.change is None else posterior.change
    # Population variance: the mixture consists of just these members.
    between = change.var(0, correction=0)
    reward_between = posterior.reward_mean.var(0, correction=0)
    # At each member's s', then averaged: the head is steep, so
    # its value at the mean state says little of theirs.
    ends = torch.stack([termination(obs, action, mean) for mean in posterior.mean])
    return (
        # Law of total variance: mean_e sigma_e^2 is noise, Var_e mu_e what more data would remove.
        obs + change.mean(0),
        (posterior.variance.mean(0) + between).sqrt(),
        between.sqrt(),
        posterior.reward_mean.mean(0),
        (posterior.reward_variance.mean(0) + reward_between).sqrt(),
        ends.mean(0),
    )


@torch.no_grad()
def predict_rollout(
    model: FittedModel,
    termination: TerminationFn,
    obs: ArrayLike,
    actions: ArrayLike | Policy,
    *,
    horizon: int | None = None,
    particles: int = 100,
    level: float = 0.9,
    seed: int = 0,
    forecast: Forecast | None = None,
) -> RolloutPrediction:
    """Futures under given actions, or under a policy, without looking at the world again.

    Each of `particles` futures keeps one member and samples its Gaussian at every step; see
    `mbrl.dynamics.particles`.

    Args:
        model: the elites.
        termination: the head.
        obs: `[obs_dim]` or `[n, obs_dim]`, where the futures start, raw units.
        actions: `[h, act_dim]` (for every start) or `[n, h, act_dim]`, environment units; or a policy, which
            acts on every future's own observations, without noise.
        horizon: steps; needed with a policy, at most h with actions (None for all of them).
        particles: futures of each start, at least 2. An interval of level p needs `2 / (1 - p) - 1` of them:
            of fewer it is the whole range, which covers less.
        level: of the intervals, in (0, 1).
        seed: of the futures.
        forecast: what held-out episodes say of such futures; None believes them as they are.

    Raises:
        DataError: shapes do not fit the model or one another, a value is not finite, or a number is out of
            its range.
    """
    forecast = forecast or Forecast.plain(model.obs_dim)
    starts = _read(obs, "obs", model.obs_dim, axes=("n",))
    _check_ranges(particles, level)
    steps, plan = _plan(model, starts, actions, horizon)
    is_single, starts = starts.dim() == 1, _to_rows(starts)
    # Seeded by the call: the same question has the same answer.
    generator = RngStreams(seed).at("particles")
    # All futures of a start in one chunk, since quantiles are taken over them.
    per_chunk = max(1, _CHUNK_PARTICLES // particles)
    parts: list[tuple[Tensor, ...]] = []
    for first in range(0, len(starts), per_chunk):
        rows = slice(first, first + per_chunk)
        futures = simulate_particles(
            model,
            starts[rows],
            _act_on(actions, None if plan is None else plan[rows], particles),
            horizon=steps,
            particles=particles,
            generator=generator,
            bounds=forecast.bounds(starts[rows]),
        )
        parts.append(_follow(futures, termination, forecast, particles, level, generator))
    fields = [torch.cat(column) for column in zip(*parts, strict=True)]
    return RolloutPrediction(*(_to_array(f[0] if is_single else f) for f in fields), level=level)


def _follow(
    futures: Iterator[ParticleStep],
    termination: TerminationFn,
    forecast: Forecast,
    particles: int,
    level: float,
    generator: torch.Generator,
) -> tuple[Tensor, ...]:
    """The fields of a `RolloutPrediction`, `[s, h, ...]`."""
    survival: float | Tensor = 1.0
    columns: list[tuple[Tensor, ...]] = []
    levels = central_probabilities((0.5 * (1.0 - level), 0.5 * (1.0 + level)), particles)
    for number, step in enumerate(futures):
        # P(alive after k) = prod_{j <= k} (1 - p_j) along each future, then its mean over futures.
        ends = termination(step.obs, step.action, step.next_obs).view(-1, particles)
        survival = survival * (1.0 - ends)
        found = forecast.correct(number, *summarise_particles(step, particles, levels, generator))
        observations, rewards = [part[:, :-1] for part in found], [part[:, -1] for part in found]
        columns.append((*observations, *rewards, 1.0 - survival.mean(1)))
    return tuple(torch.stack(column, 1) for column in zip(*columns, strict=True))


def _plan(
    model: FittedModel, starts: Tensor, actions: ArrayLike | Policy, horizon: int | None
) -> tuple[int, Float[Tensor, "n h act_dim"] | None]:
    """Steps, and the actions of every start; None for a policy, which chooses them on the way."""
    if isinstance(actions, Policy):
        if horizon is None or horizon < 1:
            raise DataError(
                f"{horizon} steps of a policy", field="horizon", remedy="Give horizon, 1 or more."
            )
        return horizon, None
    plan = _read(actions, "actions", _act_dim(model), axes=("n", "h"))
    given = plan.shape[-2]
    steps = given if horizon is None else horizon
    if not 1 <= steps <= given:
        raise DataError(
            f"{steps} steps of {given} actions",
            field="horizon",
            remedy=f"Give 1 to {given}, or more actions.",
        )
    count = 1 if starts.dim() == 1 else len(starts)
    if plan.dim() == 3 and (starts.dim() == 1 or len(plan) != count):
        raise DataError(
            f"actions of {len(plan)} rollouts for {_describe(starts)} of observations",
            field="actions",
            remedy="Give actions of shape [h, act_dim] for all starts, or [n, h, act_dim] for n starts.",
        )
    return steps, plan.expand(count, given, plan.shape[-1])


def _act_on(actions: ArrayLike | Policy, plan: Tensor | None, particles: int) -> Act:
    if plan is not None:
        # Given actions do not look at where a future is; each of a start's futures gets the same.
        return lambda step, _: plan[:, step].repeat_interleave(particles, 0)
    assert isinstance(actions, Policy)
    policy = actions
    return lambda _, obs: policy.act(obs)


def _act_dim(model: FittedModel) -> int:
    return model.inputs.mean.shape[0] - model.obs_dim


def _read(values: ArrayLike, field: str, width: int, *, axes: tuple[str, ...]) -> Tensor:
    """Finite float32 of shape `[*axes, width]`, or without the first of `axes`."""
    array: NDArray[Any] = np.asarray(values)
    is_shaped = array.ndim in (len(axes), len(axes) + 1) and array.shape[-1] == width
    if array.dtype.kind not in "fiub" or not is_shaped or array.size == 0:
        shapes = " or ".join(f"[{', '.join([*lead, str(width)])}]" for lead in (axes[1:], axes))
        raise DataError(
            f"an array of shape {list(array.shape)} and type {array.dtype}",
            field=field,
            remedy=f"Give numbers of shape {shapes}: the model was fitted on {width}.",
        )
    # Copied, so that the caller's array is never shared; checked after the cast,
    # which makes infinities of large float64 values.
    rows = torch.tensor(array, dtype=torch.float32)
    is_bad = ~rows.isfinite().all(-1).flatten()
    if bool(is_bad.any()):
        raise DataError(
            "a value is not finite in float32",
            field=field,
            row=int(is_bad.nonzero()[0]),
            remedy="Leave the row out.",
        )
    return rows


def _to_rows(values: Tensor) -> Tensor:
    return values.view(-1, values.shape[-1])


def _check_ranges(particles: int, level: float) -> None:
    if particles < MIN_PARTICLES:
        raise DataError(f"{particles} futures", field="particles", remedy=f"Give {MIN_PARTICLES} or more.")
    if not 0.0 < level < 1.0:
        raise DataError(f"an interval of level {level}", field="level", remedy="Give a level in (0, 1).")


def _describe(rows: Tensor) -> str:
    return "one row" if rows.dim() == 1 else f"{len(rows)} rows"


def _to_array(values: Tensor) -> Array:
    return values.numpy()
