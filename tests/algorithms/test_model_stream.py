import dataclasses
import warnings

import pytest
import torch
from scipy.stats import binomtest

from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_stream import FalseEnds
from mbrl.rollouts.generate import Imagination, RolloutConfig, generate_rollouts
from tests.algorithms.toy import HandModel, make_config, make_context, make_training, refresh
from tests.experiment.toy import transitions

NO_CUT = {"truncation_quantile": None, "starts": 500, "horizon": 1}


class Constant:
    """Terminates with the same probability everywhere."""

    def __init__(self, probability):
        self.probability = probability

    def __call__(self, obs, action, next_obs):
        return obs.new_full((len(obs),), self.probability)


def logged(terminated, *, reward=-1.0):
    """The toy's 360 transitions with some ends and a constant reward."""
    batch = transitions()
    flags = torch.zeros(len(batch), dtype=torch.bool)
    flags[:terminated] = True
    return dataclasses.replace(batch, terminated=flags, reward=torch.full((len(batch),), reward))


def stream(toy, data, probability, **rollout):
    dynamics = dataclasses.replace(toy, termination=Constant(probability))
    config = make_config("model_based", rollout=NO_CUT | rollout, real_ratio=0.5)
    return RECIPES.get("model_based").build(config, make_context(dynamics, transitions=data))


def test_the_logged_rate_is_its_exact_upper_limit():
    expected = binomtest(4, 360, alternative="less").proportion_ci(0.95, method="exact").high
    assert FalseEnds.of(logged(4)).logged_rate == pytest.approx(expected)
    assert FalseEnds.of(logged(360)).logged_rate == 1.0
    assert FalseEnds.of(logged(0)).logged_rate == pytest.approx(1 - 0.05 ** (1 / 360))


def test_false_ends_are_warned_of_once_where_rewards_are_negative(toy):
    training = stream(toy, logged(4), 0.2)
    with pytest.warns(RuntimeWarning, match=r"Imagined episodes end in .*logged ones in at most 2\.5.*=task"):
        refresh(training)
    refresh(training, 1)  # warnings are errors in tests: a second one would fail


@pytest.mark.parametrize(
    ("terminated", "probability", "reward"),
    [(4, 0.2, 1.0), (100, 0.2, -1.0), (4, 0.0, -1.0)],
)
def test_no_warning_where_rewards_are_positive_or_the_rate_is_that_of_the_log(
    toy, terminated, probability, reward
):
    refresh(stream(toy, logged(terminated, reward=reward), probability))


def test_few_rollouts_prove_nothing(toy):
    refresh(stream(toy, logged(4), 0.2, starts=2))


def test_halted_steps_are_no_false_ends(toy):
    rollout = {"truncation_quantile": 0.99, "flagged": "halt"}
    training = stream(toy, logged(0), 0.0, **rollout)
    metrics = refresh(training)
    assert float(metrics["rollout/terminated_rate"]) > 0.1


def test_the_edge_rate_is_logged_at_every_refresh(toy):
    for horizon in (1, 2, 5):
        metrics = refresh(make_training(toy, rollout={"truncation_quantile": None, "horizon": horizon}))
        assert float(metrics["rollout/edge_rate"]) == pytest.approx(1 / horizon)


def test_the_warning_tells_the_imagined_rate():
    class Still:
        act_dim = 2

        def act(self, obs, noise=None):
            return torch.zeros(len(obs), 2)

    ends = generate_rollouts(
        Imagination(HandModel(), Constant(1.0)),
        Still(),
        torch.zeros(4, 3),
        config=RolloutConfig(horizon=3),
        generator=torch.Generator().manual_seed(0),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FalseEnds(logged_rate=1.0, is_tempting=True).check(ends, halts=False)
    with pytest.warns(RuntimeWarning, match=r"100\.00% of the steps"):
        FalseEnds(logged_rate=0.1, is_tempting=True).check(ends, halts=False)
