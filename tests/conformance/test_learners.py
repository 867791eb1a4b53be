"""Every registered learner passes every check of a learner; new entries are tested unasked."""

import pytest

from mbrl.learners.base import LEARNERS
from mbrl.testing import LEARNER_CHECKS, check_learner


@pytest.mark.parametrize("check", LEARNER_CHECKS)
@pytest.mark.parametrize("name", LEARNERS.names())
def test_a_learner_passes(name: str, check: str) -> None:
    check_learner(name, checks=[check])
