import pytest
import scipy.stats

from mbrl.ops.shares import wilson_interval


@pytest.mark.parametrize(("hits", "count"), [(0, 92), (3, 20), (20, 20), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_it_is_the_interval_of_the_textbook(hits: int, count: int, level: float) -> None:
    known = scipy.stats.binomtest(hits, count).proportion_ci(level, method="wilson")
    assert wilson_interval(hits / count, float(count), level=level) == pytest.approx(
        (known.low, known.high), abs=1e-12
    )
