"""Each check of an algorithm finds the defect that it is there for: a sound recipe, damaged in one place."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from mbrl.algorithms.base import RECIPES, Stream
from mbrl.algorithms.model_free import ModelFree
from mbrl.core.errors import ConfigError
from mbrl.learners.base import LEARNERS
from mbrl.learners.bc import BC
from mbrl.testing import ALGORITHM_CHECKS, CheckError, check_algorithm

FINAL = "trainings_resume_to_the_same_bits"


class Source:
    """The log, handed out as a subclass likes it."""

    calls = itertools.count()

    def __init__(self, inner: Any) -> None:
        self.inner, self.state_dict, self.load_state_dict = inner, inner.state_dict, inner.load_state_dict

    def sample(self, batch_size: int, generator: torch.Generator) -> Any:
        return self.inner.sample(batch_size, generator)


class Drawing(Source):
    """Draws from a generator of its own."""

    def sample(self, batch_size: int, generator: torch.Generator) -> Any:
        return super().sample(batch_size, torch.Generator().manual_seed(next(self.calls)))


class Walking(Source):
    """Remembers where it was, and leaves that out of its checkpoints."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.place = 0

    def sample(self, batch_size: int, generator: torch.Generator) -> Any:
        self.place += 1
        batch = super().sample(batch_size, generator)
        batch.action.mul_(1 / self.place)
        return batch


class Copying(Source):
    """Touches the whole log in every update."""

    def sample(self, batch_size: int, generator: torch.Generator) -> Any:
        (2 * torch.ones(360, 3)).sum()
        return super().sample(batch_size, generator)


class Asking(Source):
    """Reads a number of each batch back."""

    def sample(self, batch_size: int, generator: torch.Generator) -> Any:
        batch = super().sample(batch_size, generator)
        assert float(batch.reward.sum()) < 1e9
        return batch


class Nudging(BC):
    """Changes its state whenever it is asked for its policy."""

    def policy(self, state: Any) -> Any:
        with torch.no_grad():
            state.actor.net.flat += 1e-3
        return super().policy(state)


class Leaving(BC):
    """A policy outside of the box."""

    def policy(self, state: Any) -> Any:
        actor = super().policy(state)
        actor.act = lambda obs, noise=None: torch.full((len(obs), 2), 9.0)
        return actor


def recipe_of(source: type[Source]) -> Any:
    class Damaged(ModelFree):
        @classmethod
        def open_stream(cls, config: Any, context: Any) -> Stream:
            stream = super().open_stream(config, context)
            return Stream(source(stream.source), value_bounds=stream.value_bounds)

    return Damaged


class Zeroing(ModelFree):
    """Scales the rewards of the log where they lie."""

    @classmethod
    def open_stream(cls, config: Any, context: Any) -> Stream:
        context.transitions.reward.mul_(0.5)
        return super().open_stream(config, context)


@pytest.fixture(autouse=True)
def _damaged_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (RECIPES, LEARNERS):
        table.names()
        monkeypatch.setattr(table, "_table", dict(table._table))
    for source in (Drawing, Walking, Copying, Asking):
        RECIPES.register(source.__name__)(recipe_of(source))
    RECIPES.register("Zeroing")(Zeroing)
    LEARNERS.register("Nudging")(Nudging)
    LEARNERS.register("Leaving")(Leaving)


MUTANTS = [
    ("Drawing", "bc", "trainings_repeat", "expected the same states after the same training"),
    ("Walking", "bc", FINAL, "killed in update 5 and continued to end where"),
    ("Walking", "bc", "longer_trainings_go_on_from_shorter_ones", "expected"),
    ("Zeroing", "bc", "training_leaves_the_data_alone", "the logged reward as it was before training"),
    ("model_free", "Leaving", "policy_is_a_policy", "expected actions between"),
    ("Copying", "bc", "updates_read_no_number_back_and_copy_no_log", "expected updates that copy no log"),
    ("Asking", "bc", "runs_on_a_card", "batches and updates that do not wait for a card"),
    ("model_free", "Nudging", "diagnostics_change_nothing", "the same states with and without diagnostics"),
]


@pytest.mark.parametrize(("recipe", "learner", "check", "message"), MUTANTS, ids=[m[2] for m in MUTANTS])
def test_a_defect_is_found_and_named(recipe: str, learner: str, check: str, message: str) -> None:
    with pytest.raises(CheckError, match=f"(?s)algorithm '{recipe}', {check}: .*{message}"):
        check_algorithm({"recipe": recipe, "learner": {"name": learner}}, checks=[check])


def test_every_check_has_a_defect_that_it_finds() -> None:
    assert {check for _, _, check, _ in MUTANTS} == set(ALGORITHM_CHECKS)


def test_an_algorithm_may_be_a_name_a_file_or_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: model_free\nlearner: {name: bc}\n")
    for algorithm in ("bc", path, {"recipe": "model_free", "learner": {"name": "bc"}}):
        check_algorithm(algorithm, checks=["trainings_repeat"])
    with pytest.raises(ConfigError, match=r"algorithm\.recipe = 'model_fre' is unknown\. Did you mean"):
        check_algorithm({"recipe": "model_fre", "learner": {"name": "bc"}})
