"""Fits that are none of the questions here are short."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _short(short_log_fits: None) -> None:
    """The toy log has no densities."""
