import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.types import SpaceSpec
from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.assessment.behaviour import LinearBehaviour
from mbrl.dynamics.assessment.forecasts import plain_forecast
from mbrl.dynamics.assessment.open_loop import draw_segments, run_open_loop
from mbrl.dynamics.termination import NeverTerminates
from tests.dynamics.assessment.test_forecasts import Unstable, make_unstable
from tests.dynamics.systems import make_dataset


def test_a_linear_law_is_recovered_inside_the_bounds_of_its_machine():
    dataset = make_dataset(episodes=10)
    gain = np.array([[-0.5], [0.25]])
    made = [
        dataclasses.replace(e, actions=np.float32(e.observations[:-1] @ gain + 0.1)) for e in dataset.episodes
    ]
    log = dataclasses.replace(dataset, episodes=tuple(made))
    rows = log.transitions()
    law = LinearBehaviour.fit(rows, log.spec, held_out=rows)
    assert law.error == pytest.approx(0.0, abs=1e-4)
    found = law.act(torch.tensor([[0.0, 0.0], [1.0, 1.0], [-9.0, 0.0]]))
    assert found.flatten().tolist() == pytest.approx([0.1, -0.15, 1.0], abs=1e-4)


def test_a_law_of_choices_makes_one_choice():
    dataset = make_dataset(episodes=10)
    made = [
        dataclasses.replace(e, actions=np.eye(2, dtype=np.float32)[(e.observations[:-1, 0] > 0).astype(int)])
        for e in dataset.episodes
    ]
    space = SpaceSpec.discrete(2, ("left", "right"))
    log = dataclasses.replace(dataset, episodes=tuple(made), spec=space)
    law = LinearBehaviour.fit(log.transitions(), space, held_out=log.transitions())
    found = law.act(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]))
    assert found.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_actions_without_a_law_leave_everything_unexplained():
    rows = make_dataset(episodes=60).transitions()
    law = LinearBehaviour.fit(rows, make_dataset(episodes=1).spec, held_out=rows)
    assert law.error == pytest.approx(1.0, abs=0.01)


def test_an_unstable_machine_is_predicted_under_its_controller_where_logged_actions_tell_nothing():
    dataset = make_unstable()
    rows = dataset.transitions()
    law = LinearBehaviour.fit(rows, dataset.spec, held_out=rows)
    segments = draw_segments(dataset, count=200, horizon=25, generator=torch.Generator().manual_seed(0))
    replayed, closed = (
        run_open_loop(
            Unstable(),
            NeverTerminates(),
            LinearModel.fit(rows),
            segments,
            particles=25,
            obs_std=rows.observation.std(0).astype(np.float64),
            generator=torch.Generator().manual_seed(1),
            forecast=plain_forecast(rows),
            act=act,
        )
        for act in (None, law.act)
    )
    assert replayed.nrmse[0, -1] > 2.0
    assert closed.nrmse[0, -1] < 1.1  # what nobody can know is who pushed: no more than the spread of the log
    assert 0.75 < closed.coverage[-1] < 0.97
