import dataclasses
import json

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.core.history import History
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.importing.schema import ImportSchema
from mbrl.data.merging.agreement import find_differences
from mbrl.data.merging.merge import SOURCE_INFO, episode_sources, merge_datasets, sources_digest, sources_of
from mbrl.data.open import open_dataset
from mbrl.data.splits import cut
from tests.run.toy import make_dataset


def log(name: str, seed: int, **info) -> Dataset:
    made = make_dataset(3, 8, seed=seed)
    return dataclasses.replace(made, info=dataclasses.replace(made.info, name=name, **info))


def schema(unit: str, scale: float = 1.0) -> str:
    return ImportSchema.model_validate(
        {
            "name": "arm",
            "time": {"column": "t"},
            "observations": [{"column": "q", "unit": unit, "scale": scale}],
            "actions": [{"column": "u"}],
        }
    ).model_dump_json()


def test_episodes_come_one_dataset_after_the_other_with_their_source():
    a, b = log("a", 1), log("b", 2)
    both = merge_datasets([a, b])
    assert both.info.name == "a+b"
    assert [e.rewards.tolist() for e in both.episodes] == [
        e.rewards.tolist() for e in (*a.episodes, *b.episodes)
    ]
    assert episode_sources(both).tolist() == [0, 0, 0, 1, 1, 1]
    assert [(s.name, s.content_hash, s.episodes, s.transitions) for s in sources_of(both)] == [
        ("a", a.content_hash, 3, 24),
        ("b", b.content_hash, 3, 24),
    ]
    # The steps are those of both, and no array was copied.
    assert both.episodes[4].observations is b.episodes[1].observations


def test_the_hash_covers_the_content_of_both_in_their_order():
    a, b = log("a", 1), log("b", 2)
    assert merge_datasets([a, b]).content_hash == merge_datasets([a, b], name="x").content_hash
    assert merge_datasets([a, b]).content_hash != merge_datasets([b, a]).content_hash
    assert sources_digest(merge_datasets([a, b])) != sources_digest(merge_datasets([b, a]))


def test_sources_survive_a_file_a_selection_and_a_cut(tmp_path):
    both = merge_datasets([log("a", 1), log("b", 2)])
    read = open_dataset(FORMATS.get("minari").write(both, tmp_path / "both"))
    assert sources_of(read) == sources_of(both)
    assert read.content_hash == both.content_hash
    assert episode_sources(read.select([5, 0, 3])).tolist() == [1, 0, 1]
    assert cut(read.episodes[4], 2, 5).infos[SOURCE_INFO].tolist() == [1, 1, 1]


def test_a_part_that_was_merged_brings_its_own_sources():
    inner = merge_datasets([log("a", 1), log("b", 2)])
    outer = merge_datasets([inner, log("c", 3)])
    assert [source.name for source in sources_of(outer)] == ["a", "b", "c"]
    assert episode_sources(outer).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    with pytest.raises(DataError, match="'b' and 'b' have the same content"):
        merge_datasets([inner, log("b", 2)])


def test_provenance_keeps_what_all_say_and_the_lineage():
    a = log("a", 1, provenance={"robot": "arm", "day": "1"}, derived_from="00ff")
    b = log("b", 2, provenance={"robot": "arm", "day": "2"})
    info = merge_datasets([a, b]).info
    assert info.provenance["robot"] == "arm"
    assert "day" not in info.provenance
    listed = json.loads(info.provenance["sources"])
    assert [entry.get("derived_from") for entry in listed] == ["00ff", None]


def test_what_one_leaves_open_the_other_states():
    a, b = log("a", 1), log("b", 2, time_step=0.05, obs_names=("x", "y", "z"))
    info = merge_datasets([a, b]).info
    assert (info.time_step, info.obs_names) == (0.05, ("x", "y", "z"))


DIFFERENT = {
    "task": ({"task": "pendulum"}, {"task": "hopper"}),
    "env_id": ({"env_id": "A-v0"}, {"env_id": "B-v0"}),
    "time_step": ({"time_step": 0.02}, {"time_step": 0.05}),
    "max_episode_steps": ({"max_episode_steps": 8}, {"max_episode_steps": 9}),
    "obs_names": ({"obs_names": ("x", "y", "z")}, {"obs_names": ("x", "z", "y")}),
    "act_names": ({"act_names": ("u", "v")}, {"act_names": ("u", "w")}),
    "reward_rule": ({"reward_rule": "-q**2"}, {}),
    "termination_rule": ({}, {"termination_rule": "q > 1"}),
    "history": ({}, {"history": History(1, 1)}),
    "unit of q": ({"schema": schema("rad")}, {"schema": schema("deg")}),
    "provenance.task_hash": ({"provenance": {"task_hash": "1"}}, {"provenance": {"task_hash": "2"}}),
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_a_difference_is_named_by_its_field(field):
    one, two = DIFFERENT[field]
    with pytest.raises(DataError) as error:
        merge_datasets([log("a", 1, **one), log("b", 2, **two)])
    assert error.value.field == field
    assert "'a' has" in str(error.value)
    assert "'b' has" in str(error.value)
    assert "Remedy" in str(error.value)


def test_rates_that_differ_by_rounding_are_one():
    assert merge_datasets([log("a", 1, time_step=0.02), log("b", 2, time_step=0.0200001)]).info.time_step


def test_bounds_sizes_and_rewards_have_to_be_the_same():
    a = log("a", 1)
    low = list(a.spec.act_low)
    wider = dataclasses.replace(
        log("b", 2), spec=dataclasses.replace(a.spec, act_low=(*low[:-1], low[-1] - 1))
    )
    assert [error.field for error in find_differences(a, wider)] == ["action bounds"]
    bare = [
        dataclasses.replace(e, rewards=np.full(len(e), np.nan, np.float32), has_rewards=False)
        for e in log("b", 2).episodes
    ]
    assert [error.field for error in find_differences(a, dataclasses.replace(a, episodes=tuple(bare)))] == [
        "rewards"
    ]
    choices = make_dataset(2, 5, space=SpaceSpec.discrete(a.spec.obs_dim, 3))
    assert "choices" in [error.field for error in find_differences(a, choices)]


def test_one_dataset_and_the_same_twice_are_refused():
    with pytest.raises(DataError, match="nothing to merge"):
        merge_datasets([log("a", 1)])
    with pytest.raises(DataError, match="count twice"):
        merge_datasets([log("a", 1), log("again", 1)])


def test_a_merged_log_is_opened_again_from_the_files_of_both(tmp_path):
    paths = [
        FORMATS.get("minari").write(log(name, seed), tmp_path / name) for name, seed in (("a", 1), ("b", 2))
    ]
    both = merge_datasets([open_dataset(path) for path in paths])
    assert both.origin is not None
    assert both.origin.source == tuple(map(str, paths))
    assert merge_datasets([open_dataset(paths[0]), log("b", 2)]).origin is None
