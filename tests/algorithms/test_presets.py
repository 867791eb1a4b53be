"""What each model-based recipe is a preset of, and what it refuses to be called by its name."""

import dataclasses

import pytest
import torch

from mbrl.algorithms.base import RECIPES
from mbrl.learners.base import LEARNERS
from tests.algorithms.toy import LEARNER, imagined_rows, make_config, make_training, refresh

CQL = {"name": "cql", "hidden": [8], "batch_size": 16}
REBRAC = {"name": "rebrac", "hidden": [8], "batch_size": 16}
DIVERSE = {**LEARNER, "critics": 3, "diversity_coef": 1.0}
LEARNERS_OF = {"combo": CQL, "mobrac": REBRAC, "ravl": DIVERSE}


@pytest.mark.parametrize(
    ("recipe", "coef", "real_ratio"), [("model_based", 1, 0.5), ("mbrl_default", 5, 0.2), ("mopo", 1, 0.5)]
)
def test_the_common_stream_is_guarded_unless_told_otherwise(recipe, coef, real_ratio):
    config = make_config(recipe)
    penalty = config.penalty
    assert (penalty.measure, penalty.coef, penalty.units) == ("ens_std", coef, "unit_free")
    assert (config.rollout.truncation_quantile, config.rollout.flagged) == (0.99, "keep")
    assert config.rollout.respect_trusted_horizon
    assert config.real_ratio == real_ratio


@pytest.mark.parametrize("recipe", ["combo", "ravl", "mobile", "mbpo"])
def test_unpenalised_recipes_stay_so_when_one_key_of_a_section_is_set(recipe):
    learner = LEARNERS_OF.get(recipe, LEARNER)
    config = make_config(recipe, learner=learner, rollout={"horizon": 2}, penalty={"measure": "max_dev"})
    assert (config.penalty.coef, config.rollout.truncation_quantile, config.rollout.horizon) == (0, None, 2)
    assert config.real_ratio == (0.5 if recipe == "combo" else 0.05)


@pytest.mark.parametrize("recipe", ["combo", "ravl", "mobile"])
def test_a_penalty_under_the_name_of_a_recipe_without_one_is_refused(recipe):
    with pytest.raises(ValueError, match=r"penalty\.coef=0\.5 must be 0"):
        make_config(recipe, learner=LEARNERS_OF.get(recipe, LEARNER), penalty={"coef": 0.5})


@pytest.mark.parametrize("recipe", ["combo", "ravl", "mbpo", "mobrac"])
def test_a_recipe_imagines_what_model_based_imagines_with_its_values(toy, recipe):
    learner = LEARNERS_OF.get(recipe, LEARNER)
    config = make_config(recipe, learner=learner)
    same = {
        "learner": learner,
        "rollout": config.rollout.model_dump(),
        "penalty": config.penalty.model_dump(),
    }
    named, plain = imagined_rows(toy, recipe, learner=learner), imagined_rows(toy, "model_based", **same)
    for field in dataclasses.fields(named):
        found, wanted = getattr(named, field.name), getattr(plain, field.name)
        assert (found is None) == (wanted is None), field.name
        assert wanted is None or torch.equal(found, wanted), field.name


@pytest.mark.parametrize("name", ["bc", "cql", "iql", "rebrac", "sac", "td3_bc"])
def test_any_learner_learns_from_any_stream(toy, name):
    learner = {"name": name, "hidden": [8], "batch_size": 16}
    rollout = {
        "start_states": "any",
        "flagged": "halt",
        "truncation_quantile": 0.99,
        "truncation_divisor": 2.0,
    }
    training = make_training(toy, "model_based", learner=learner, rollout=rollout, real_ratio=0.25)
    refresh(training)
    generator = torch.Generator().manual_seed(0)
    batch = training.source.sample(16, generator)
    assert int(batch.from_model.sum()) == 12
    state = training.learner.init(generator)
    for metric in training.learner.update(state, batch, generator).values():
        assert metric.isfinite()


# --- combo ---


@pytest.mark.parametrize("learner", [LEARNER, {**CQL, "conservative_weight": 0.0}])
def test_combo_needs_a_learner_that_is_conservative_on_model_rows(learner):
    with pytest.raises(
        ValueError, match=rf"conservative on model rows.*{learner['name']}.*use the learner cql"
    ):
        make_config("combo", learner=learner)
    make_config("combo", learner=learner, real_ratio=1)  # there are no model rows then
    assert make_config("combo", learner=CQL).learner.config.is_conservative


def test_only_learners_that_are_conservative_say_so():
    names = {name for name in LEARNERS.names() if LEARNERS.get(name).Config().is_conservative}
    assert names == {"cql", "discrete_cql"}


# --- ravl, mobrac, mbrl_default ---


def test_ravl_needs_critics_that_differ():
    for learner in (LEARNER, {**LEARNER, "critics": 10}, REBRAC):
        with pytest.raises(ValueError, match=r"guarded by its critics alone.*diversity_coef > 0"):
            make_config("ravl", learner=learner)


def test_mobrac_is_rebrac():
    with pytest.raises(ValueError, match=r"MoBRAC has the learner rebrac.*not 'sac'"):
        make_config("mobrac", learner=LEARNER)


def test_an_imagined_next_action_is_that_of_the_next_imagined_step(toy):
    training = make_training(
        toy, "mobrac", learner=REBRAC, real_ratio=0, rollout={"truncation_quantile": None}
    )
    refresh(training)
    rows = training.source.state_dict()["1"]["rows"]  # 3 steps of 40 rollouts, step by step
    action, next_action, has_next = rows[:, 3:5], rows[:, 8:10], rows[:, -1]
    assert torch.equal(next_action[:80], action[40:])
    assert (has_next == 1).all()


def test_the_default_names_its_learner_itself():
    config = RECIPES.get("mbrl_default").Config.model_validate({})
    learner = config.learner.config
    assert (config.learner.name, learner.critics, learner.critic_layer_norm) == ("sac", 2, True)
    assert (learner.actor_learning_rate, learner.critic_learning_rate) == (1e-3, 1e-3)
    assert (learner.has_entropy_backup, learner.batch_size, config.real_ratio) == (False, 256, 0.2)
    assert (config.rollout.horizon, config.rollout.starts, config.penalty.coef) == (20, 2000, 5.0)
    given = {"rollout": {"horizon": 7}, "penalty": {"measure": "max_aleatoric"}}
    changed = type(config).model_validate(given)
    assert (changed.rollout.horizon, changed.rollout.starts, changed.penalty.coef) == (7, 2000, 5.0)
    assert type(config).model_validate(config.model_dump()) == config


def test_one_key_of_the_default_learner_leaves_the_others():
    for section in ({"critics": 10}, {"name": "sac", "critics": 10}):
        learner = RECIPES.get("mbrl_default").Config.model_validate({"learner": section}).learner.config
        assert (learner.critics, learner.critic_layer_norm, learner.has_entropy_backup) == (10, True, False)
    with pytest.raises(ValueError, match="has the learner sac or discrete_sac, not 'bc'"):
        make_config("mbrl_default", learner={"name": "bc"})
