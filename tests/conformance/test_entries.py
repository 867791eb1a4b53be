"""Every registered measure, estimator and format passes every check of its kind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mbrl.data.formats.base import FORMATS, ReadOnlyFormat
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
from tests.data import others


@pytest.mark.parametrize("check", MEASURE_CHECKS)
@pytest.mark.parametrize("name", MEASURES.names())
def test_a_measure_passes(name: str, check: str) -> None:
    check_measure(name, checks=[check])


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "d3rlpy": lambda folder: others.write_d3rlpy(folder / "log.h5"),
    "lerobot": lambda folder: others.write_lerobot(folder / "log", "v3.0"),
    "minari_arrow": lambda folder: others.write_minari_arrow(folder / "log"),
    "neorl": lambda folder: others.write_neorl(folder / "log.npz"),
    "ogbench": lambda folder: others.write_ogbench(folder / "log.npz"),
    "open_bandit": lambda folder: others.write_open_bandit(folder / "log.csv"),
    "robomimic": lambda folder: others.write_robomimic(folder / "log.hdf5", done_mode=None),
}
"""Files of formats that are only read."""


@pytest.mark.parametrize("check", FORMAT_CHECKS)
@pytest.mark.parametrize("name", FORMATS.names())
def test_a_format_passes(name: str, check: str) -> None:
    if name in {"lerobot", "minari_arrow"}:
        pytest.importorskip("pyarrow")
    check_format(name, sample=SAMPLES.get(name), checks=[check])


def test_every_format_that_is_only_read_has_a_sample() -> None:
    """Else the laws about reading would hold of nothing."""
    assert {name for name in FORMATS.names() if isinstance(FORMATS.get(name), ReadOnlyFormat)} == set(SAMPLES)


@pytest.mark.parametrize("check", ESTIMATOR_CHECKS)
@pytest.mark.parametrize("name", ESTIMATORS.names())
def test_an_estimator_passes(name: str, check: str) -> None:
    check_estimator(name, checks=[check])
