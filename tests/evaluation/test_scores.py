import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl.envs.specs import load_task
from mbrl.evaluation.scores import normalised_score

finite = st.floats(-1e4, 1e4)


def test_the_references_score_0_and_100() -> None:
    hopper = load_task("hopper")
    assert hopper.ref_min_score is not None
    assert hopper.ref_max_score is not None
    returns = np.array([-20.272305, 3234.3, (3234.3 - 20.272305) / 2])
    scores = normalised_score(returns, hopper.ref_min_score, hopper.ref_max_score)
    np.testing.assert_allclose(scores, [0.0, 100.0, 50.0])


def test_constant_returns_have_no_spread() -> None:
    # Peers send the standard deviation through the offset: 0 became 0.62 on hopper, 2.26 on halfcheetah.
    scores = normalised_score(np.full(10, 1234.5), -20.272305, 3234.3)
    assert np.ptp(scores) == 0.0


@given(returns=st.lists(finite, min_size=1, max_size=20), low=finite, width=st.floats(1.0, 1e4))
def test_the_mean_of_scores_is_the_score_of_the_mean_and_spreads_scale(
    returns: list[float], low: float, width: float
) -> None:
    values = np.array(returns)
    scores = normalised_score(values, low, low + width)
    mean = normalised_score(np.array([values.mean()]), low, low + width)[0]
    assert scores.mean() == pytest.approx(mean, abs=1e-4, rel=1e-6)
    assert scores.std() == pytest.approx(100 * values.std() / width, abs=1e-4, rel=1e-6)


def test_references_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="must lie below"):
        normalised_score(np.zeros(1), 1.0, 1.0)
