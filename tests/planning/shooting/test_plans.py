"""Plans with their scores, by hand."""

import torch

from mbrl.planning.base import PlanStats
from mbrl.planning.shooting.plans import Plans, report
from mbrl.planning.shooting.rollout import Scores


def _plans(scores: list[list[float]], *, first: float = 0.0) -> Plans:
    """Plans of two steps; each says its own place, and its figures are multiples of its score."""
    score = torch.tensor(scores).double()
    figures = torch.stack(
        [score, score + 0.5, 3.0 * score, 1.0 * score, -1.0 * score + 0.5, 0.1 * score, *[score * 0] * 4]
    )
    states, count = score.shape
    place = first + torch.arange(states * count).view(states, count).double()
    actions = torch.stack((place, place + 0.5), 2)[..., None]
    return Plans(actions, torch.arange(count).expand(states, count), Scores(figures))


def test_plans_are_taken_joined_and_chosen_with_their_scores():
    plans = _plans([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    some = plans.take(torch.tensor([[2, 0], [1, 1]]))
    assert some.scores.score.tolist() == [[3.0, 1.0], [5.0, 5.0]]
    assert some.actions[:, :, 0, 0].tolist() == [[2.0, 0.0], [4.0, 4.0]]
    assert some.source.tolist() == [[2, 0], [1, 1]]
    assert plans.first(2).scores.score.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    joined = plans.first(1).join(some)
    assert joined.scores.score.tolist() == [[1.0, 3.0, 1.0], [4.0, 5.0, 5.0]]
    assert joined.actions[:, :, 1, 0].tolist() == [[0.5, 2.5, 0.5], [3.5, 4.5, 4.5]]
    other = _plans([[7.0, 8.0, 9.0], [10.0, 11.0, 12.0]], first=100.0)
    mixed = plans.where(torch.tensor([True, False]), other)
    assert mixed.scores.score.tolist() == [[1.0, 2.0, 3.0], [10.0, 11.0, 12.0]]
    assert mixed.actions[:, 0, 0, 0].tolist() == [0.0, 103.0]


def test_a_report_gives_the_policy_what_weight_is_left():
    stats = PlanStats(6, 1, 0, 0, 0.0, False, torch.tensor([False, True]), 0, 2, 0)
    own, elites = _plans([[1.0], [4.0]]), _plans([[2.0, 3.0], [5.0, -torch.inf]], first=10.0)
    weights = torch.tensor([[0.25, 0.75], [0.0, 0.0]]).double()
    chosen = elites.first(1)
    result = report(own, chosen, (elites, weights), failed=torch.tensor([False, True]), stats=stats)
    assert result.weights.tolist() == [[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]]
    assert result.candidates[..., 0].tolist() == [[0.0, 10.0, 11.0], [1.0, 12.0, 13.0]]
    assert result.delta_lcb.tolist() == [1.0, 1.0]
    assert result.value_lcb.tolist() == [2.0, 5.0]
    assert result.value.tolist() == [2.5, 5.5]
    assert (result.reward_part - result.penalty_part + result.bootstrap_part).tolist() == [2.5, 5.5]
    assert result.plan[..., 0].tolist() == [[10.0, 10.5], [12.0, 12.5]]
    nothing = report(own, own, None, failed=torch.tensor([True, True]), stats=stats)
    assert nothing.weights.tolist() == [[1.0], [1.0]]
    assert nothing.delta_lcb.tolist() == [0.0, 0.0]
