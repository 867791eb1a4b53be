from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch

from mbrl.algorithms.base import (
    RECIPES,
    Recipe,
    RecipeConfig,
    RecipeContext,
    Stream,
    data_value_bounds,
)
from mbrl.algorithms.mobile import InconsistencyPenalty
from mbrl.algorithms.model_free import ModelFree, ModelFreeConfig
from mbrl.algorithms.model_stream import ModelBasedConfig, ModelBasedRecipe, RealRatio
from mbrl.core.errors import ConfigError
from mbrl.data.sources import DatasetSource
from mbrl.learners.bc import BCConfig
from mbrl.learners.choice import LearnerChoice
from mbrl.learners.reward_units import StandardisedRewards
from mbrl.learners.sac import SACConfig
from mbrl.nets.normaliser import Normaliser
from tests.algorithms.toy import LEARNER, make_context
from tests.run.toy import SPACE, transitions


def config(**learner) -> ModelFreeConfig:
    return ModelFreeConfig.model_validate({"learner": {"name": "bc", "hidden": [8], **learner}})


def test_a_flat_learner_is_validated_by_its_own_class():
    choice = config(form="gaussian").learner
    assert choice == LearnerChoice(name="bc", config=BCConfig(form="gaussian", hidden=(8,)))


def test_a_config_survives_its_own_dump():
    before = RecipeConfig.model_validate({"learner": LEARNER, "updates": 3})
    after = RecipeConfig.model_validate(before.model_dump())
    assert after == before
    assert isinstance(after.learner.config, SACConfig)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        ({"name": "sac", "critcs": 3}, "critcs"),
        ({"name": "sac", "config": {"critcs": 3}}, "critcs"),
        ({"name": "sac", "config": {}, "critics": 3}, "config"),
        ({"name": "sac", "form": "gaussian"}, "form"),
        ({"name": "sca"}, r"Unknown learner 'sca'.*sac"),
        ({"hidden": [8]}, r"needs a name, one of: .*bc, .*sac"),
        ({"name": "sac", "critics": [2, 5]}, "critics"),
        ({"name": "sac", "critic_layer_norm": "maybe"}, "critic_layer_norm"),
        ({"name": "sac", "entropy_coef": 1e9}, "entropy_coef"),
        ({"name": "sac", "target_entropy": float("inf")}, "target_entropy"),
        ({"name": "sac", "diversity_coef": float("inf")}, "diversity_coef"),
        ({"name": "sac", "hidden": []}, "hidden"),
        ({"name": "sac", "hidden": [0]}, "hidden"),
        ({"name": "sac", "hidden": [8.5]}, "hidden"),
        ("sac", "learner"),
        ({"name": "sac", "config": BCConfig()}, "instance of SACConfig"),
    ],
)
def test_what_no_learner_takes_is_refused(learner, message):
    with pytest.raises(ValueError, match=message):
        RecipeConfig.model_validate({"learner": learner})


def test_a_learner_does_not_take_the_config_of_another():
    with pytest.raises(ValueError, match="'sac' takes a SACConfig, not a BCConfig"):
        LearnerChoice(name="sac", config=BCConfig())


def test_words_for_booleans_are_read_as_what_they_say():
    assert config(normalise_observations="false").learner.config.normalise_observations is False
    assert config(normalise_observations="true").learner.config.normalise_observations is True


def test_a_recipe_names_itself_when_something_is_missing():
    context = RecipeContext(SPACE, Normaliser.identity(3))
    with pytest.raises(ConfigError, match="some learns from logs"):
        context.logged("some")
    with pytest.raises(ConfigError, match="some needs a fitted dynamics model"):
        context.model("some")


def test_the_learner_is_told_the_normaliser_unless_it_wants_raw_observations():
    normaliser = Normaliser(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0]))
    context = RecipeContext(SPACE, normaliser)
    told = context.for_learner(config().model_copy(update={"updates": 77}))
    assert (told.normaliser, told.space, told.total_updates) == (normaliser, SPACE, 77)
    raw = context.for_learner(config(normalise_observations=False)).normaliser
    obs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(raw(obs), obs)


@pytest.mark.parametrize(("discount", "factor"), [(0.0, 1.0), (0.9, 10.0)])
def test_bounds_of_values_are_those_of_the_logged_rewards(discount, factor):
    reward = transitions().reward
    low, high = data_value_bounds(transitions(), discount)
    assert low == pytest.approx(factor * float(reward.min()))
    assert high == pytest.approx(float(reward.max()))  # negative: an episode may end after one step


def test_model_free_serves_logged_rows_and_nothing_else():
    training = ModelFree.build(config(batch_size=64, discount=0.9), make_context(None))
    assert training.refresh is None
    batch = training.source.sample(training.batch_size, torch.Generator().manual_seed(0))
    assert len(batch) == 64
    assert not batch.from_model.any()
    logged = {tuple(row) for row in torch.cat([transitions().observation, transitions().action], -1).tolist()}
    assert {tuple(row) for row in torch.cat([batch.observation, batch.action], -1).tolist()} <= logged
    assert training.value_bounds is None  # a clone has no values
    valued = ModelFree.build(config(name="iql", discount=0.9), make_context(None))
    assert valued.value_bounds == data_value_bounds(transitions(), 0.9)
    with pytest.raises(ConfigError, match="ModelFree learns from logs"):
        ModelFree.build(config(), make_context(None, transitions=None))


# --- a recipe of one's own ---


def test_a_recipe_of_ones_own_is_its_config():
    class GentleConfig(ModelBasedConfig):
        only_learners: ClassVar[tuple[str, ...]] = ("sac",)
        default_learner: ClassVar[Mapping[str, Any]] = {"name": "sac", "hidden": [8], "critics": 3}
        real_ratio: RealRatio = 0.9

    class Gentle(ModelBasedRecipe):
        Config = GentleConfig

    config = Gentle.Config.model_validate({"learner": {"batch_size": 10}, "real_ratio": 1})
    assert (config.learner.config.critics, config.learner.config.batch_size) == (3, 10)
    training = Gentle.build(config, make_context(None))
    assert (training.batch_size, training.refresh_interval) == (10, config.refresh_interval)
    with pytest.raises(ValueError, match=r"Gentle has the learner sac, not 'bc'.*recipe: model_based"):
        GentleConfig.model_validate({"learner": {"name": "bc"}})
    with pytest.raises(ConfigError, match="Gentle needs a fitted dynamics model"):
        Gentle.build(GentleConfig.model_validate({}), make_context(None))


def test_a_dumped_default_learner_is_read_back_as_it_was():
    default = RECIPES.get("mbrl_default").Config
    config = default.model_validate({"learner": {"critics": 7}})
    assert default.model_validate(config.model_dump()) == config


def test_a_recipe_wires_its_learner_to_its_stream_and_may_wrap_it():
    seen = {}

    class Wrapper(InconsistencyPenalty):
        def __init__(self, learner):
            self.learner = learner

    class Wrapped(Recipe):
        Config = RecipeConfig

        @classmethod
        def open_stream(cls, config, context):
            return Stream(
                DatasetSource(context.logged(cls.__name__)), refresh_interval=7, value_bounds=(-1.0, 2.0)
            )

        @classmethod
        def make_learner(cls, config, context):
            seen["inner"] = super().make_learner(config, context)
            return Wrapper(seen["inner"])

    config = RecipeConfig.model_validate({"learner": LEARNER})
    training = Wrapped.build(config, make_context(None))
    assert isinstance(training.learner, StandardisedRewards)
    assert isinstance(training.learner.learner, Wrapper)
    assert training.learner.learner.learner is seen["inner"]
    assert (training.refresh_interval, training.batch_size, training.value_bounds) == (7, 16, (-1.0, 2.0))
