import pytest
import torch

from mbrl.algorithms.rewards import reward_unit
from mbrl.core.errors import ConfigError
from mbrl.data.returns import LoggedEpisodes

EPISODE = torch.arange(20).repeat_interleave(60)


def episodes(rows: torch.Tensor) -> LoggedEpisodes:
    return LoggedEpisodes(EPISODE, rows, EPISODE, torch.zeros(20, 1))


def reward(seed: int = 0) -> torch.Tensor:
    return torch.randn(1200, generator=torch.Generator().manual_seed(seed)) - 3.0


def test_the_unit_is_the_deviation_of_the_rewards_the_range_of_returns_or_one():
    rows = reward()
    returns = rows.double().view(20, 60).sum(1)
    assert reward_unit("none", rows, None) == 1.0
    assert reward_unit("standardise", rows, None) == float(rows.double().std(correction=0))
    expected = float(returns.max() - returns.min()) / 1000
    assert reward_unit("return_range", rows, episodes(rows)) == pytest.approx(expected)
    with pytest.raises(ConfigError, match="episode of every transition"):
        reward_unit("return_range", rows, None)


@pytest.mark.parametrize("outlier", [1e12, -1e12, 3e38])
def test_one_reward_among_1200_does_not_make_the_others_vanish(outlier):
    rows = reward()
    unit = reward_unit("standardise", rows, None)
    rows[700] = outlier
    assert reward_unit("standardise", rows, None) == pytest.approx(unit, rel=0.2)


@pytest.mark.parametrize("power", [-40, -13, 13, 40])
@pytest.mark.parametrize("transform", ["standardise", "return_range"])
def test_the_unit_goes_along_with_the_rewards(transform, power):
    unit = reward_unit(transform, reward(), episodes(reward()))
    scaled = reward_unit(transform, reward() * 2.0**power, episodes(reward() * 2.0**power))
    assert scaled == pytest.approx(unit * 2.0**power, rel=1e-12)


def test_a_bonus_that_hides_what_varies_is_bounded_and_said():
    bonus = 1 + 1e-6 * reward()
    with pytest.warns(
        RuntimeWarning, match=r"Rewards vary by .* around a size of 1.*where no episode terminates"
    ):
        unit = reward_unit("standardise", bonus, episodes(bonus))
    assert unit == pytest.approx(1.0, rel=1e-3)
    with pytest.warns(RuntimeWarning, match=r"returns of all 20 episodes lie within .*standardise"):
        unit = reward_unit("return_range", bonus, episodes(bonus))
    assert 1.0 / unit == pytest.approx(1000 / (0.01 * 60), rel=1e-3)


def test_constant_and_absent_rewards_have_a_unit_without_a_word():
    assert reward_unit("standardise", torch.full((50,), 3.0), None) == 3.0
    assert reward_unit("standardise", torch.zeros(50), None) == 1.0
