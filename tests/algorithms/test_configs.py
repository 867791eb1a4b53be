"""What the shipped algorithm files say, and that a slip in one of them is never passed over."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.run.config import algorithm_tree, find_part, parse_algorithm, part_names, resolve
from mbrl.run.documents import read_yaml

NAMES = part_names("algorithms")


def load(name: str) -> tuple[str, Any]:
    return parse_algorithm(read_yaml(find_part("algorithms", name)), where=name)


def key_paths(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from key_paths(value, (*prefix, key))


@pytest.mark.parametrize("name", NAMES)
def test_a_file_survives_being_resolved_and_read_again(name: str, tmp_path) -> None:
    resolved = resolve(arguments={"algorithm": name})
    assert (resolved.run.recipe, resolved.run.algorithm) == load(name)
    path = tmp_path / "config.yaml"
    path.write_text(resolved.to_yaml())
    assert resolve(path).run == resolved.run


@pytest.mark.parametrize("name", NAMES)
def test_a_near_miss_of_any_key_is_refused_by_name(name: str) -> None:
    tree = algorithm_tree(resolve(arguments={"algorithm": name}).run)
    for path in key_paths(tree):
        damaged = copy.deepcopy(tree)
        section = damaged
        for key in path[:-1]:
            section = section[key]
        wrong = path[-1].replace("_", "-") + "s"
        section[wrong] = section.pop(path[-1])
        with pytest.raises(ConfigError, match=f"(?s)({wrong}|{path[-1]})"):
            parse_algorithm(damaged, where=name)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_where_one_value_belongs_is_refused(name: str) -> None:
    tree = algorithm_tree(resolve(arguments={"algorithm": name}).run)
    with pytest.raises(ConfigError, match="updates"):
        parse_algorithm({**tree, "updates": [1000, 2000]}, where=name)


def test_mopo_is_penalised_has_many_critics_and_a_deterministic_backup() -> None:
    recipe, config = load("mopo")
    learner = config.learner.config
    assert (recipe, config.learner.name) == ("mopo", "sac")
    assert (config.penalty.measure, config.penalty.coef, config.penalty.units) == (
        "ens_std",
        1.0,
        "unit_free",
    )
    assert (config.rollout.truncation_quantile, config.rollout.horizon, config.real_ratio) == (0.99, 5, 0.5)
    assert config.rollout.respect_trusted_horizon
    assert config.termination == "auto"
    assert learner.critics >= 5
    assert learner.critic_layer_norm
    assert not learner.has_entropy_backup


def test_mbpo_has_neither_penalty_nor_truncation_nor_guard() -> None:
    recipe, config = load("mbpo")
    learner = config.learner.config
    assert (recipe, config.learner.name) == ("mbpo", "sac")
    assert config.penalty.coef == 0
    assert config.rollout.truncation_quantile is None
    assert config.real_ratio == 0.05
    assert (learner.critics, learner.diversity_coef, learner.critic_layer_norm) == (2, 0.0, False)
    assert learner.has_entropy_backup


def test_the_clones_differ_in_their_form() -> None:
    assert load("bc")[1].learner.config.form == "deterministic"
    assert load("bc_gaussian")[1].learner.config.form == "gaussian"


def test_only_the_simulator_recipe_is_online() -> None:
    online = [name for name in NAMES if RECIPES.get(load(name)[0]).is_online]
    assert online == ["dqn_online", "ppo_online", "sac_online"]


@pytest.mark.parametrize("name", NAMES)
def test_every_soft_actor_critic_states_its_backup_and_its_temperature(name: str) -> None:
    learner = read_yaml(find_part("algorithms", name))["learner"]
    if learner["name"] in {"sac", "cql"}:
        assert {"has_entropy_backup", "entropy_coef"} <= set(learner)


@pytest.mark.parametrize(
    ("name", "critics", "diversity", "entropy_backup", "real_ratio"),
    [
        ("mopo-published", 2, 0.0, True, 0.05),
        ("mobile-published", 2, 0.0, False, 0.05),
        ("ravl-published", 10, 1.0, True, 0.05),
        ("combo-published", 2, 0.0, False, 0.5),
    ],
)
def test_published_forms_are_more_than_names(
    name: str, critics: int, diversity: float, entropy_backup: bool, real_ratio: float
) -> None:
    recipe, config = load(name)
    learner, rollout = config.learner.config, config.rollout
    assert recipe == name.removesuffix("-published")
    assert (learner.critics, learner.has_entropy_backup) == (critics, entropy_backup)
    assert getattr(learner, "diversity_coef", 0.0) == diversity
    assert (learner.critic_layer_norm, learner.normalise_observations) == (False, False)
    assert (config.real_ratio, rollout.horizon, rollout.starts) == (real_ratio, 5, 50_000)
    assert rollout.truncation_quantile is None
    assert not rollout.respect_trusted_horizon


def test_published_pessimism_is_that_of_halfcheetah_medium() -> None:
    mopo, mobile, combo, ravl = (load(f"{name}-published")[1] for name in ("mopo", "mobile", "combo", "ravl"))
    assert (mopo.penalty.measure, mopo.penalty.coef, mopo.penalty.units) == ("max_aleatoric", 0.5, "raw")
    assert (mobile.inconsistency_coef, mobile.samples, mobile.is_noise_shared) == (0.5, 10, False)
    assert (combo.learner.name, combo.learner.config.conservative_weight) == ("cql", 0.5)
    assert mobile.penalty.coef == combo.penalty.coef == ravl.penalty.coef == 0


MODEL_FREE = {
    "awac": {
        "hidden": (256,) * 3,
        "inverse_temperature": 1 / 0.3333,
        "max_weight": 100.0,
        "value_samples": 1,
    },
    "bc": {"form": "deterministic", "hidden": (256, 256), "learning_rate": 3e-4},
    "bc_top10": {"form": "deterministic", "hidden": (256, 256), "learning_rate": 3e-4},
    "bcq": {"hidden": (400, 300), "vae_hidden": (750, 750), "batch_size": 100, "minimum_weight": 0.75},
    "bfn": {
        "hidden": (512,) * 4,
        "flow_hidden": (512,) * 4,
        "flow_steps": 10,
        "target_candidates": 4,
        "acting_candidates": 4,
        "critic_layer_norm": True,
        "pessimism": 0.0,
        "flow_learning_rate": 3e-4,
    },
    "cql": {
        "hidden": (256,) * 3,
        "conservative_weight": 10.0,
        "conservative_actions": 10,
        "lagrange_gap": None,
        "target": "sample",
        "has_entropy_backup": False,
        "actor_learning_rate": 3e-5,
        "entropy_coef_learning_rate": 3e-5,
        "critic_learning_rate": 3e-4,
    },
    "discrete_bcq": {"hidden": (256, 256), "batch_size": 64, "threshold": 0.3, "learning_rate": 3e-4},
    "edac": {"critics": 10, "diversity_coef": 1.0, "has_entropy_backup": True, "hidden": (256,) * 3},
    "iql": {"expectile": 0.7, "inverse_temperature": 3.0, "actor_schedule": "cosine", "hidden": (256, 256)},
    "rebrac": {"actor_bc_coef": 0.001, "critic_bc_coef": 0.01, "batch_size": 1024, "hidden": (256,) * 3},
    "sac_n": {"critics": 10, "diversity_coef": 0.0, "has_entropy_backup": True, "hidden": (256,) * 3},
    "td3_bc": {"value_coef": 2.5, "hidden": (256, 256), "policy_interval": 2, "actor_learning_rate": 3e-4},
}
"""What the authors' code, or CORL's, sets for D4RL MuJoCo; that of discrete BCQ for tasks without images."""

UPDATES = {"discrete_bcq": 100_000, "edac": 3_000_000, "sac_n": 3_000_000}
STANDARDISED = {"awac", "bc", "bc_top10", "cql", "td3_bc"}
SCALED = {"cql", "iql"}


@pytest.mark.parametrize("name", MODEL_FREE)
def test_published_model_free_forms_hold_the_published_values(name: str) -> None:
    recipe, config = load(f"{name}-published")
    learner = config.learner.config
    assert (recipe, config.updates) == ("model_free", UPDATES.get(name, 1_000_000))
    assert config.reward_transform == ("return_range" if name in SCALED else "none")
    assert config.best_fraction == (0.1 if name == "bc_top10" else 1.0)
    assert learner.normalise_observations == (name in STANDARDISED)
    assert learner.discount == 0.99
    found = {key: getattr(learner, key) for key in MODEL_FREE[name]}
    assert found == {
        key: pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
        for key, value in MODEL_FREE[name].items()
    }


def test_every_published_form_is_checked_and_names_its_source() -> None:
    published = {name for name in NAMES if name.endswith("-published")}
    model_based = {f"{name}-published" for name in ("mopo", "mobile", "combo", "ravl")}
    assert published == model_based | {f"{name}-published" for name in MODEL_FREE}
    for name in published:
        assert "github.com/" in find_part("algorithms", name).read_text().split("recipe:")[0], name
        assert name.removesuffix("-published") in NAMES


@pytest.mark.parametrize(
    ("name", "schedule", "cap", "entropy_rate"),
    [
        ("mopo", "cosine", 1.0, 1e-4),
        ("mobile", "cosine", 1.0, 1e-4),
        ("combo", "cosine", None, 1e-4),
        ("ravl", "constant", None, 3e-4),
    ],
)
def test_published_rates_and_caps_of_model_based_forms(
    name: str, schedule: str, cap: float | None, entropy_rate: float
) -> None:
    learner = load(f"{name}-published")[1].learner.config
    assert (learner.actor_schedule, learner.max_entropy_coef) == (schedule, cap)
    assert learner.entropy_coef_learning_rate == entropy_rate
    assert (learner.actor_learning_rate, learner.critic_learning_rate) == (
        (3e-4, 3e-4) if name == "ravl" else (1e-4, 3e-4)
    )
    assert learner.hidden == ((256, 256) if name in {"mopo", "mobile"} else (256, 256, 256))
