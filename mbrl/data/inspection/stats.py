"""Figures of a dataset: distributions, repeated and odd rows, coverage.

Vectorised throughout: a million transitions take seconds.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.normaliser import fit_moments

BINS: Final = 40
JUMP_FACTOR: Final = 8.0
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
    """Figures of a dataset that could be read."""

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
    returns: Distribution
    rewards: Distribution
    observations: tuple[Dimension, ...]
    actions: tuple[Dimension, ...]
    coverage: Coverage


def summarise(dataset: Dataset) -> DatasetStats:
    """All figures of a dataset."""
    rows, info, spec = dataset.transitions(), dataset.info, dataset.spec
    saturation = _saturation(rows.action, np.array(spec.act_low), np.array(spec.act_high))
    return DatasetStats(
        content_hash=dataset.content_hash,
        num_episodes=len(dataset),
        num_transitions=len(rows),
        terminated=int(rows.terminated.sum()),
        truncated=int(rows.truncated.sum()),
        unknown_successors=int((~rows.is_successor_known).sum()),
        duplicate_rows=count_duplicates(rows),
        inconsistent_rows=count_inconsistent(rows),
        jump_rows=count_jumps(rows),
        has_behaviour_log_prob=all(e.behaviour_log_prob is not None for e in dataset.episodes),
        lengths=describe(dataset.episode_lengths),
        returns=describe(dataset.episode_returns),
        rewards=describe(rows.reward),
        observations=_dimensions(rows.observation, info.obs_names, None),
        actions=_dimensions(rows.action, info.act_names, saturation),
        coverage=measure_coverage(rows),
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


def hash_rows(*arrays: NDArray[Any]) -> NDArray[np.uint64]:
    """`[n]` 64-bit hashes of rows of float32; equal rows have equal hashes, and -0.0 equals 0.0."""
    digest = np.full(len(arrays[0]), 0x9E3779B97F4A7C15, dtype=np.uint64)
    for array in arrays:
        bits = (np.ascontiguousarray(array, dtype=np.float32) + np.float32(0.0)).view(np.uint32)
        for column in bits.reshape(len(digest), -1).T:
            digest ^= column
            digest *= np.uint64(0xBF58476D1CE4E5B9)
            digest ^= digest >> np.uint64(29)
    return digest


def count_duplicates(rows: Transitions) -> int:
    """Transitions that repeat an earlier one in every number."""
    flags = rows.terminated.astype(np.float32)
    hashes = hash_rows(rows.observation, rows.action, rows.reward, rows.next_observation, flags)
    return len(hashes) - len(np.unique(hashes))


def count_inconsistent(rows: Transitions) -> int:
    """Transitions whose `(s, a)` occurred before with a successor 0.1 usual steps off or more."""
    known = rows.successors_known()
    if len(known) < 2:
        return 0
    _, first, inverse = np.unique(
        hash_rows(known.observation, known.action), return_index=True, return_inverse=True
    )
    is_repeat = first[inverse] != np.arange(len(known))
    _, scale = fit_moments(known.next_observation - known.observation)
    gap = known.next_observation[is_repeat] - known.next_observation[first[inverse[is_repeat]]]
    return int((np.abs(gap) > 0.1 * scale).any(axis=1).sum())


def count_jumps(rows: Transitions) -> int:
    """Transitions of a length that suggests a wrong successor or a reset without a flag.

    Lengths are root-mean-squares over dimensions in standard deviations of the observations; a jump is
    longer than half a standard deviation and than 8 times the 99 % quantile or 40 times the median.
    """
    known = rows.successors_known()
    if len(known) < 2:
        return 0
    _, scale = fit_moments(known.observation)
    length = np.sqrt(np.square((known.next_observation - known.observation) / scale).mean(axis=1))
    usual = min(JUMP_FACTOR * float(np.quantile(length, 0.99)), 40.0 * float(np.median(length)))
    return int((length > max(usual, 0.5)).sum())


def measure_coverage(rows: Transitions) -> Coverage:
    """Effective dimensions of the observations, and distances between episodes; on at most 20,000 rows."""
    _, scale = fit_moments(rows.observation)
    references = _spread(len(rows), _REFERENCES)
    obs = (rows.observation[references] - rows.observation[references].mean(axis=0)) / scale
    spectrum = np.linalg.eigvalsh(obs.T @ obs / len(obs))
    effective = float(spectrum.sum() ** 2 / max(float(np.square(spectrum).sum()), 1e-12))
    if int(rows.episode[-1]) == 0:
        return Coverage(effective_dims=max(effective, 1.0), neighbour_median=None, neighbour_95=None)
    _, act_scale = fit_moments(rows.action)
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
