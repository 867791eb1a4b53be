"""Segments of episodes to look at: out of the distribution of the log, or with the weight of the ratios."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbrl.data.dataset import Dataset
from mbrl.off_policy.judgement.report.measured import Segment, SegmentKind
from mbrl.off_policy.judgement.support_map import SupportMap
from mbrl.off_policy.log.layout import Array, OPEArrays
from mbrl.off_policy.log.weights import weight_blocks

MOST_SEGMENTS: Final = 20
"""Segments of a report: what a person looks through."""

_LEAST_WEIGHT: Final = 1e-300
"""Stands for a sum of discounts of 0, which then divides nothing but zeros."""


class Run(NamedTuple):
    """Steps `start <= t < stop` of an episode, and the sum of their excess."""

    episode: int
    start: int
    stop: int
    excess: float


def largest_runs(excess: Array, count: int) -> list[Run]:
    """The `count` episodes whose run of steps with the largest sum is largest, in that order.

    The best run of an episode is `max_{s < t} C_t - C_s` with `C` the cumulative sum (Bentley 1984).

    Args:
        excess: `[n, T]`, what a step shows above its fair share; zeros beyond the end of an episode.
        count: at most; episodes without a positive sum are left out.
    """
    total = np.zeros((excess.shape[0], excess.shape[1] + 1))
    np.cumsum(excess, axis=1, out=total[:, 1:])
    # The best run that ends at t begins where C was lowest before.
    lowest = np.minimum.accumulate(total[:, :-1], axis=1)
    gain = total[:, 1:] - lowest
    last = gain.argmax(1)
    best = gain[np.arange(len(gain)), last]
    order = np.argsort(-best, kind="stable")[:count]
    runs: list[Run] = []
    for episode in order[best[order] > 0]:
        stop = int(last[episode]) + 1
        start = int(total[episode, :stop].argmin())
        runs.append(Run(int(episode), start, stop, float(best[episode])))
    return runs


def find_segments(
    dataset: Dataset, support: SupportMap | None, arrays: OPEArrays | None, *, count: int = MOST_SEGMENTS
) -> tuple[Segment, ...]:
    """Segments furthest out of the distribution and those of the largest ratio mass, half each if both exist.

    Args:
        dataset: the log.
        support: where the policy leaves it; None where unknown.
        arrays: with ratios; None where there are none.
        count: segments.
    """
    each = count // 2 if support is not None and arrays is not None else count
    segments: list[Segment] = []
    if support is not None:
        segments += _out_of_distribution(dataset, support, each)
    if arrays is not None:
        segments += _of_large_weight(arrays, each)
    return tuple(segments)


def _out_of_distribution(dataset: Dataset, support: SupportMap, count: int) -> list[Segment]:
    """Segments whose actions leave the log more often than those of an average step."""
    rows, lengths = dataset.transitions(), dataset.episode_lengths
    outside = np.zeros((len(dataset), int(lengths.max())))
    outside[rows.episode, rows.step] = support.outside
    alive = np.arange(outside.shape[1]) < lengths[:, None]
    runs = largest_runs((outside - support.share) * alive, count)
    return [_segment("support", run, outside, lengths) for run in runs]


def _of_large_weight(arrays: OPEArrays, count: int) -> list[Segment]:
    """Segments with the most discounted weight above 1/n; the share is that of all episodes' weight then."""
    mass = np.zeros(arrays.reward.shape)
    for block in weight_blocks(arrays):
        mass[:, block.rows] = block.share
    if not np.isfinite(mass).all():
        return []
    discounts = arrays.discounts[:-1] / max(float(arrays.discounts[:-1].sum()), _LEAST_WEIGHT)
    runs = largest_runs((mass - 1 / len(arrays)) * discounts * arrays.alive, count)
    return [_segment("weight", run, mass, arrays.length) for run in runs]


def _segment(kind: SegmentKind, run: Run, shares: Array, lengths: NDArray[np.int64]) -> Segment:
    return Segment(
        kind=kind,
        episode=run.episode,
        first_step=run.start,
        last_step=run.stop - 1,
        length=int(lengths[run.episode]),
        share=float(shares[run.episode, run.start : run.stop].mean()),
        score=run.excess,
    )
