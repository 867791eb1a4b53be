import math

import pytest
import torch

from mbrl.learners.discrete.cql import DiscreteCQL, DiscreteCQLConfig
from tests.learners.discrete.chain import CELLS, CONTEXT, corridor, generator, train, two_rows


def make(**config):
    learner = DiscreteCQL(DiscreteCQLConfig(**{"hidden": (16,), "discount": 0.9, **config}), CONTEXT)
    return learner, learner.init(generator())


VALUES = torch.tensor([[[0.0, math.log(2.0), math.log(5.0)], [math.log(3.0), 0.0, 0.0]]])


def test_the_term_by_hand():
    learner, state = make(conservative_weight=2.0)
    loss, metrics = learner.regulariser(state, two_rows(), VALUES)
    gap = (math.log(8.0) + math.log(5.0)) / 2 - (math.log(5.0) + math.log(3.0)) / 2
    assert float(metrics["critic/conservative_gap"]) == pytest.approx(gap)
    assert loss is not None
    assert float(loss.detach()) == pytest.approx(2.0 * gap)


def test_forbidden_choices_are_not_pressed_down():
    learner, state = make()
    mask = torch.tensor([[False, True, True], [True, True, False]])
    _, metrics = learner.regulariser(state, two_rows(action_mask=mask), VALUES)
    gap = (math.log(7.0) + math.log(4.0)) / 2 - (math.log(5.0) + math.log(3.0)) / 2
    assert float(metrics["critic/conservative_gap"]) == pytest.approx(gap)


@pytest.mark.parametrize(
    ("states", "soft"), [("all", (math.log(8.0) + math.log(5.0)) / 2), ("model", math.log(5.0))]
)
def test_imagined_rows_are_pressed_down_and_never_held_up(states: str, soft: float):
    learner, state = make(conservative_states=states)
    rows = two_rows(from_model=torch.tensor([False, True]))
    _, metrics = learner.regulariser(state, rows, VALUES)
    assert float(metrics["critic/conservative_gap"]) == pytest.approx(soft - math.log(5.0), abs=1e-6)


def test_without_imagined_rows_the_term_stays_on_all():
    learner, state = make(conservative_states="model")
    _, metrics = learner.regulariser(state, two_rows(), VALUES)
    gap = (math.log(8.0) + math.log(5.0)) / 2 - (math.log(5.0) + math.log(3.0)) / 2
    assert float(metrics["critic/conservative_gap"]) == pytest.approx(gap)


def test_unlogged_choices_end_below_logged_ones():
    rows = corridor(256, behaviour=(0.5, 0.0, 0.5))
    learner, _ = make(hidden=(32, 32), learning_rate=3e-3, polyak_tau=0.05)
    state = train(learner, 400, rows)
    values = state.policy.preferences(CELLS)
    assert bool((values[:, 1] < values[:, [0, 2]].amin(1)).all())
    assert state.policy.best(CELLS).tolist() == [2, 2, 2, 2]
    assert learner.config.is_conservative
    assert not DiscreteCQLConfig(conservative_weight=0.0).is_conservative
