"""Annotations are checked at run time where a call is new, not in each turn of a training loop.

`--jaxtyping-packages` decorates every function of the package with `jaxtyping.jaxtyped`, and its check costs
about as much as an update of a small network. A call with arguments of the types and shapes of earlier calls
shows nothing that those did not, so each test checks the first calls of a kind and lets the others pass.
"""

import dataclasses
import functools
import inspect
import random
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Any

import jaxtyping
import numpy as np
import torch

CHECKS = 3
"""Calls of each kind that are checked; several, since results may depend on more than the arguments."""

SHAPED = {torch.Tensor, torch.nn.Parameter, np.ndarray}

_full_check = jaxtyping.jaxtyped
_checked: defaultdict[Hashable, int] = defaultdict(int)


def kind_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """What of a call annotations can speak of: types, shapes, dtypes, the choice that a string makes."""
    kind: list[Hashable] = [function, *kwargs]
    for value in (*args, *kwargs.values()):
        type_of = type(value)
        if type_of in SHAPED:
            kind += type_of, value.shape, value.dtype
        elif type_of is str:
            kind.append(value)
        elif type_of is tuple:
            kind.append(kind_of(function, value, {}))
        else:
            kind.append(type_of)
    return tuple(kind)


def check_new_calls(function: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
    """The function, with its annotations checked in the first calls of each kind."""
    if function.__annotations__ in ({}, {"return": None}):
        return function
    check: Callable[..., Any] | None = None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal check
        kind = kind_of(function, args, kwargs)
        if _checked[kind] >= CHECKS:
            return function(*args, **kwargs)
        if check is None:
            check = _full_check(function, typechecker=typechecker)
        # beartype draws which items of a container it looks at; a test that watches Python's generator,
        # as hypothesis does while it makes examples, must not see that.
        state = random.getstate()
        try:
            result = check(*args, **kwargs)
        finally:
            random.setstate(state)
        _checked[kind] += 1
        return result

    return call


def jaxtyped(thing: Any = None, *, typechecker: Any = None) -> Any:
    """Stands in for `jaxtyping.jaxtyped` where its import hook decorates: functions, and dataclasses."""
    if thing is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isfunction(thing):
        return check_new_calls(thing, typechecker)
    if dataclasses.is_dataclass(thing) and inspect.isfunction(vars(thing).get("__init__")):
        thing.__init__ = check_new_calls(thing.__init__, typechecker)
    return thing


def forget() -> None:
    """Every test checks on its own."""
    _checked.clear()


def install() -> None:
    """From here on, what is imported is checked in this way."""
    jaxtyping.jaxtyped = jaxtyped
