"""Each check of a measure, a format and an estimator finds the defect that it is there for."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.data.formats.base import FORMATS, Format, ReadOnlyFormat
from mbrl.off_policy.estimators.base import ESTIMATORS
from mbrl.testing import (
    ESTIMATOR_CHECKS,
    FORMAT_CHECKS,
    MEASURE_CHECKS,
    CheckError,
    check_estimator,
    check_format,
    check_measure,
)

# --- measures ---


def ens_std(posterior: Any) -> Any:
    return (posterior.mean / posterior.delta_scale).std(0).mean(-1)


def column(posterior: Any, context: Any = None) -> Any:
    return ens_std(posterior)[:, None]


def signed(posterior: Any, context: Any = None) -> Any:
    return ens_std(posterior) - 0.1


def batchwise(posterior: Any, context: Any = None) -> Any:
    return ens_std(posterior) / ens_std(posterior).max()


def in_place(posterior: Any, context: Any = None) -> Any:
    posterior.variance.clamp_(min=1.0)
    return ens_std(posterior)


def first_member(posterior: Any, context: Any = None) -> Any:
    return ens_std(posterior) + posterior.variance[0].mean(-1) / posterior.delta_scale.square().mean()


def raw(posterior: Any, context: Any = None) -> Any:
    return posterior.mean.std(0).mean(-1)


def asking(posterior: Any, context: Any = None) -> Any:
    found = ens_std(posterior)
    return found if float(found.sum()) > 0 else found.clone()


MEASURES = [
    (asking, "measures_on_a_card", "measures that do not wait for a card; came _local_scalar"),
    (column, "one_number_for_each_row", r"the shape \[12\]; came \[12, 1\]"),
    (signed, "one_number_for_each_row", r"of 0 at least; came others in the rows \[0"),
    (batchwise, "rows_do_not_influence_each_other", "rows on their own; came a difference"),
    (in_place, "inputs_stay", "variance as it was; came"),
    (first_member, "members_are_alike", "members in another order"),
    (raw, "units_of_observations_do_not_matter", "in other units of the observations"),
]


@pytest.mark.parametrize(("measure", "check", "message"), MEASURES, ids=[m[0].__name__ for m in MEASURES])
def test_a_defect_of_a_measure_is_found(measure: Any, check: str, message: str) -> None:
    with pytest.raises(CheckError, match=f"uncertainty measure '{measure.__name__}', {check}: .*{message}"):
        check_measure(measure, checks=[check])


# --- formats ---


class Damaged:
    """A format around a sound one."""

    def __init__(self) -> None:
        self.inner = FORMATS.get("npz")

    def sniff(self, path: Path) -> Any:
        return self.inner.sniff(path)

    def read(self, path: Path, options: Any = None) -> Any:
        return self.inner.read(path, options)

    def write(self, dataset: Any, path: Path) -> Path:
        return self.inner.write(dataset, path)


class Forgetting(Damaged):
    def sniff(self, path: Path) -> Any:
        return "never seen"


class Rounding(Damaged):
    def write(self, dataset: Any, path: Path) -> Path:
        episodes = [
            dataclasses.replace(e, rewards=np.round(e.rewards, 2).astype(np.float32))
            for e in dataset.episodes
        ]
        return super().write(dataclasses.replace(dataset, episodes=tuple(episodes)), path)


class Losing(Damaged):
    def read(self, path: Path, options: Any = None) -> Any:
        dataset = super().read(path, options)
        return dataclasses.replace(dataset, episodes=dataset.episodes[1:])


class Overwriting(Damaged):
    def write(self, dataset: Any, path: Path) -> Path:
        for old in path.parent.iterdir():
            old.unlink()
        return super().write(dataset, path)


class Accepting(Damaged):
    def sniff(self, path: Path) -> Any:
        return None


class Wavering(Damaged):
    def __init__(self) -> None:
        super().__init__()
        self.readings = 0

    def read(self, path: Path, options: Any = None) -> Any:
        self.readings += 1
        return super().read(path, options).select(range(self.readings, 12))


class Copying(Damaged):
    """Another format for files that are `npz` already."""


class Scribbling(ReadOnlyFormat):
    """Only read, and leaves something behind where it refuses to write."""

    inner = None

    def sniff(self, path: Path) -> str | None:
        return "never"

    def parse(self, path: Path, options: Any) -> Any:
        raise NotImplementedError

    def write(self, dataset: Any, path: Path) -> Path:
        path.with_name("left").touch()
        return super().write(dataset, path)


class Pretending(Scribbling):
    """Only read, and says nothing where it does not write."""

    def write(self, dataset: Any, path: Path) -> Path:
        return path


FORMATTED = [
    (Forgetting, "what_is_written_is_known_again", "came the refusal 'never seen'"),
    (Rounding, "what_is_written_is_read_as_it_was", "rewards of episode 0 as they were written; came other"),
    (Losing, "what_is_written_is_read_as_it_was", "expected 12 episodes; came 11"),
    (Overwriting, "a_second_write_keeps_the_first", "a FileExistsError where something lies already"),
    (Accepting, "other_files_are_refused_with_a_reason", "a reason to refuse .* came None"),
    (Wavering, "a_sample_is_read_the_same_each_time", "two equal readings; came two others"),
    (
        Copying,
        "a_sample_is_of_one_format",
        r"every other format to refuse the sample; came accepted by \['npz'\]",
    ),
    (
        Scribbling,
        "what_is_only_read_says_what_to_write",
        r"nothing behind a refusal to write; came \['left'\]",
    ),
    (Pretending, "what_is_only_read_says_what_to_write", "a DataError from a format that is only read"),
]


@pytest.mark.parametrize(("kind", "check", "message"), FORMATTED, ids=[m[0].__name__ for m in FORMATTED])
def test_a_defect_of_a_format_is_found(kind: Any, check: str, message: str) -> None:
    register: Any = check_format
    with pytest.raises(CheckError, match=f"dataset format '{kind.__name__}', {check}: .*{message}"):
        register(as_format(kind()), checks=[check])


def as_format(damaged: Any) -> Any:
    """The damaged format as one of the class that the annotations ask for."""
    if isinstance(damaged, Format):
        return damaged
    base = type(damaged.inner)
    return type(type(damaged).__name__, (type(damaged), base), {})()


# --- estimators ---

SOUND = ESTIMATORS.get("pdwis")


def renamed(context: Any, *, generator: Any) -> Any:
    return dataclasses.replace(SOUND.estimate(context, generator=generator), name="other")


def lopsided(context: Any, *, generator: Any) -> Any:
    found = SOUND.estimate(context, generator=generator)
    return dataclasses.replace(found, ci95=(found.point + 1, found.point + 2))


def unexplained(context: Any, *, generator: Any) -> Any:
    return dataclasses.replace(SOUND.estimate(context, generator=generator), valid=False, why_not=None)


_calls = itertools.count()


def counting(context: Any, *, generator: Any) -> Any:
    found = SOUND.estimate(context, generator=generator)
    return dataclasses.replace(found, se=float(next(_calls)))


def touching(context: Any, *, generator: Any) -> Any:
    with torch.no_grad():
        context.policy.net.flat.add_(1e-3)
    return SOUND.estimate(context, generator=generator)


def failing(context: Any, *, generator: Any) -> Any:
    raise AttributeError("no log_prob")


ESTIMATED = [
    (renamed, "answers_are_estimates", "an estimate of the name 'pdwis'; came 'other'"),
    (lopsided, "answers_are_estimates", "an interval around the point"),
    (unexplained, "answers_are_estimates", "a reason for an estimate that is not valid"),
    (
        counting,
        "draws_come_from_the_generator",
        "the same estimate from the same generator; came .se is 0.0 and",
    ),
    (touching, "the_log_is_left_alone", "the policy as it was; came .net.flat differs"),
    (failing, "a_deterministic_policy_is_answered_or_refused", "came a AttributeError: no log_prob"),
]


@pytest.mark.parametrize(("estimate", "check", "message"), ESTIMATED, ids=[m[0].__name__ for m in ESTIMATED])
def test_a_defect_of_an_estimator_is_found(estimate: Any, check: str, message: str) -> None:
    with pytest.raises(CheckError, match=f"estimator 'pdwis', {check}: .*{message}"):
        check_estimator(dataclasses.replace(SOUND, estimate=estimate), checks=[check])


@pytest.mark.parametrize(
    ("mutants", "checks"),
    [(MEASURES, MEASURE_CHECKS), (FORMATTED, FORMAT_CHECKS), (ESTIMATED, ESTIMATOR_CHECKS)],
)
def test_every_check_has_a_defect_that_it_finds(mutants: Any, checks: Any) -> None:
    assert {check for _, check, _ in mutants} == set(checks)
