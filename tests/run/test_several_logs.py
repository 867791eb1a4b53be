import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import mbrl
from mbrl.algorithms.base import RECIPES
from mbrl.algorithms.model_free import ModelFree, ModelFreeConfig
from mbrl.api.importing import merge
from mbrl.core.errors import ConfigError, DataError
from mbrl.data.merging.mixture import SourceMixture
from mbrl.run.config import part_names, resolve
from mbrl.run.store import RunFolder
from mbrl.testing.algorithms import AlgorithmCase
from tests.algorithms.toy import make_context
from tests.data.merging.test_merge import log
from tests.run.toy import TINY_DYNAMICS, assert_same, make_dataset, transitions

SMALL: dict[str, Any] = {"updates": 12, "learner": {"hidden": [8], "batch_size": 16}, "diagnostics": False}


def several_steps() -> ModelFreeConfig:
    return ModelFreeConfig.model_validate({"learner": {"name": "dqn", "n_steps": 3, "hidden": [8]}})


def two_sources() -> SourceMixture:
    source = (torch.arange(len(transitions())) > 10).long()
    return SourceMixture(source, (0.75, 0.25), ("a", "b"))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("logs")
    return [str(mbrl.save(log(name, seed), folder / name)) for name, seed in (("old", 1), ("new", 2))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def train(logs: Any, store: Path, **changes: Any) -> mbrl.Run:
    return mbrl.train(logs, "iql", store=store, progress=False, **{**SMALL, **changes})


def test_files_open_logs_and_a_merged_file_are_one_training(paths: list[str], store: Path, tmp_path: Path):
    named = train(paths, store, weights=[1.0, 3.0])
    opened = train([mbrl.load(path) for path in paths], store, weights=[1.0, 3.0])
    merged = merge(paths, out=tmp_path / "both")
    whole = train(merged, store / "other", weights=[1.0, 3.0])
    assert opened.path == named.path  # found, not repeated
    assert whole.path.name == named.path.name
    tensors = [load_file(run.path / "policy.safetensors") for run in (named, whole)]
    assert_same(tensors[0], tensors[1])


def test_weights_are_part_of_what_a_training_is(paths: list[str], store: Path):
    asked = (None, [1.0, 3.0], [1.0, 1.0])
    found = {str(weights): train(paths, store, weights=weights).path for weights in asked}
    assert len(set(found.values())) == 3
    assert train(paths, store, weights=[2.0, 6.0]).path == found["[1.0, 3.0]"]  # the same shares


def test_config_and_manifest_name_both(paths: list[str], store: Path):
    run = train(paths, store, weights=[1.0, 3.0])
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert config["dataset"] == paths
    assert config["weights"] == [1.0, 3.0]
    assert resolve(run.path / "config.yaml").run.dataset == tuple(paths)
    manifest = RunFolder(run.path).manifest()
    assert manifest["dataset_source"] == paths
    parts = [mbrl.load(path) for path in paths]
    assert [part["content_hash"] for part in manifest["dataset_parts"]] == [p.content_hash for p in parts]
    assert manifest["dataset_hash"] == merge(parts).content_hash


def test_a_fit_takes_several(paths: list[str], store: Path):
    several = mbrl.fit(paths, TINY_DYNAMICS, store=store, progress=False)
    assert several.path == mbrl.fit(merge(paths), TINY_DYNAMICS, store=store, progress=False).path


def test_what_does_not_go_together_is_refused(paths: list[str], store: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="3 are given for 2 sources"):
        train(paths, store, weights=[1.0, 2.0, 3.0])
    with pytest.raises(ConfigError, match="one dataset, not merged"):
        train(paths[0], store, weights=[1.0, 2.0])
    context = make_context(None, episode=torch.tensor(make_dataset().transitions().episode))
    context = dataclasses.replace(context, mixture=two_sources())
    with pytest.raises(ConfigError, match="summed over several steps"):
        ModelFree.open_stream(several_steps(), context)
    with pytest.raises(ConfigError, match="opened alike"):
        train([mbrl.load(paths[0]), mbrl.load(paths[1], infos="none")], store)
    other = log("other", 3, time_step=1.0)
    with pytest.raises(DataError, match="time_step"):
        train([log("a", 4, time_step=2.0), other], store)


@pytest.mark.parametrize("recipe", [name for name in RECIPES.names() if RECIPES.get(name).weighs_sources])
def test_recipes_that_weigh_sources_draw_logged_rows_by_them(recipe: str, monkeypatch: pytest.MonkeyPatch):
    named = next(name for name in part_names("algorithms") if _recipe_of(name) == recipe)
    run = resolve(arguments={"algorithm": named}).run
    rollout = getattr(run.algorithm, "rollout", None)
    if rollout is not None:
        rollout = rollout.model_copy(update={"respect_trusted_horizon": False})
        config = run.algorithm.model_copy(update={"rollout": rollout})
    else:
        config = run.algorithm
    case, made = AlgorithmCase(recipe, config), list[SourceMixture]()
    monkeypatch.setattr("mbrl.data.sources.MixedDraws", made.append)
    RECIPES.get(recipe).open_stream(config, dataclasses.replace(case.make_context(), mixture=two_sources()))
    assert [mixture.shares for mixture in made] == [(0.75, 0.25)]


def _recipe_of(name: str) -> str:
    return resolve(arguments={"algorithm": name}).run.recipe
