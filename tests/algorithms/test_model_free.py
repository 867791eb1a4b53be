import dataclasses

import pytest
import torch

from mbrl.algorithms.model_free import ModelFree, ModelFreeConfig, choose_transitions
from mbrl.core.errors import ConfigError
from tests.algorithms.toy import make_context
from tests.run.toy import make_dataset, transitions


def config(**values) -> ModelFreeConfig:
    return ModelFreeConfig.model_validate({"learner": {"name": "bc", "hidden": [8]}, **values})


def context():
    return make_context(None, episode=torch.tensor(make_dataset().transitions().episode))


def test_by_default_the_log_is_served_as_it_is():
    assert torch.equal(choose_transitions(config(), make_context(None)).reward, transitions().reward)
    batch = ModelFree.build(config(), context()).source.sample(500, torch.Generator().manual_seed(0))
    assert set(batch.reward.tolist()) <= set(transitions().reward.tolist())  # in the log's units


def test_the_best_fraction_is_made_of_whole_episodes_by_return():
    dataset = make_dataset()
    kept = choose_transitions(config(best_fraction=0.25), context())
    best = sorted(range(12), key=lambda i: -dataset.episodes[i].episode_return)[:3]
    expected = dataset.select(sorted(best)).transitions().to_batch()
    for field in dataclasses.fields(expected):
        found, wanted = getattr(kept, field.name), getattr(expected, field.name)
        assert (found is None) == (wanted is None), field.name
        assert wanted is None or torch.equal(found, wanted), field.name


def test_the_unit_of_the_rewards_is_that_of_all_episodes():
    everything, best = (
        ModelFree.build(
            config(best_fraction=share, learner={"name": "iql", "hidden": [8]}), context()
        ).reward_unit
        for share in (1.0, 0.25)
    )
    assert everything == best == pytest.approx(float(transitions().reward.double().std(correction=0)))


def test_without_episodes_the_best_are_unknown():
    with pytest.raises(ConfigError, match="episode of every transition"):
        choose_transitions(config(best_fraction=0.5), make_context(None))


@pytest.mark.parametrize(
    "values", [{"best_fraction": 0.0}, {"best_fraction": 1.5}, {"reward_transform": "x"}]
)
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        config(**values)
