"""Errors of several steps ahead: logged actions replayed from held-out states, without looking again."""

import dataclasses
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.protocols import TerminationFn
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.dynamics.baselines import LinearModel
from mbrl.dynamics.resampling import INTERVAL, episode_weights, weighted_medians

_ENDING_PARTICLES = 10  # particles that the termination head looks at; it costs as much as the model
_CHUNK_ROWS = 2_000  # particles that go through the model together


@runtime_checkable
class MemberModel(Protocol):
    """A model whose members can be asked one by one, as `DynamicsEnsemble` can."""

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        ...

    def predict_member(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], member: Int[Tensor, "b"]
    ) -> tuple[
        Float[Tensor, "b obs_dim"], Float[Tensor, "b obs_dim"], Float[Tensor, "b"], Float[Tensor, "b"]
    ]:
        """Mean and variance of s', mean and variance of the reward, raw units."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Stretches of held-out episodes; they end early where their episode does.

    Attributes:
        observations: `[s, K + 1, obs_dim]` float32, raw units; meaningless after the end.
        actions: `[s, K, act_dim]` float32, zero after the end.
        alive: `[s, K]`, the k-th step was logged and its successor is known.
        episode: `[s]`, what each belongs to where episodes are resampled (`Dataset.units`).
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
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
        nrmse: `[3, K]` root mean square over segments, mean over dimensions: model, persistence, linear.
        coverage: `[K]` share of coordinates inside the particles' 90 % interval.
        ended_early: `[K]` share of particles that the termination head has ended while the log goes on.
        alive: `[s, K]` as in the segments.
        episode: `[s]` likewise.
    """

    error: NDArray[np.float64]
    persistence: NDArray[np.float64]
    linear: NDArray[np.float64]
    nrmse: NDArray[np.float64]
    coverage: NDArray[np.float64]
    ended_early: NDArray[np.float64]
    alive: NDArray[np.bool_]
    episode: NDArray[np.int64]


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
) -> OpenLoop:
    """Replays the logged actions of `segments` through the model and the two baselines.

    Args:
        model: each particle keeps one member for the whole segment and samples its Gaussian.
        termination: judges a few particles of each segment.
        linear: the linear baseline.
        segments: what really happened.
        particles: sampled futures of each segment.
        obs_std: `[obs_dim]` deviations of the training observations, raw units.
        generator: draws the futures.
    """
    mean, low, high, ended = _simulate(model, termination, segments, particles, generator)
    truth = segments.observations[:, 1:].astype(np.float64)
    start = np.repeat(segments.observations[:, :1].astype(np.float64), truth.shape[1], 1)
    predictions = (mean, start, _run_linear(linear, segments))
    errors = [_bounded((prediction - truth) / obs_std) for prediction in predictions]
    alive = segments.alive[..., None]
    count = np.maximum(alive.sum(0), 1)
    inside = ((truth >= low) & (truth <= high) & alive).sum((0, 2)) / (count[:, 0] * truth.shape[2])
    return OpenLoop(
        error=np.sqrt(np.square(errors[0]).mean(2)),
        persistence=np.sqrt(np.square(errors[1]).mean(2)),
        linear=np.sqrt(np.square(errors[2]).mean(2)),
        nrmse=np.stack([np.sqrt((np.square(e) * alive).sum(0) / count).mean(1) for e in errors]),
        coverage=inside,
        ended_early=(ended * segments.alive).sum(0) / count[:, 0],
        alive=segments.alive,
        episode=segments.episode,
    )


def _bounded(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors of exploding predictions stay numbers."""
    return np.clip(np.nan_to_num(error, nan=1e6, posinf=1e6, neginf=-1e6), -1e6, 1e6)


def _simulate(
    model: MemberModel,
    termination: TerminationFn,
    segments: Segments,
    particles: int,
    generator: torch.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean and 90 % interval of the particles `[s, K, obs_dim]`, and the share that has ended `[s, K]`."""
    per_chunk = max(1, _CHUNK_ROWS // particles)
    parts = [
        _simulate_chunk(model, termination, _rows(segments, slice(k, k + per_chunk)), particles, generator)
        for k in range(0, len(segments), per_chunk)
    ]
    mean, low, high, ended = (torch.cat(column).double().numpy() for column in zip(*parts, strict=True))
    return mean, low, high, ended


def _rows(segments: Segments, rows: slice) -> tuple[Tensor, Tensor]:
    return torch.tensor(segments.observations[rows, 0]), torch.tensor(segments.actions[rows])


def _simulate_chunk(
    model: MemberModel,
    termination: TerminationFn,
    rows: tuple[Tensor, Tensor],
    particles: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    start, actions = rows
    count, horizon = actions.shape[:2]
    member = (torch.arange(particles) % model.ensemble_size).expand(count, particles).flatten()
    obs = start.repeat_interleave(particles, 0)
    judged = min(particles, _ENDING_PARTICLES)
    survival = torch.ones(count, judged)
    steps: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    # The i-th of P draws lies at level i/(P + 1) on average: so placed, the ends cover 90 % for any P.
    ends = ((torch.tensor(INTERVAL) * (particles + 1) - 1) / (particles - 1)).clamp(0.0, 1.0)
    for k in range(horizon):
        action = actions[:, k].repeat_interleave(particles, 0)
        next_mean, variance, _, _ = model.predict_member(obs, action, member)
        noise = torch.randn(next_mean.shape, generator=generator)
        next_obs = torch.addcmul(next_mean, variance.sqrt(), noise)
        some = [x.view(count, particles, -1)[:, :judged].flatten(0, 1) for x in (obs, action, next_obs)]
        survival = survival * (1.0 - termination(*some).view(count, judged))
        cloud = next_obs.view(count, particles, -1)
        low, high = torch.quantile(cloud, ends, dim=1)
        steps.append((cloud.mean(1), low, high, 1.0 - survival.mean(1)))
        obs = next_obs
    mean, low, high, ended = (torch.stack(column, 1) for column in zip(*steps, strict=True))
    return mean, low, high, ended


def _run_linear(linear: LinearModel, segments: Segments) -> NDArray[np.float64]:
    obs = segments.observations[:, 0].astype(np.float64)
    path: list[NDArray[np.float64]] = []
    for k in range(segments.actions.shape[1]):
        obs = np.clip(linear.predict(obs, segments.actions[:, k]), -1e12, 1e12)
        path.append(obs)
    return np.stack(path, 1)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ErrorCurve:
    """Median error over segments by horizon, with its 90 % interval over episodes.

    Attributes:
        median: `[K]`.
        low: `[K]`.
        high: `[K]`.
    """

    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def error_curve(
    error: NDArray[np.float64],
    alive: NDArray[np.bool_],
    episode: NDArray[np.int64],
    *,
    draws: int,
    generator: torch.Generator,
) -> ErrorCurve:
    """`e_k = median_s error_{s,k}` over the segments that reach k; NaN where none does."""
    weights, column = episode_weights(episode, draws, generator)
    by_row = weights[:, column]
    horizon = error.shape[1]
    median, low, high = (np.full(horizon, np.nan) for _ in range(3))
    for k in range(horizon):
        rows = alive[:, k]
        if not rows.any():
            break
        median[k] = np.median(error[rows, k])
        drawn = weighted_medians(error[rows, k], by_row[:, rows])
        low[k], high[k] = np.nanquantile(drawn, INTERVAL)
    return ErrorCurve(median, low, high)


def trusted_horizon(
    curve: ErrorCurve,
    persistence: NDArray[np.float64],
    coverage: NDArray[np.float64],
    *,
    tolerance: float,
    least_coverage: float,
) -> int:
    """Largest k such that every j <= k has `high_j <= tolerance`, `e_j < e0_j`, and enough coverage.

    Args:
        curve: the model's error; the upper end of its 90 % interval counts.
        persistence: `[K]` median error of "nothing changes".
        coverage: `[K]` coverage of the 90 % particle interval.
        tolerance: largest error, standard deviations of the dataset.
        least_coverage: in [0, 1].
    """
    is_trusted = (curve.high <= tolerance) & (curve.median < persistence) & (coverage >= least_coverage)
    return int(np.logical_and.accumulate(is_trusted).sum())
