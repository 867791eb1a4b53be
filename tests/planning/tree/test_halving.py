"""Sequential halving: the published sequences, and who is visited in a search."""

import pytest
import torch
from torch import Tensor

from mbrl.planning.base import Hints
from mbrl.planning.tree.halving import HalvingByRounds, HalvingOneByOne, considered_visits, halving_rounds
from mbrl.planning.tree.search import RootStats
from tests.planning.tasks import DOUBLE, one_step_search

SCORES = torch.tensor([[0.0, 3.0, 1.0, 2.0], [9.0, 8.0, 7.0, 6.0]], dtype=DOUBLE)


@pytest.mark.parametrize(
    ("considered", "sims", "expected"),
    [
        (8, 24, [0] * 8 + [1] * 4 + [2] * 4 + [3, 3, 4, 4, 5, 5, 6, 6]),
        (8, 2, [0, 0]),
        (8, 13, [0] * 8 + [1] * 4 + [2]),
        (7, 24, [0] * 7 + [1] * 3 + [2] * 3 + [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8]),
        (0, 16, list(range(16))),
        (1, 16, list(range(16))),
    ],
)
def test_halving_follows_the_published_sequences(considered: int, sims: int, expected: list[int]):
    assert list(considered_visits(considered, sims)) == expected


@pytest.mark.parametrize(("sims", "rounds"), [(32, 4), (50, 12), (64, 15)])
def test_rounds_are_few(sims: int, rounds: int):
    assert len(halving_rounds(16, sims)) == rounds


def _fixed(stats: RootStats) -> Tensor:
    """Candidates rank by SCORES, whatever the search says."""
    del stats
    return SCORES


@pytest.mark.parametrize("kind", ["rounds", "one by one"])
def test_visits_go_to_the_best_by_score_phase_by_phase(kind: str):
    """8 simulations of 4 actions: one each, then two each for the better half (4 / (2 * 2) rounds of 2)."""
    search = one_step_search(torch.zeros(2, 4, dtype=DOUBLE), sims=8)
    halving = HalvingByRounds(4, keeps_policy=False) if kind == "rounds" else HalvingOneByOne(4)
    assert halving.run(search, _fixed, select=_never, sims=8, rounds=range) == 8
    assert search.stats().visits.tolist() == [[1.0, 3.0, 1.0, 3.0], [3.0, 3.0, 1.0, 1.0]]
    assert search.rounds == (3 if kind == "rounds" else 8)
    assert halving.count_rounds(8) == search.rounds


def _never(node: Tensor, rows: Tensor | None) -> Tensor:
    raise AssertionError("one-step tasks have nothing below the roots")


def test_masks_leave_states_their_own_schedules():
    """The second state has two actions only: they take four each, while the first halves four."""
    mask = torch.tensor([[True] * 4, [False, True, False, True]])
    search = one_step_search(torch.zeros(2, 4, dtype=DOUBLE), sims=8, hints=Hints(mask=mask))
    HalvingByRounds(4, keeps_policy=False).run(search, _fixed, select=_never, sims=8, rounds=range)
    assert search.stats().visits.tolist() == [[1.0, 3.0, 1.0, 3.0], [0.0, 4.0, 0.0, 4.0]]


def test_the_policys_mode_takes_the_last_place_of_the_considered():
    """Two of four are considered; the mode, action 0, ranks last by score and replaces the second."""
    logits = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=DOUBLE)
    visits = []
    for keeps in (True, False):
        search = one_step_search(torch.zeros(1, 4, dtype=DOUBLE), sims=2, logits=logits)
        halving = HalvingByRounds(2, keeps_policy=keeps)
        halving.run(search, lambda stats: SCORES[:1], select=_never, sims=2, rounds=range)
        visits.append(search.stats().visits.tolist())
    assert visits == [[[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0, 1.0]]]


def test_rounds_end_when_time_does():
    search = one_step_search(torch.zeros(2, 4, dtype=DOUBLE), sims=8)
    done = HalvingByRounds(4, keeps_policy=False).run(
        search, _fixed, select=_never, sims=8, rounds=lambda most: range(min(most, 2))
    )
    assert done == 6
    assert search.stats().visits.sum(1).tolist() == [6.0, 6.0]
