"""Every shipped algorithm passes every check of an algorithm; new files are tested unasked."""

import pytest

from mbrl.algorithms.base import RECIPES
from mbrl.learners.base import LEARNERS
from mbrl.run.config import part_names, resolve
from mbrl.testing import ALGORITHM_CHECKS, check_algorithm


@pytest.mark.parametrize("check", ALGORITHM_CHECKS)
@pytest.mark.parametrize("name", part_names("algorithms"))
def test_an_algorithm_passes(name: str, check: str) -> None:
    check_algorithm(name, checks=[check])


def test_every_recipe_and_learner_has_a_shipped_algorithm() -> None:
    runs = [resolve(arguments={"algorithm": name}).run for name in part_names("algorithms")]
    assert {run.recipe for run in runs} == set(RECIPES.names())
    assert {run.algorithm.learner.name for run in runs} == set(LEARNERS.names())
