import dataclasses
import math

import pytest

from mbrl.algorithms.batch_faults import find_batch_fault
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer
from mbrl.learners.base import LearnerContext
from mbrl.learners.bc import BC, BCConfig
from mbrl.nets.normaliser import Normaliser
from tests.run.toy import SPACE, transitions

LEARNER = BC(BCConfig(), LearnerContext(SPACE, Normaliser.identity(3), 10))


def fault(data=None, source=None, *, unit: float = 1.0, last: int = 20) -> str | None:
    source = source or DatasetSource(transitions() if data is None else data)
    training = Training(LEARNER, source, batch_size=100, reward_unit=unit)
    return find_batch_fault(training, RngStreams(3), first=1, last=last)


def spoiled(field: str, value: float):
    column = getattr(transitions(), field).clone()
    column.view(len(column), -1)[5, 0] = value
    return dataclasses.replace(transitions(), **{field: column})


def test_sound_batches_have_no_fault():
    assert fault() is None


@pytest.mark.parametrize("field", ["observation", "action", "reward", "next_observation"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_named_with_their_update(field, value):
    said = fault(spoiled(field, value))
    assert said is not None
    update = int(said.split("update ")[1].split()[0])
    assert f"not finite: the {field} of a logged row. Remedy: mbrl inspect" in said
    batch = DatasetSource(spoiled(field, value)).sample(100, RngStreams(3).at("batch", update - 1))
    assert not getattr(batch, field).isfinite().all()
    assert fault(spoiled(field, value), last=update - 1) is None  # the first such batch was named


def test_a_reward_is_too_large_in_the_unit_of_the_learner():
    assert "a reward of 1e+12, 1e+12 times the unit, in a logged row" in fault(spoiled("reward", 1e12))
    assert "1e+08 times the unit" in fault(spoiled("reward", 1e12), unit=1e4)
    assert fault(spoiled("reward", 1e12), unit=1e7) is None


def test_an_imagined_row_has_a_remedy_of_its_own():
    real = DatasetSource(transitions())
    imagined = ModelBuffer(500, real.layout)
    imagined.push(spoiled("reward", -math.inf))
    said = fault(source=MixtureSource([(real, 0.5), (imagined, 0.5)]))
    assert "the reward of an imagined row. Remedy: shorter rollouts" in said
