"""How far annotators agree beyond chance: Cohen's and Fleiss' kappa on pairs that several of them saw."""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from mbrl.preferences.pairs import LABELS, Label, PreferenceSet, Segment


@dataclasses.dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two annotators.

    Attributes:
        first: name of one.
        second: name of the other.
        pairs: that both answered.
        share: of equal answers, 0 to 1.
        kappa: Cohen's, -1 to 1; NaN where both always gave one and the same label.
    """

    first: str
    second: str
    pairs: int
    share: float
    kappa: float


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """All annotators.

    Attributes:
        pairs: that at least two answered.
        kappa: Fleiss', over these; NaN without any, or where one label was given alone.
        by_two: every two who share a pair.
    """

    pairs: int
    kappa: float
    by_two: tuple[PairAgreement, ...]


def measure_agreement(preferences: PreferenceSet) -> Agreement:
    """Agreement of annotators on the pairs that they share, whichever side a segment was shown on.

    Of several answers of one annotator to one pair the last one counts. The labels are `left`, `right`,
    `equal` and `skip`, without an order.
    """
    answers: dict[tuple[Segment, Segment], dict[str, Label]] = {}
    for answer in preferences.answers:
        told = answer if answer.left <= answer.right else answer.mirrored
        answers.setdefault((told.left, told.right), {})[told.annotator] = told.label
    shared = [given for given in answers.values() if len(given) > 1]
    by_two: list[PairAgreement] = []
    for first, second in itertools.combinations(preferences.annotators(), 2):
        both: list[tuple[Label, Label]] = [
            (given[first], given[second]) for given in shared if first in given and second in given
        ]
        if both:
            share = sum(a == b for a, b in both) / len(both)
            by_two.append(PairAgreement(first, second, len(both), share, cohen_kappa(both)))
    counts = [Counter(given.values()) for given in shared]
    return Agreement(len(shared), fleiss_kappa(counts), tuple(by_two))


def cohen_kappa(answers: Sequence[tuple[Label, Label]]) -> float:
    """`(p_o - p_e) / (1 - p_e)`, p_e the agreement of independent raters with the same shares (Cohen 1960).

    Args:
        answers: of two raters to each item.

    Returns:
        At most 1; NaN without answers, or where chance alone agrees always.
    """
    total = len(answers)
    if total == 0:
        return math.nan
    observed = sum(a == b for a, b in answers) / total
    first, second = Counter(a for a, _ in answers), Counter(b for _, b in answers)
    expected = sum(first[label] * second[label] for label in LABELS) / total**2
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


def fleiss_kappa(counts: Sequence[Mapping[Label, int]]) -> float:
    """Fleiss' kappa (1971) of items with two raters or more; the number of raters may differ by item.

    `P_i = sum_j n_ij (n_ij - 1) / (n_i (n_i - 1))`, averaged over items, against `P_e = sum_j p_j^2` with p_j
    the share of label j among all answers. With equal n_i this is Fleiss' own formula.

    Args:
        counts: of each item, how often each label was given.

    Raises:
        ValueError: an item has fewer than two answers.
    """
    if not counts:
        return math.nan
    sizes = [sum(item.values()) for item in counts]
    if min(sizes) < 2:
        raise ValueError("agreement needs two answers to every item")
    pairs = zip(counts, sizes, strict=True)
    agreed = [sum(n * (n - 1) for n in item.values()) / (size * (size - 1)) for item, size in pairs]
    observed, total = sum(agreed) / len(counts), sum(sizes)
    expected = sum((sum(item.get(label, 0) for item in counts) / total) ** 2 for label in LABELS)
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)
