"""Several candidates on one log: how likely each is the best, and what picking the apparent one may cost.

Draws are joint: one resample of the episodes, and one member of the ensembles, serve all candidates, so what
they share cancels.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from mbrl.core.estimates import Family
from mbrl.off_policy.estimators.base import primary_estimators
from mbrl.off_policy.judgement.paired import Evidence
from mbrl.off_policy.judgement.report.concluded import Ranking, VerdictName
from mbrl.off_policy.judgement.report.documents import OPEReport
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.statistics.bounds import LEVEL
from mbrl.off_policy.statistics.self_normalised import draw_counts

DRAWS: Final = 2000
"""Joint draws: a chance of a half then has a standard error of 0.011."""

_ORDER: Final[Mapping[VerdictName, int]] = {"go": 0, "go_with_guard": 1, "cannot_tell": 2, "no_go": 3}
"""Verdicts from the best: a candidate of which nothing is known may be better than one that is worse."""


def rank(
    evidence: Sequence[Mapping[str, Evidence]],
    invalid: Sequence[Mapping[Family, str]],
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Ranking | str:
    """P(best) and regret@1 of candidates on one log, or why there is no ranking.

    Args:
        evidence: of each candidate by estimator.
        invalid: of each candidate, the families that do not count (`families.count_families`).
        rng: of the draws.
        draws: joint ones.
    """
    if len(evidence) < 2:
        return "one candidate has no rank"
    chosen = common_estimator(evidence, invalid)
    if chosen is None:
        return "no primary estimator judged all candidates"
    name, is_counted = chosen
    candidates = [by_estimator[name] for by_estimator in evidence]
    values = joint_draws(candidates, rng=rng, draws=draws)
    # What the apparently best one lacks of the truly best one, draw by draw.
    lost = values.max(0) - values[int(np.argmax([candidate.point for candidate in candidates]))]
    low, high = np.quantile(lost, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ranking(
        estimator=name,
        counts_for_all=is_counted,
        points=tuple(candidate.point for candidate in candidates),
        p_best=chances_of_best(values).tolist(),
        regret=float(lost.mean()),
        regret_ci95=(float(low), float(high)),
    )


def chances_of_best(values: Array) -> Array:
    """`[c]`, share of joint draws `[c, draws]` in which each candidate is the best; ties are shared."""
    is_best = values == values.max(0)
    return (is_best / is_best.sum(0)).mean(1)


def joint_draws(candidates: Sequence[Evidence], *, rng: np.random.Generator, draws: int) -> Array:
    """`[c, draws]` values: resampled episodes, plus a deviation of one member, the same for all candidates.

    Deviations are scaled by `sqrt(m / (m - 1))`, so that their variance is that of `ensemble_estimate`.
    """
    n = candidates[0].per_episode.size
    counts = draw_counts(n, draws, rng) / n
    values = np.stack([counts @ candidate.per_episode for candidate in candidates])
    chosen = rng.random(draws)
    for row, candidate in enumerate(candidates):
        members = candidate.members
        if members is not None and members.size > 1:
            deviation = (members - members.mean()) * np.sqrt(members.size / (members.size - 1))
            values[row] += deviation[(chosen * members.size).astype(np.int64)]
    return values


def common_estimator(
    evidence: Sequence[Mapping[str, Evidence]], invalid: Sequence[Mapping[Family, str]]
) -> tuple[str, bool] | None:
    """The primary estimator that all candidates have, and whether it counts for each of them.

    Args:
        evidence: of each candidate by estimator.
        invalid: of each candidate, the families that do not count (`families.count_families`).

    Returns:
        Ratios before values before the model, those that count for everyone first; None without one.
    """
    primary = primary_estimators()
    sizes = {
        name: {e[name].per_episode.size for e in evidence}
        for name in primary.values()
        if all(name in e for e in evidence)
    }
    shared = [(family, name) for family, name in primary.items() if len(sizes.get(name, ())) == 1]
    counted = [name for family, name in shared if not any(family in problems for problems in invalid)]
    if counted:
        return counted[0], True
    return (shared[0][1], False) if shared else None


def propose(reports: Sequence[OPEReport], p_best: Sequence[float] | None) -> int:
    """Index of the candidate to try first: the best verdict, then P(best), then the order given.

    Args:
        reports: with verdicts; the corrected one where there are several candidates.
        p_best: of each; None where it is not known.
    """

    def key(index: int) -> tuple[int, float]:
        final = reports[index].verdict.final.verdict
        return _ORDER[final], -(p_best[index] if p_best is not None else 0.0)

    return min(range(len(reports)), key=key)
