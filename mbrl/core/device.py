"""Where tensors live: one name in the config, one check that the machine has it, one way to move things."""

import copy
import functools
import re
import time
import types
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from mbrl.core.errors import ConfigError

T = TypeVar("T")

CPU: Final = torch.device("cpu")

_FORM: Final = re.compile(r"cpu|cuda(:[0-9]{1,2})?")


def check_device_name(name: str) -> str:
    """The name, if it has the form of one; whether this machine has the device is for `find_device` to say.

    Raises:
        ValueError: it is none of `cpu`, `cuda` and `cuda:N`.
    """
    if _FORM.fullmatch(name) is None:
        raise ValueError(f"{name[:100]!r} is no device; legal: cpu, cuda (the first card) or cuda:N")
    return name


def find_device(name: str) -> torch.device:
    """The device of a name, which this machine has; nothing else is ever taken in its place.

    Args:
        name: `cpu`, `cuda` (the first card) or `cuda:N`.

    Raises:
        ConfigError: the name is of another form, torch was built without CUDA, or there is no such card.
    """
    try:
        check_device_name(name)
    except ValueError as error:
        raise ConfigError(f"device: {error}.") from None
    if name == "cpu":
        return CPU
    build, count = f"torch {torch.__version__}", torch.cuda.device_count()
    if torch.version.cuda is None:
        raise ConfigError(
            f"device={name} needs a build of torch with CUDA, and {build} has none. Remedy: install one "
            "(pytorch.org/get-started/locally), or device=cpu."
        )
    if count == 0:
        raise ConfigError(
            f"device={name}: {build} (CUDA {torch.version.cuda}) finds no card here. Remedy: look at what "
            "nvidia-smi and CUDA_VISIBLE_DEVICES say, or device=cpu."
        )
    # A name without a number means the first card, so that a record says which one it was.
    device = torch.device(name if ":" in name else f"{name}:0")
    if device.index >= count:
        raise ConfigError(
            f"device={name}: {build} finds {count} card(s) here, cuda:0 to cuda:{count - 1}. Remedy: one of "
            "these, or device=cpu."
        )
    return device


def describe_device(device: torch.device) -> dict[str, str]:
    """What a record says of a device: its name, and what besides seed and versions its bits depend on."""
    if device.type != "cuda":
        return {"device": str(device)}
    card, cuda = torch.cuda.get_device_name(device), str(torch.version.cuda)
    return {"device": str(device), "card": card, "cuda": cuda}


def clock_on(device: torch.device) -> Callable[[], float]:
    """A clock, seconds, that waits for what a card was given to do: what it tells is what was spent."""
    if device.type != "cuda":
        return time.perf_counter

    def read() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


def on_device(value: T, device: torch.device) -> T:
    """`value` with every tensor on `device`.

    Where all lie there already, `value` itself. Else a copy of all objects that lead to a tensor: what was
    one object stays one, networks keep shared parameters, and the original is left as it is. Optimisers and
    closures are not looked into: states of learners are made on their device and not moved.

    Args:
        value: a tensor, a network, a dataclass or another object of plain attributes, or a container of
            these; anything else stays as it is.
        device: where to.
    """
    mover = _Mover(device)
    return cast(T, mover.move(value)) if mover.is_needed(value) else value


_CLOSED: Final = (
    str, bytes, int, float, complex, type, types.FunctionType, types.ModuleType, np.ndarray,
)  # fmt: skip
"""Kinds that hold no tensor."""

_FOREIGN: Final = ("torch", "numpy", "pydantic")
"""Packages whose objects are not taken apart."""


class _Mover:
    """One walk over an object graph."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._made: dict[int, Any] = {}
        self._kept: list[Any] = []  # an id is one object's only as long as that lives

    def is_needed(self, value: Any) -> bool:
        """Whether a tensor below `value` lies elsewhere."""
        seen, rest = set[int](), [value]
        while rest:
            one = rest.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            self._kept.append(one)
            if isinstance(one, Tensor):
                if one.device != self.device:
                    return True
            elif isinstance(one, nn.Module):
                rest += [*one.parameters(), *one.buffers()]
            else:
                rest += _parts(one).values()
        return False

    def move(self, value: Any) -> Any:
        """A copy with the tensors on the device."""
        number = id(value)
        if number in self._made:
            return self._made[number]
        self._kept.append(value)
        if isinstance(value, Tensor):
            made: Any = value.to(self.device)
        elif isinstance(value, nn.Module):
            made = self._move_module(value)
        elif isinstance(value, types.MethodType):
            made = types.MethodType(value.__func__, self.move(value.__self__))
        elif isinstance(value, functools.partial):
            whole = cast("functools.partial[Any]", value)
            names = {name: self.move(part) for name, part in whole.keywords.items()}
            made = functools.partial(self.move(whole.func), *map(self.move, whole.args), **names)
        elif isinstance(value, tuple):
            made = self._move_tuple(cast("tuple[Any, ...]", value))
        else:
            return self._move_object(value)
        self._made[number] = made
        return made

    def _move_tuple(self, values: tuple[Any, ...]) -> Any:
        moved, kind = [self.move(entry) for entry in values], cast(Any, type(values))
        # A named tuple takes its fields one by one.
        return kind(*moved) if hasattr(values, "_fields") else tuple(moved)

    def _move_object(self, value: Any) -> Any:
        parts = _parts(value)
        if not parts:
            return value
        made: Any = copy.copy(value)
        # Before its parts, which may lead back to it.
        self._made[id(value)] = made
        for name, part in parts.items():
            moved = self.move(part)
            if isinstance(value, list | dict):
                made[name] = moved
            elif moved is not part:
                object.__setattr__(made, name, moved)
        return made

    def _move_module(self, module: nn.Module) -> nn.Module:
        if all(tensor.device == self.device for tensor in (*module.parameters(), *module.buffers())):
            return module
        for buffer in module.buffers():
            self._made[id(buffer)] = buffer.to(self.device)
        for parameter in module.parameters():
            there = nn.Parameter(parameter.detach().to(self.device), parameter.requires_grad)
            self._made.setdefault(id(parameter), there)
        # What is made already is not copied by `deepcopy`.
        return copy.deepcopy(module, dict(self._made))


def _parts(value: Any) -> dict[Any, Any]:
    """What an object holds, by attribute, key or place; nothing of one that holds no tensor."""
    kind = cast(Any, type(value))
    is_foreign = kind.__module__.startswith(_FOREIGN)
    is_settings = hasattr(kind, "__pydantic_fields__")
    if value is None or is_foreign or is_settings or isinstance(value, _CLOSED):
        return {}
    found: dict[Any, Any] = {}
    if isinstance(value, dict):
        found = cast("dict[Any, Any]", value)
    elif isinstance(value, list | tuple):
        found = dict(enumerate(cast("list[Any]", value)))
    elif isinstance(value, types.MethodType):
        found = {"self": value.__self__}
    elif isinstance(value, functools.partial):
        whole = cast("functools.partial[Any]", value)
        found = {"func": whole.func, **dict(enumerate(whole.args)), **whole.keywords}
    elif not isinstance(value, Mapping):
        slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
        held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        found = {**held, **getattr(value, "__dict__", {})}
        found.pop("__weakref__", None)
    return found
