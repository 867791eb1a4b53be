"""Figures of a dataset: distributions, odd rows, coverage.

Vectorised throughout: a million transitions take seconds.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.inspection.choices import ChoiceStats, summarise_choices
from mbrl.data.inspection.rows import (
    RewardOutlier,
    TimeGaps,
    count_copies,
    count_inconsistent,
    count_jumps,
    count_still,
    find_reward_outliers,
    find_time_gaps,
)
from mbrl.data.normaliser import fit_action_moments, fit_moments

BINS: Final = 40
_QUERIES: Final = 500
_REFERENCES: Final = 20_000


class Distribution(BaseModel):
    """Summary of one number per episode, step or dimension; histogram of equal bins between the extremes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minimum: float
    median: float
    mean: float
    std: float
    maximum: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Dimension(BaseModel):
    """One dimension of the observations or actions.

    Attributes:
        name: its name, or its index.
        values: summary in raw units.
        is_constant: no variation beyond the resolution of float32.
        saturation: share of actions within a thousandth of the range from a bound; None for observations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: Distribution
    is_constant: bool
    saturation: float | None = None


class Coverage(BaseModel):
    """How much of the space the data reach.

    Attributes:
        effective_dims: participation ratio of the correlation matrix of the observations, in [1, obs_dim].
        neighbour_median: median distance to the nearest state-action pair of another episode, in standard
            deviations per dimension; None with a single episode.
        neighbour_95: 95 % quantile of the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    effective_dims: float
    neighbour_median: float | None
    neighbour_95: float | None


class DatasetStats(BaseModel):
    """Figures of a dataset that could be read.

    Attributes:
        content_hash: of the dataset.
        num_episodes: episodes.
        num_transitions: their steps.
        terminated: episodes that terminate.
        truncated: episodes that are cut.
        unknown_successors: terminal steps without a logged successor.
        duplicate_rows: steps in stretches that repeat those of an earlier episode.
        inconsistent_rows: steps whose state and action occurred before with another successor.
        jump_rows: steps far beyond a usual one.
        has_behaviour_log_prob: every step has a log-density of the behaviour.
        lengths: of the episodes, steps.
        returns: of the episodes, undiscounted; None without rewards.
        rewards: of the steps, likewise.
        observations: one entry for each dimension.
        actions: likewise.
        coverage: how much of the space the data reach.
        still_rows: steps equal to the one before in every number: the machine stands still.
        reward_outliers: the few rewards that lie far beyond all others.
        time_gaps: pauses between time stamps; None where there are none.
        choices: counts and cells where actions are choices; None for continuous actions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    content_hash: str
    num_episodes: int
    num_transitions: int
    terminated: int
    truncated: int
    unknown_successors: int
    duplicate_rows: int
    inconsistent_rows: int
    jump_rows: int
    has_behaviour_log_prob: bool
    lengths: Distribution
    returns: Distribution | None
    rewards: Distribution | None
    observations: tuple[Dimension, ...]
    actions: tuple[Dimension, ...]
    coverage: Coverage
    still_rows: int = 0
    reward_outliers: tuple[RewardOutlier, ...] = ()
    time_gaps: TimeGaps | None = None
    choices: ChoiceStats | None = None


def summarise(dataset: Dataset) -> DatasetStats:
    """All figures of a dataset."""
    rows, info, spec = dataset.transitions(), dataset.info, dataset.spec
    saturation = None
    if not spec.is_discrete:
        saturation = _saturation(rows.action, np.array(spec.act_low), np.array(spec.act_high))
    return DatasetStats(
        content_hash=dataset.content_hash,
        num_episodes=len(dataset),
        num_transitions=len(rows),
        terminated=int(rows.terminated.sum()),
        truncated=int(rows.truncated.sum()),
        unknown_successors=int((~rows.is_successor_known).sum()),
        duplicate_rows=count_copies(rows),
        inconsistent_rows=count_inconsistent(rows),
        jump_rows=count_jumps(rows),
        has_behaviour_log_prob=all(e.behaviour_log_prob is not None for e in dataset.episodes),
        lengths=describe(dataset.episode_lengths),
        returns=describe(dataset.episode_returns) if dataset.has_rewards else None,
        rewards=describe(rows.reward) if dataset.has_rewards else None,
        observations=_dimensions(rows.observation, info.obs_names, None),
        actions=_dimensions(rows.action, spec.choices or info.act_names, saturation),
        coverage=measure_coverage(rows),
        still_rows=count_still(rows),
        reward_outliers=find_reward_outliers(rows) if dataset.has_rewards else (),
        time_gaps=find_time_gaps(dataset),
        choices=summarise_choices(dataset),
    )


def describe(values: NDArray[Any]) -> Distribution:
    """Summary and histogram of finite values."""
    wide = values.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-300):  # too narrow for distinct bin edges
        margin = max(abs(low), 1.0) * 1e-3
        low, high = low - margin, high + margin
    counts, edges = np.histogram(wide, bins=BINS, range=(low, high))
    return Distribution(
        minimum=float(wide.min()),
        median=float(np.median(wide)),
        mean=float(wide.mean()),
        std=float(wide.std()),
        maximum=float(wide.max()),
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
    )


def _dimensions(
    values: NDArray[np.float32], names: tuple[str, ...] | None, saturation: NDArray[np.float64] | None
) -> tuple[Dimension, ...]:
    mean, _ = fit_moments(values)
    is_constant = np.ptp(values, axis=0) <= 1e-6 * np.abs(mean)
    return tuple(
        Dimension(
            name=names[index] if names is not None and len(names) == values.shape[1] else str(index),
            values=describe(values[:, index]),
            is_constant=bool(is_constant[index]),
            saturation=None if saturation is None else float(saturation[index]),
        )
        for index in range(values.shape[1])
    )


def _saturation(
    actions: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    margin = 1e-3 * (high - low)
    return np.asarray(((actions <= low + margin) | (actions >= high - margin)).mean(axis=0), dtype=np.float64)


def measure_coverage(rows: Transitions) -> Coverage:
    """Effective dimensions of the observations, and distances between episodes; on at most 20,000 rows."""
    _, scale = fit_moments(rows.observation)
    references = _spread(len(rows), _REFERENCES)
    obs = (rows.observation[references] - rows.observation[references].mean(axis=0)) / scale
    spectrum = np.linalg.eigvalsh(obs.T @ obs / len(obs))
    effective = float(spectrum.sum() ** 2 / max(float(np.square(spectrum).sum()), 1e-12))
    if int(rows.episode[-1]) == 0:
        return Coverage(effective_dims=max(effective, 1.0), neighbour_median=None, neighbour_95=None)
    _, act_scale = fit_action_moments(rows.action)
    pairs = np.concatenate([obs, rows.action[references] / act_scale], axis=1)
    queries = _spread(len(pairs), _QUERIES)
    squares = np.square(pairs).sum(axis=1)
    distances = squares[queries, None] + squares[None, :] - 2.0 * pairs[queries] @ pairs.T
    episode = rows.episode[references]
    distances[episode[queries, None] == episode[None, :]] = np.inf
    nearest = np.sqrt(np.maximum(distances.min(axis=1), 0.0) / pairs.shape[1])
    return Coverage(
        effective_dims=max(effective, 1.0),
        neighbour_median=float(np.median(nearest)),
        neighbour_95=float(np.quantile(nearest, 0.95)),
    )


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` indices, evenly spread over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
