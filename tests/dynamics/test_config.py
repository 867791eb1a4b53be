from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from mbrl.core.assets import configs_dir
from mbrl.dynamics.config import DynamicsConfig, default_updates

FILES = sorted((configs_dir() / "dynamics").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_shipped_config_is_valid_and_round_trips(file: Path):
    config = DynamicsConfig.model_validate(yaml.safe_load(file.read_text()))
    assert DynamicsConfig.model_validate(config.model_dump(mode="json")) == config


def test_the_default_config_is_the_default():
    assert DynamicsConfig.model_validate(yaml.safe_load((FILES[0].parent / "default.yaml").read_text())) == (
        DynamicsConfig()
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elites": 9}, "elites"),
        ({"memebers": 7}, "memebers"),
        ({"hidden": []}, "hidden"),
        ({"log_variance_low": 1.0}, "log_variance_low"),
        ({"min_epoch_updates": 5000}, "min_epoch_updates"),
        ({"weight_decay": [1e-4]}, "5 values"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"termination": {"max_positive_weight": 0.1}}, "max_positive_weight"),
        ({"assessment": {"truncation_quantiles": [1.2]}}, "truncation_quantiles"),
    ],
)
def test_what_cannot_be_used_is_named(settings, message):
    with pytest.raises(ValidationError, match=message):
        DynamicsConfig.model_validate(settings)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert DynamicsConfig.model_validate({"learning_rate": "3e-4"}).learning_rate == 3e-4


@pytest.mark.parametrize(
    ("rows", "updates"),
    [
        (1, 5_000),
        (14_000, 5_000),
        (20_000, 5_000),
        (80_000, 10_000),
        (90_000, 10_600),
        (1_000_000, 35_400),
    ],
)
def test_the_length_of_a_fit_follows_the_data(rows, updates):
    assert default_updates(rows) == updates
    config = DynamicsConfig()
    assert config.ensemble_updates(rows) == updates
    assert config.termination_updates(rows) == updates


def test_a_length_that_is_given_is_kept():
    config = DynamicsConfig.model_validate({"max_updates": 7, "termination": {"max_updates": 5}})
    assert config.ensemble_updates(1_000_000) == 7
    assert config.termination_updates(1_000_000) == 5


@pytest.mark.parametrize(
    ("settings", "step_size"),
    [
        ({}, 1e-2),
        ({"kind": "gaussian"}, 1e-2),
        ({"kind": "categorical"}, 1e-3),
        ({"layer_norm": False}, 1e-3),
        ({"kind": "categorical", "learning_rate": 3e-3}, 3e-3),
        ({"layer_norm": False, "learning_rate": 1e-2}, 1e-2),
    ],
)
def test_networks_that_large_steps_harm_take_smaller_ones(settings: dict[str, Any], step_size: float):
    config = DynamicsConfig.model_validate(settings)
    assert config.learning_rate == step_size
    assert DynamicsConfig.model_validate(config.model_dump()) == config
