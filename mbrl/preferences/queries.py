"""Which pairs to ask next: those whose answer the members of a reward model dispute."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias, cast

import torch

from mbrl.data.dataset import Dataset
from mbrl.preferences.calibration import member_probabilities
from mbrl.preferences.pairs import Preference, Segment
from mbrl.preferences.reward_model import RewardEnsemble
from mbrl.preferences.segments import SegmentPairs
from mbrl.preferences.synthetic import draw_pairs

Query: TypeAlias = Literal["disagreement", "random"]
QUERIES: Final[tuple[Query, ...]] = ("disagreement", "random")

_CANDIDATES: Final = 10
"""Pairs that are looked at for each that is asked (Christiano et al. 2017 draw that many)."""


def choose_pairs(
    dataset: Dataset,
    *,
    count: int,
    length: int,
    model: RewardEnsemble | None = None,
    query: Query = "disagreement",
    known: Sequence[Preference] = (),
    seed: int = 0,
) -> tuple[tuple[Segment, Segment], ...]:
    """Pairs to ask next, the most disputed first.

    Args:
        dataset: the log.
        count: how many.
        length: steps of a segment.
        model: whose members dispute; `random` needs none.
        query: `disagreement` takes the pairs with the largest deviation of the members' probabilities among
            ten times as many (Christiano et al. 2017, section 2.2.4); `random` takes all alike.
        known: answers that are there: their pairs are not asked again.
        seed: of the draws.

    Raises:
        DataError: the log has no two windows of that length.
        ValueError: `disagreement` is asked of no model.
    """
    asked = {frozenset((answer.left, answer.right)) for answer in known}
    drawn = draw_pairs(dataset, count=_CANDIDATES * count, length=length, seed=seed)
    fresh = list(dict.fromkeys(pair for pair in drawn if frozenset(pair) not in asked))
    if query == "random":
        return tuple(fresh[:count])
    if model is None:
        raise ValueError("disagreement is that of a reward model's members")
    pairs = SegmentPairs.of_answers(dataset, [Preference(a, b, "equal") for a, b in fresh])
    spread = member_probabilities(model, pairs).std(0, correction=0)
    order = cast("list[int]", torch.argsort(spread, descending=True, stable=True)[:count].tolist())
    return tuple(fresh[k] for k in order)
