import math

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError, UndefinedRatioError
from mbrl.off_policy.log.policies import (
    CHUNK,
    DeterministicMode,
    GreedyMode,
    act_with,
    action_log_prob,
    action_probabilities,
    as_deployed,
    draw_actions,
    evaluation_actions,
    is_stochastic,
    require_density,
)
from tests.off_policy.logs import TablePolicy, generator, linear
from tests.off_policy.lqg import LinearPolicy, NoisyLinearPolicy


def test_a_deterministic_mode_hides_the_density():
    policy = DeterministicMode(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4))
    obs = torch.ones(2, 1)
    torch.testing.assert_close(policy.act(obs, torch.ones(2, 1)), torch.full((2, 1), -0.4))
    assert not hasattr(policy, "log_prob")


def test_actions_follow_their_noise():
    noise = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    table = TablePolicy(torch.tensor([[0.2, 0.8]]))
    chosen = act_with(table, torch.ones(3, 1), noise).argmax(-1)
    assert chosen.tolist() == [0, 1, 1]  # Phi = 0.16, 0.5, 0.98
    quiet = LinearPolicy(torch.ones(1, 1), 8.0, std=1.0)  # without a density: its evaluation action
    assert act_with(quiet, torch.ones(3, 1), noise[:, :1]).tolist() == [[-1.0]] * 3


def test_log_densities_are_those_of_the_actions_taken():
    table = TablePolicy(torch.tensor([[0.2, 0.8], [0.5, 0.5]]))
    found = action_log_prob(table, torch.eye(2)[[0, 1, 0]], torch.eye(2)[[1, 0, 0]])
    torch.testing.assert_close(found.exp(), torch.tensor([0.8, 0.5, 0.2], dtype=torch.float64))
    policy = linear(0.5, 0.4)
    found = action_log_prob(policy, torch.ones(1, 1), torch.zeros(1, 1))
    by_hand = -0.5 * (0.5 / 0.4) ** 2 - math.log(0.4 * math.sqrt(2 * math.pi)) + math.log(8)
    assert float(found) == pytest.approx(by_hand, rel=1e-6)  # of the action scaled to [-1, 1]


def test_who_has_no_density_is_told_what_to_use():
    quiet = LinearPolicy(torch.ones(1, 1), 8.0)
    assert not is_stochastic(quiet)
    assert is_stochastic(linear(0.5, 0.4))
    for ask in (require_density, lambda policy: action_log_prob(policy, torch.ones(1, 1), torch.ones(1, 1))):
        with pytest.raises(UndefinedRatioError, match="fqe"):
            ask(quiet)


def test_draws_are_offered_only_where_there_are_some():
    """Who asks for the draws of a deterministic policy is not told to ask for its draws."""
    quiet = LinearPolicy(torch.ones(1, 1), 8.0)
    for policy, is_offered in ((quiet, False), (DeterministicMode(quiet), False), (linear(0.5, 0.4), True)):
        shown = policy if not is_offered else DeterministicMode(policy)
        with pytest.raises(UndefinedRatioError, match="fqe, dm, drl, mwl and model_value") as caught:
            require_density(shown)
        assert ("--stochastic" in str(caught.value)) == is_offered


def test_draws_follow_the_policy_and_long_logs_go_in_chunks():
    obs = torch.linspace(-1, 1, CHUNK + 3)[:, None]
    draws = draw_actions(linear(0.5, 0.4), obs, count=3, generator=generator())
    noise = (draws[..., 0] + 0.5 * obs[:, 0]) / 0.4
    assert draws.shape == (3, CHUNK + 3, 1)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.03)
    quiet = LinearPolicy(torch.ones(1, 1), 8.0)
    torch.testing.assert_close(draw_actions(quiet, obs, count=3, generator=generator()), -obs[None])
    torch.testing.assert_close(evaluation_actions(quiet, obs), -obs)


def test_logits_are_no_probabilities():
    for table in ([[3.0, -1.0]], [[2.0, -1.0]], [[0.25, 0.25]], [[float("nan"), 0.5]]):
        policy = TablePolicy(torch.tensor(table))
        with pytest.raises(DataError, match=r"row 0.*logits"):
            action_probabilities(policy, torch.ones(2, 1))
        with pytest.raises(DataError, match=r"row 0.*logits"):
            action_log_prob(policy, torch.ones(2, 1), torch.ones(2, 2))
    found = action_probabilities(TablePolicy(torch.tensor([[0.25, 0.75]])), torch.ones(2, 1))
    np.testing.assert_allclose(found, [[0.25, 0.75]] * 2)


def test_a_policy_over_choices_keeps_ratios_when_it_is_deployed():
    table = TablePolicy(torch.tensor([[0.2, 0.8], [0.6, 0.4]]))
    mode = as_deployed(table)
    assert isinstance(mode, GreedyMode)
    assert mode.probs(torch.eye(2)).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert is_stochastic(mode)
    found = action_log_prob(mode, torch.eye(2), torch.eye(2))
    assert found.tolist() == [-float("inf"), -float("inf")]
    assert isinstance(as_deployed(linear(0.5, 0.4)), DeterministicMode)
