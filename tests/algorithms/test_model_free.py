import dataclasses

import pytest
import torch

from mbrl.algorithms.model_free import ModelFree, ModelFreeConfig, prepare_transitions
from mbrl.core.errors import ConfigError
from tests.algorithms.toy import make_context
from tests.run.toy import make_dataset, transitions


def config(**values) -> ModelFreeConfig:
    return ModelFreeConfig.model_validate({"learner": {"name": "bc", "hidden": [8]}, **values})


def context():
    return make_context(None, episode=torch.tensor(make_dataset().transitions().episode))


def test_by_default_the_log_is_served_as_it_is():
    assert prepare_transitions(config(), make_context(None)).reward is not None
    same = prepare_transitions(config(), context())
    assert torch.equal(same.reward, transitions().reward)


def test_the_best_fraction_is_made_of_whole_episodes_by_return():
    dataset = make_dataset()
    kept = prepare_transitions(config(best_fraction=0.25), context())
    best = sorted(range(12), key=lambda i: -dataset.episodes[i].episode_return)[:3]
    expected = dataset.select(sorted(best)).transitions().to_batch()
    for field in dataclasses.fields(expected):
        assert torch.equal(getattr(kept, field.name), getattr(expected, field.name)), field.name


def test_rewards_are_scaled_before_the_filter_and_bounds_follow():
    dataset = make_dataset()
    returns = torch.tensor([episode.episode_return for episode in dataset.episodes])
    scale = 1000 / float(returns.max() - returns.min())
    scaled = prepare_transitions(config(reward_transform="return_range"), context())
    torch.testing.assert_close(scaled.reward, transitions().reward * scale)
    both = prepare_transitions(config(reward_transform="return_range", best_fraction=0.25), context())
    plain = prepare_transitions(config(best_fraction=0.25), context())
    torch.testing.assert_close(both.reward, plain.reward * scale)
    training = ModelFree.build(config(reward_transform="return_range"), context())
    assert training.reward_scale == pytest.approx(scale)
    assert ModelFree.build(config(best_fraction=0.25), context()).reward_scale == 1.0
    assert training.value_bounds is not None
    low = ModelFree.build(config(), context()).value_bounds[0]
    assert training.value_bounds[0] == pytest.approx(scale * low, rel=1e-5)
    assert torch.equal(context().transitions.reward, transitions().reward)  # the log itself is untouched


@pytest.mark.parametrize("values", [{"best_fraction": 0.5}, {"reward_transform": "return_range"}])
def test_without_episodes_neither_is_possible(values):
    with pytest.raises(ConfigError, match="episode of every transition"):
        prepare_transitions(config(**values), make_context(None))


@pytest.mark.parametrize(
    "values", [{"best_fraction": 0.0}, {"best_fraction": 1.5}, {"reward_transform": "x"}]
)
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        config(**values)
