import json
import math
import pickle

import pytest

from mbrl.core.estimates import Estimand, Estimate, Flag

ESTIMAND = Estimand(0.9, horizon=5)


def estimate(**fields) -> Estimate:
    return Estimate("fqe", "value", 1.0, 0.1, (0.8, 1.2), "by hand", 10.0, ESTIMAND, **fields)


def test_a_flag_is_its_id_and_carries_its_sentence():
    assert Flag("low_ess") is Flag.LOW_ESS
    assert Flag.LOW_ESS == "low_ess"
    assert json.dumps([Flag.LOW_ESS]) == '["low_ess"]'
    assert Flag.LOW_ESS.meaning == "too few episodes carry the weight"
    assert pickle.loads(pickle.dumps(Flag.LOW_ESS)) is Flag.LOW_ESS
    assert len({flag.meaning for flag in Flag}) == len(Flag)
    with pytest.raises(ValueError, match="no_such_flag"):
        Flag("no_such_flag")


def test_reasons_and_flags_add_up():
    found = estimate(flags=(Flag.LOW_ESS,)).flagged(Flag.LOW_ESS, Flag.HUBER)
    assert found.flags == (Flag.LOW_ESS, Flag.HUBER)
    assert found.valid
    twice = found.invalidated("first", Flag.DIVERGED).invalidated("second")
    assert (twice.valid, twice.why_not) == (False, "first; second")
    assert twice.flags == (Flag.LOW_ESS, Flag.HUBER, Flag.DIVERGED)


@pytest.mark.parametrize("fields", [{"valid": True}, {"valid": False}])
def test_no_number_needs_a_reason(fields):
    with pytest.raises(ValueError, match="needs a reason"):
        Estimate("fqe", "value", math.nan, 0.1, (0.8, 1.2), "by hand", 10.0, ESTIMAND, **fields)


@pytest.mark.parametrize(
    ("estimand", "words"),
    [
        (Estimand(1.0, 1000), "mean return of an episode of at most 1,000 steps"),
        (Estimand(1.0, 1), "mean return of an episode of at most 1 step"),
        (Estimand(0.99, 50), "mean return of an episode of at most 50 steps, discounted by 0.99 a step"),
        (Estimand(1.0, is_proper=True), "mean return of a whole episode"),
        (
            Estimand(0.9, normalised=True),
            "mean return of an episode without a limit of steps, discounted by 0.9 a step, times 0.1",
        ),
    ],
)
def test_what_is_asked_is_said_in_words(estimand, words):
    assert estimand.words == words
