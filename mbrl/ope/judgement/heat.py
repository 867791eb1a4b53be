"""Which episodes and which of their steps to look at: where support is left, and where the weight lies."""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbrl.data.dataset import Dataset
from mbrl.ope.judgement.support_map import SupportMap
from mbrl.ope.log.layout import Array, OPEArrays
from mbrl.ope.log.weights import weight_blocks

LONGEST: Final = 20
"""Entries of a heat list: what a person looks through."""


class Range(NamedTuple):
    """Steps `start <= t < stop` of an episode, and the sum of their excess."""

    episode: int
    start: int
    stop: int
    excess: float


def hottest_ranges(excess: Array, count: int) -> list[Range]:
    """The `count` episodes whose run of steps with the largest sum is largest, in that order.

    The best run of an episode is `max_{s < t} C_t - C_s` with `C` the cumulative sum (Bentley 1984).

    Args:
        excess: `[n, T]`, what a step shows above its fair share; zeros beyond the end of an episode.
        count: at most; episodes without a positive sum are left out.
    """
    total = np.zeros((excess.shape[0], excess.shape[1] + 1))
    np.cumsum(excess, axis=1, out=total[:, 1:])
    lowest = np.minimum.accumulate(total[:, :-1], axis=1)
    gain = total[:, 1:] - lowest
    last = gain.argmax(1)
    best = gain[np.arange(len(gain)), last]
    order = np.argsort(-best, kind="stable")[:count]
    found: list[Range] = []
    for episode in order[best[order] > 0]:
        stop = int(last[episode]) + 1
        start = int(total[episode, :stop].argmin())
        found.append(Range(int(episode), start, stop, float(best[episode])))
    return found


def heat_list(
    dataset: Dataset, support: SupportMap | None, arrays: OPEArrays | None, *, count: int = LONGEST
) -> list[dict[str, Any]]:
    """Ranges of the largest support violation and of the largest ratio mass, half each where both exist.

    Args:
        dataset: the log.
        support: where the policy leaves it; None where unknown.
        arrays: with ratios; None where there are none.
        count: entries.
    """
    each = count // 2 if support is not None and arrays is not None else count
    entries: list[dict[str, Any]] = []
    if support is not None:
        entries += _support_entries(dataset, support, each)
    if arrays is not None:
        entries += _mass_entries(arrays, each)
    return entries


def _support_entries(dataset: Dataset, support: SupportMap, count: int) -> list[dict[str, Any]]:
    rows, lengths = dataset.transitions(), dataset.episode_lengths
    outside = np.zeros((len(dataset), int(lengths.max())))
    outside[rows.episode, rows.step] = support.outside
    alive = np.arange(outside.shape[1]) < lengths[:, None]
    found = hottest_ranges((outside - support.share) * alive, count)
    return [
        _entry("support", r, share=float(outside[r.episode, r.start : r.stop].mean()), lengths=lengths)
        for r in found
    ]


def _mass_entries(arrays: OPEArrays, count: int) -> list[dict[str, Any]]:
    """Ranges with the most discounted weight above 1/n; the share is that of all episodes' weight then."""
    mass = np.zeros(arrays.reward.shape)
    for block in weight_blocks(arrays):
        mass[:, block.rows] = block.share
    if not np.isfinite(mass).all():
        return []
    discounts = arrays.discounts[:-1] / max(float(arrays.discounts[:-1].sum()), 1e-300)
    found = hottest_ranges((mass - 1 / len(arrays)) * discounts * arrays.alive, count)
    return [
        _entry("weight", r, share=float(mass[r.episode, r.start : r.stop].mean()), lengths=arrays.length)
        for r in found
    ]


def _entry(kind: str, found: Range, *, share: float, lengths: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "kind": kind,
        "episode": found.episode,
        "first_step": found.start,
        "last_step": found.stop - 1,
        "length": int(lengths[found.episode]),
        "share": share,
        "score": found.excess,
    }
