"""Every registered measure, estimator and format passes every check of its kind."""

import pytest

from mbrl.data.formats.base import FORMATS
from mbrl.off_policy.estimators.base import ESTIMATORS
from mbrl.testing import (
    ESTIMATOR_CHECKS,
    FORMAT_CHECKS,
    MEASURE_CHECKS,
    check_estimator,
    check_format,
    check_measure,
)
from mbrl.uncertainty.measures import MEASURES


@pytest.mark.parametrize("check", MEASURE_CHECKS)
@pytest.mark.parametrize("name", MEASURES.names())
def test_a_measure_passes(name: str, check: str) -> None:
    check_measure(name, checks=[check])


@pytest.mark.parametrize("check", FORMAT_CHECKS)
@pytest.mark.parametrize("name", FORMATS.names())
def test_a_format_passes(name: str, check: str) -> None:
    check_format(name, checks=[check])


@pytest.mark.parametrize("check", ESTIMATOR_CHECKS)
@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_an_estimator_passes(name: str, check: str) -> None:
    check_estimator(name, checks=[check])
