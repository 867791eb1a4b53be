import numpy as np
import pytest
import torch

from mbrl.dynamics.assessment.measures import evaluate_measures
from tests.dynamics.systems import linear_ensemble, make_dataset


def test_measures_see_every_row_once_and_in_order():
    rows = make_dataset(episodes=30, steps=50).transitions()
    assert len(rows) > 1024
    measures = {
        "where": lambda posterior, obs, action, outcome, episode: obs[:, 0] + action[:, 0],
        "spread": lambda posterior, *_: posterior.mean.std(0, correction=0).mean(-1),
    }
    model = linear_ensemble(offsets=(-0.2, 0.4))
    found = evaluate_measures(model, measures, rows, torch.Generator().manual_seed(0))
    assert found["where"] == pytest.approx(rows.observation[:, 0] + rows.action[:, 0], abs=1e-6)
    assert found["spread"] == pytest.approx(np.full(len(rows), 0.3), rel=1e-4)


def test_outcomes_are_draws_of_a_random_member():
    rows = make_dataset(episodes=60, steps=60).transitions()
    measures = {"off": lambda posterior, obs, action, outcome, episode: (outcome - posterior.mean[0])[:, 0]}
    model = linear_ensemble(offsets=(0.0, 2.0), noise=0.1)
    off = evaluate_measures(model, measures, rows, torch.Generator().manual_seed(0))["off"]
    second = off > 1.0
    assert second.mean() == pytest.approx(0.5, abs=0.03)
    assert off[~second].std() == pytest.approx(0.1, rel=0.05)
    assert off[second].mean() == pytest.approx(2.0, abs=0.02)


def test_a_measure_is_told_the_episode_of_training_rows_alone():
    rows = make_dataset(episodes=30, steps=50).transitions()
    measures = {
        "episode": lambda posterior, obs, *rest: -torch.ones(len(obs)) if rest[-1] is None else rest[-1]
    }
    settings = (linear_ensemble(), measures, rows, torch.Generator().manual_seed(0))
    assert evaluate_measures(*settings)["episode"].tolist() == [-1.0] * len(rows)
    assert evaluate_measures(*settings, is_training=True)["episode"].tolist() == rows.episode.tolist()
