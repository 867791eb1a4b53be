"""Errors of several steps ahead: logged actions replayed from held-out states, without looking again."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.protocols import TerminationFn
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.assessment.resampling import INTERVAL
from mbrl.dynamics.forecast import Forecast
from mbrl.dynamics.particles import (
    MemberModel,
    central_probabilities,
    simulate_particles,
    summarise_particles,
)

_ENDING_PARTICLES = 10  # particles that the termination head looks at; it costs as much as the model
_CHUNK_ROWS = 2_000  # particles that go through the model together


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Stretches of held-out episodes; they end early where their episode does.

    Attributes:
        observations: `[s, K + 1, obs_dim]` float32, raw units; meaningless after the end.
        actions: `[s, K, act_dim]` float32, zero after the end.
        rewards: `[s, K]` float32, zero after the end.
        alive: `[s, K]`, the k-th step was logged and its successor is known.
        episode: `[s]`, what each belongs to where episodes are resampled (`Dataset.units`).
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    alive: NDArray[np.bool_]
    episode: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.episode)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class OpenLoop:
    """What happened along the segments; standard deviations are those of the training observations.

    Attributes:
        error: `[s, K]` root mean square error over dimensions of the particles' mean, standard deviations.
        persistence: `[s, K]` likewise for "nothing changes".
        linear: `[s, K]` likewise for the linear model.
        mean: `[s, K, obs_dim + 1]` mean over particles: observations, then the reward, raw units.
        low: `[s, K, obs_dim + 1]` lower end of their 90 % interval.
        high: `[s, K, obs_dim + 1]` upper end.
        nrmse: `[3, K]` root mean square over segments, mean over dimensions: model, persistence, linear.
        coverage: `[K]` share of coordinates inside the particles' 90 % interval.
        ended_early: `[K]` share of particles that the termination head has ended while the log goes on.
        alive: `[s, K]` as in the segments.
        episode: `[s]` likewise.
    """

    error: NDArray[np.float64]
    persistence: NDArray[np.float64]
    linear: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    nrmse: NDArray[np.float64]
    coverage: NDArray[np.float64]
    ended_early: NDArray[np.float64]
    alive: NDArray[np.bool_]
    episode: NDArray[np.int64]

    @property
    def reward(self) -> NDArray[np.float64]:
        """`[s, K]` mean over particles of the predicted reward, reward units."""
        return self.mean[..., -1]


def draw_segments(dataset: Dataset, *, count: int, horizon: int, generator: torch.Generator) -> Segments:
    """At most `count` segments, from starts drawn uniformly without replacement.

    A start leaves room for `horizon` steps, or is the first state of an episode that is shorter.
    """
    starts = np.maximum(dataset.episode_lengths - horizon, 0) + 1
    chosen = torch.randperm(int(starts.sum()), generator=generator)[:count].sort().values.numpy()
    ends = np.cumsum(starts)
    episode = np.searchsorted(ends, chosen, side="right").astype(np.int64)
    first = chosen - (ends - starts)[episode]
    spec = dataset.spec
    segments = Segments(
        observations=np.zeros((len(chosen), horizon + 1, spec.obs_dim), np.float32),
        actions=np.zeros((len(chosen), horizon, spec.act_dim), np.float32),
        rewards=np.zeros((len(chosen), horizon), np.float32),
        alive=np.zeros((len(chosen), horizon), np.bool_),
        episode=dataset.units[episode],
    )
    for row, (index, start) in enumerate(zip(episode, first, strict=True)):
        _fill(segments, row, dataset.episodes[int(index)], int(start))
    return segments


def _fill(segments: Segments, row: int, episode: Episode, start: int) -> None:
    steps = min(segments.actions.shape[1], len(episode) - start)
    segments.observations[row, : steps + 1] = episode.observations[start : start + steps + 1]
    segments.observations[row, steps + 1 :] = episode.observations[start + steps]
    segments.actions[row, :steps] = episode.actions[start : start + steps]
    segments.rewards[row, :steps] = episode.rewards[start : start + steps]
    is_cut = start + steps == len(episode) and not episode.is_final_observation_known
    segments.alive[row, : steps - int(is_cut)] = True


@torch.no_grad()
def run_open_loop(
    model: MemberModel,
    termination: TerminationFn,
    linear: LinearModel,
    segments: Segments,
    *,
    particles: int,
    obs_std: NDArray[np.float64],
    generator: torch.Generator,
    varies: NDArray[np.bool_] | None = None,
    forecast: Forecast | None = None,
    act: Callable[[Tensor], Tensor] | None = None,
) -> OpenLoop:
    """Replays the logged actions of `segments` through the model and the two baselines.

    The error of a segment after k steps is that of the particles' mean, in deviations of the observation:

        error_{s,k} = sqrt(mean_d ((mean_p s_{s,k,p,d} - s_{s,k,d}) / std_d)^2)

    Args:
        model: each particle keeps one member for the whole segment and samples its Gaussian.
        termination: judges a few particles of each segment.
        linear: the linear baseline.
        segments: what really happened.
        particles: sampled futures of each segment.
        obs_std: `[obs_dim]` deviations of the training observations, raw units.
        generator: draws the futures.
        varies: `[obs_dim]`, the dimensions that count; None for all. Constant ones are predicted without an
            error, which would make the others' look small.
        forecast: whose box particles stay in; None for none. Its corrections are not applied.
        act: `[b, obs_dim]` to `[b, act_dim]`, closes the loop of the particles; None replays the log.
    """
    box = forecast or Forecast.plain(segments.observations.shape[2])
    cloud_mean, cloud_low, cloud_high, ended = _simulate(
        model, termination, segments, particles, generator, box, act
    )
    mean, low, high = (values[..., :-1] for values in (cloud_mean, cloud_low, cloud_high))
    dims = np.flatnonzero(np.ones_like(obs_std) if varies is None or not varies.any() else varies)
    truth = segments.observations[:, 1:].astype(np.float64)
    start = np.repeat(segments.observations[:, :1].astype(np.float64), truth.shape[1], 1)
    predictions = (mean, start, _run_linear(linear, segments))
    errors = [bound_errors(((prediction - truth) / obs_std)[..., dims]) for prediction in predictions]
    truth, low, high = (values[..., dims] for values in (truth, low, high))
    alive = segments.alive[..., None]
    count = np.maximum(alive.sum(0), 1)
    # Only steps that were logged count; coordinates are pooled, since one alone has too few segments.
    inside = ((truth >= low) & (truth <= high) & alive).sum((0, 2)) / (count[:, 0] * truth.shape[2])
    return OpenLoop(
        error=np.sqrt(np.square(errors[0]).mean(2)),
        persistence=np.sqrt(np.square(errors[1]).mean(2)),
        linear=np.sqrt(np.square(errors[2]).mean(2)),
        mean=cloud_mean,
        low=cloud_low,
        high=cloud_high,
        nrmse=np.stack([np.sqrt((np.square(e) * alive).sum(0) / count).mean(1) for e in errors]),
        coverage=inside,
        ended_early=(ended * segments.alive).sum(0) / count[:, 0],
        alive=segments.alive,
        episode=segments.episode,
    )


def bound_errors(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors of exploding predictions stay numbers, of at most 1e6 standard deviations."""
    return np.clip(np.nan_to_num(error, nan=1e6, posinf=1e6, neginf=-1e6), -1e6, 1e6)


def _simulate(
    model: MemberModel,
    termination: TerminationFn,
    segments: Segments,
    particles: int,
    generator: torch.Generator,
    box: Forecast,
    act: Callable[[Tensor], Tensor] | None,
) -> tuple[NDArray[np.float64], ...]:
    """Mean and 90 % interval of the particles `[s, K, obs_dim + 1]`, share that has ended `[s, K]`."""
    per_chunk = max(1, _CHUNK_ROWS // particles)
    parts = [
        _simulate_chunk(
            model, termination, _rows(segments, slice(k, k + per_chunk)), particles, generator, box, act
        )
        for k in range(0, len(segments), per_chunk)
    ]
    return tuple(torch.cat(column).double().numpy() for column in zip(*parts, strict=True))


def _rows(segments: Segments, rows: slice) -> tuple[Tensor, Tensor]:
    return torch.tensor(segments.observations[rows, 0]), torch.tensor(segments.actions[rows])


def _simulate_chunk(
    model: MemberModel,
    termination: TerminationFn,
    rows: tuple[Tensor, Tensor],
    particles: int,
    generator: torch.Generator,
    box: Forecast,
    act: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, ...]:
    start, actions = rows
    count, horizon = actions.shape[:2]
    judged = min(particles, _ENDING_PARTICLES)
    survival = torch.ones(count, judged)
    columns: list[tuple[Tensor, ...]] = []
    ends = central_probabilities(INTERVAL, particles)
    steps = simulate_particles(
        model,
        start,
        lambda k, obs: actions[:, k].repeat_interleave(particles, 0) if act is None else act(obs),
        horizon=horizon,
        particles=particles,
        generator=generator,
        bounds=box.bounds(start),
    )
    for step in steps:
        parts = (step.obs, step.action, step.next_obs)
        some = [x.view(count, particles, -1)[:, :judged].flatten(0, 1) for x in parts]
        # P(alive after k) = prod_{j <= k} (1 - p_j) along each particle.
        survival = survival * (1.0 - termination(*some).view(count, judged))
        columns.append((*summarise_particles(step, particles, ends, generator), 1.0 - survival.mean(1)))
    return tuple(torch.stack(column, 1) for column in zip(*columns, strict=True))


def _run_linear(linear: LinearModel, segments: Segments) -> NDArray[np.float64]:
    obs = segments.observations[:, 0].astype(np.float64)
    path: list[NDArray[np.float64]] = []
    for k in range(segments.actions.shape[1]):
        # An unstable map may grow without bound; beyond 1e12 its error is out of range all the same.
        obs = np.clip(linear.predict(obs, segments.actions[:, k]), -1e12, 1e12)
        path.append(obs)
    return np.stack(path, 1)
