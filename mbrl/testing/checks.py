"""What every check is made of: a named function, and messages that say what was expected and what came."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.names import listed, suggest

S = TypeVar("S")

Checks: TypeAlias = Mapping[str, Callable[[S], None]]
"""Checks of one kind of subject by name; each raises `CheckError`, or whatever the subject raises."""


_Named: TypeAlias = Mapping[Any, object]


class CheckError(AssertionError):
    """A check failed; the message says what was expected and what came."""


def expect(condition: bool, expected: str, *, came: object) -> None:  # noqa: FBT001 - reads as a sentence
    """Raises unless `condition` holds.

    Args:
        condition: what must be true.
        expected: in words, as in "expected ...".
        came: what there was instead.

    Raises:
        CheckError: it does not hold.
    """
    if not condition:
        raise CheckError(f"expected {expected}; came {came}")


def expect_instance(value: object, kind: type) -> None:
    """Raises unless `value` is a `kind`; a stranger's thing may be anything, whatever its annotation says.

    Raises:
        CheckError: it is not.
    """
    expect(isinstance(value, kind), f"a {kind.__name__}", came=f"a {type(value).__name__}")


def expect_same(first: object, second: object, expected: str) -> None:
    """Raises unless two nested plain containers are equal to the last bit.

    Raises:
        CheckError: they are not; the message names the first place that differs.
    """
    difference = find_difference(first, second)
    expect(difference is None, expected, came=difference)


def expect_close(first: Tensor, second: Tensor, expected: str, *, rtol: float, atol: float = 1e-9) -> None:
    """Raises unless two tensors are equal up to rounding; NaN equals NaN.

    Raises:
        CheckError: they are not; the message tells the largest difference.
    """
    is_close = torch.isclose(first, second, rtol=rtol, atol=atol, equal_nan=True)
    worst = (first - second).abs().max()
    expect(bool(is_close.all()), expected, came=f"a difference of {float(worst):g}")


def expect_all(holds: Tensor, expected: str) -> None:
    """Raises unless a condition holds in every row.

    Raises:
        CheckError: it does not; the message names the rows.
    """
    broken = ~(holds.flatten(1).all(1) if holds.ndim > 1 else holds)
    rows = [int(row) for row in broken.nonzero()]
    expect(not rows, expected, came=f"others in the rows {rows}")


def expect_refusal(call: Callable[[], object], words: str) -> None:
    """Raises unless `call` is refused by a `ValueError` that holds `words`.

    Raises:
        CheckError: it is not, or in other words.
    """
    try:
        call()
    except ValueError as error:
        expect(words in str(error), f"a ValueError that says {words!r}", came=error)
    else:
        raise CheckError(f"expected a ValueError that says {words!r}; came a result")


def find_difference(first: object, second: object, place: str = "") -> str | None:
    """The first place where nested dicts, sequences, tensors and numbers differ bit by bit, or None.

    Args:
        first: a container, such as a state dict.
        second: likewise; NaN equals NaN where both are floats.
        place: of these two in the whole.
    """
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return _tensor_difference(first, second, place)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return _mapping_difference(cast("_Named", first), cast("_Named", second), place)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return _sequence_difference(cast("Sequence[object]", first), cast("Sequence[object]", second), place)
    return _plain_difference(first, second, place)


def _mapping_difference(first: _Named, second: _Named, place: str) -> str | None:
    if first.keys() != second.keys():
        return f"{place or 'the value'} has the keys {listed(map(str, first))} and {listed(map(str, second))}"
    return _first(find_difference(first[key], second[key], f"{place}.{key}") for key in first)


def _sequence_difference(first: Sequence[object], second: Sequence[object], place: str) -> str | None:
    if len(first) != len(second):
        return f"{place or 'the value'} has {len(first)} and {len(second)} items"
    pairs = enumerate(zip(first, second, strict=True))
    return _first(find_difference(a, b, f"{place}[{index}]") for index, (a, b) in pairs)


def _plain_difference(first: Any, second: Any, place: str) -> str | None:
    both_nan = all(isinstance(value, float) and math.isnan(value) for value in (first, second))
    return None if both_nan or first == second else f"{place or 'the value'} is {first!r} and {second!r}"


def _tensor_difference(first: Tensor, second: Tensor, place: str) -> str | None:
    name = place or "the value"
    if first.shape != second.shape or first.dtype != second.dtype:
        return f"{name} is {list(first.shape)} {first.dtype} and {list(second.shape)} {second.dtype}"
    if torch.equal(first, second):
        return None
    differing = int((first != second).sum())
    return f"{name} differs in {differing} of {first.numel()} entries"


def _first(differences: Iterator[str | None]) -> str | None:
    return next((difference for difference in differences if difference is not None), None)


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What is checked, for messages.

    Attributes:
        kind: "learner", "planner" and so on.
        name: of the subject.
    """

    kind: str
    name: str


def run_checks(checks: Checks[S], case: S, subject: Subject, only: Sequence[str] | None) -> None:
    """Runs the checks called `only`, or all, one after the other.

    Args:
        checks: by name.
        case: what each is given.
        subject: for messages.
        only: names; None for all.

    Raises:
        CheckError: one failed; the message names the check and the subject.
        ConfigError: there is no check of that name.
    """
    for name in checks if only is None else only:
        if name not in checks:
            hint = f"{suggest(name, checks)}Legal names: {listed(checks)}."
            raise ConfigError(f"Unknown check {name!r} of a {subject.kind}. {hint}")
        try:
            with _global_generator_is_untouched():
                checks[name](case)
        except CheckError as error:
            raise CheckError(f"{subject.kind} {subject.name!r}, {name}: {error}") from error
        except Exception as error:
            error.add_note(f"In the check {name} of the {subject.kind} {subject.name!r}.")
            raise


@contextlib.contextmanager
def _global_generator_is_untouched() -> Generator[None]:
    """Draws come from the generators that are handed in: torch's own is no part of a run's seed."""
    before = torch.get_rng_state()
    yield
    expect(
        torch.equal(before, torch.get_rng_state()),
        "all random numbers to be drawn from the generators that are handed in",
        came="draws from torch's global generator",
    )
