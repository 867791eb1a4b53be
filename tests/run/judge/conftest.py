"""Fits that are none of the questions here are short."""

import functools
from collections.abc import Iterator

import pytest

from mbrl.off_policy.log.behaviour_fit import BehaviourConfig


@pytest.fixture(autouse=True, scope="module")
def _short_behaviour_fits() -> Iterator[None]:
    """The toy log has no densities, and how well they are fitted is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        short = functools.partial(BehaviourConfig, updates=20, folds=2)
        patch.setattr("mbrl.off_policy.log.behaviour.BehaviourConfig", short)
        yield
