"""A stand-in for a card: tensors that say they lie on another device, and whose numbers are on the host.

Nothing of it needs a GPU. Operations on such tensors are carried out on the host, so code runs to its end
with the values that it would have on a CPU; but tensors of both devices never meet in one operation, as on a
card, and whatever makes the host wait for a card is noted. So a test sees what is wrong with code for a GPU
where there is none, and that its results are those of a CPU, bit for bit.

PyTorch's own `FakeTensorMode` does not do: without CUDA in the build there is no autograd on fake `cuda`
tensors, and a fake tensor has no value that a refresh or a planner could go on with.
"""

import contextlib
import importlib
import warnings
from collections.abc import Generator
from typing import Any, Final, cast
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from mbrl.testing.checks import expect

CARD: Final = torch.device("meta")
"""The device of stand-ins: every build of PyTorch has it, with autograd, and nothing here computes on it."""

_READS: Final = (
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "_unique2",
    "bincount",
)
_MASKED: Final = ("index", "index_put", "index_put_", "_index_put_impl_")
_ALIASED: Final[Any] = vars(_python_dispatch)["return_and_correct_aliasing"]
_HOST: Final = torch.device("cpu")


class CardTensor(Tensor):
    """A tensor on the stand-in; `on_host` is the one on the host that has its numbers."""

    on_host: Tensor

    @staticmethod
    def __new__(cls: Any, real: Tensor) -> Any:
        """A tensor of the same sizes and strides, without memory of its own."""
        return cast(Any, Tensor)._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=CARD,
        )

    def __init__(self, real: Tensor) -> None:
        self.on_host = real

    __torch_function__ = cast(Any, torch)._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Outside of a `StandIn`: as within one, and nobody notes it."""
        del types
        return _carry_out(func, args, kwargs or {}, [])

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        """Its numbers, and where they would lie."""
        del tensor_contents
        return f"CardTensor({self.on_host!r})"


class _CardGenerator(torch.Generator):
    """A generator that says it is the card's, and draws what the host's of the same seed does."""

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The stand-in."""
        return CARD


class StandIn(TorchDispatchMode):
    """While it is entered, tensors can be made on `device`.

    Attributes:
        device: of the stand-in; `RngStreams` and `on_device` take it like any other.
        waits: what has made the host wait for the card: numbers read, shapes that depend on values, copies to
            the host.
        uploads: tensors that went from the host to the card.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device = CARD
        self.waits: list[str] = []
        self.uploads: list[str] = []
        self._patches = contextlib.ExitStack()

    def generator(self, seed: int = 0) -> torch.Generator:
        """A generator of the stand-in."""
        return _CardGenerator().manual_seed(seed)

    @contextlib.contextmanager
    def unattended(self, what: str) -> Generator[None]:
        """Work that a card can be left alone with, and that a CUDA graph can capture.

        Args:
            what: is done, for the message.

        Raises:
            CheckError: the host waited for the card, or sent a tensor there.
        """
        waits, uploads = len(self.waits), len(self.uploads)
        yield
        for seen, verb in ((self.waits[waits:], "wait for a card"), (self.uploads[uploads:], "upload")):
            expect(not seen, f"{what} that do not {verb}", came=", ".join(seen))

    def __enter__(self) -> "StandIn":
        for patch in (
            _generators_of_the_card,
            _numbers_leave_by_the_host,
            _literals_are_made_on_the_host,
            _adam_is_fused_on_the_card,
            _inference_goes_without_gradients,
            _copies_are_no_surprise,
        ):
            self._patches.enter_context(patch())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carries an operation out, and notes what it costs."""
        del types
        return _carry_out(func, args, kwargs or {}, self.waits, self.uploads)


def _carry_out(
    func: Any, args: Any, kwargs: dict[str, Any], waits: list[str], uploads: list[str] | None = None
) -> Any:
    """Runs an operation on the host; its result is on the card where its inputs are.

    Raises:
        RuntimeError: tensors of both devices meet.
    """
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    cards = [tensor for tensor in tensors if isinstance(tensor, CardTensor)]
    hosts = [tensor for tensor in tensors if not isinstance(tensor, CardTensor)]
    name, target = func.overloadpacket.__name__, kwargs.get("device")
    is_for_card = target is not None and torch.device(target) == CARD
    if not cards and not is_for_card:
        return func(*args, **kwargs)
    is_copy = name in {"_to_copy", "copy_"}
    if is_copy:
        _note_copy(name, args, target, waits, uploads)
    elif cards and any(host.ndim > 0 or name in _MASKED for host in hosts):
        sizes = [(str(t.device), list(t.shape)) for t in tensors]
        raise RuntimeError(f"{name} of tensors on different devices: {sizes}")
    elif name in _READS or (name in _MASKED and _depends_on_a_mask(args)):
        waits.append(name)
    inner_args, inner = tree_map_only(CardTensor, lambda tensor: tensor.on_host, (args, dict(kwargs)))
    if "device" in inner and inner["device"] is not None:
        inner["device"] = _HOST
    result = func(*inner_args, **inner)
    if name == "_to_copy" and target is not None and not is_for_card:
        return result
    if name == "copy_" and not isinstance(args[0], CardTensor):
        return args[0]
    result = tree_map_only(Tensor, CardTensor, result)
    return _ALIASED(func, args, kwargs, result) if cards else result


def _note_copy(name: str, args: Any, target: Any, waits: list[str], uploads: list[str] | None) -> None:
    source = args[1] if name == "copy_" else args[0]
    place = args[0].device if name == "copy_" else CARD if target is None else torch.device(target)
    if isinstance(source, CardTensor) and place != CARD:
        waits.append("copy to the host")
    if not isinstance(source, CardTensor) and place == CARD and uploads is not None:
        uploads.append(f"{name} {list(source.shape)}")


def _depends_on_a_mask(args: Any) -> bool:
    """Whether rows are picked by flags: how many there are is then known to the card alone."""
    flags = [index for index in args[1] if isinstance(index, Tensor) and index.dtype == torch.bool]
    # One number written to flagged places is a fill, whose shapes are known.
    return bool(flags) and (len(args) < 3 or args[2].numel() > 1)


@contextlib.contextmanager
def _generators_of_the_card() -> Generator[None]:
    """`torch.Generator("card")` is a stand-in as well."""
    make = torch.Generator

    class Both(make):  # pyright: ignore[reportUntypedBaseClass]
        def __new__(cls, device: Any = _HOST) -> Any:
            return _CardGenerator() if torch.device(device) == CARD else make(device)

    with mock.patch.object(torch, "Generator", Both):
        yield


@contextlib.contextmanager
def _numbers_leave_by_the_host() -> Generator[None]:
    """`tolist` passes the dispatcher by; `numpy` is what a tensor on a card does not have."""
    tolist, numpy = cast(Any, Tensor.tolist), cast(Any, Tensor.numpy)

    def leave(tensor: Tensor) -> Any:
        return tolist(tensor.cpu()) if isinstance(tensor, CardTensor) else tolist(tensor)

    def refuse(tensor: Tensor, **options: Any) -> Any:
        if isinstance(tensor, CardTensor):
            raise TypeError("a tensor on a card has no numpy(): copy it to the host first")
        return numpy(tensor, **options)

    with mock.patch.object(Tensor, "tolist", leave), mock.patch.object(Tensor, "numpy", refuse):
        yield


@contextlib.contextmanager
def _literals_are_made_on_the_host() -> Generator[None]:
    """`torch.tensor(values, device=...)` is made on the host and then moved, which is seen."""
    tensor, as_tensor, new_tensor = cast(Any, (torch.tensor, torch.as_tensor, Tensor.new_tensor))

    def moved(make: Any) -> Any:
        def made(values: Any, *, device: Any = None, **options: Any) -> Tensor:
            if device is None or torch.device(device) != CARD:
                return make(values, device=device, **options)
            return make(values, **options).to(CARD)

        return made

    def new(like: Tensor, values: Any, **options: Any) -> Tensor:
        if not isinstance(like, CardTensor):
            return new_tensor(like, values, **options)
        return tensor(values, **{"dtype": like.dtype, **options}).to(CARD)

    with (
        mock.patch.object(torch, "tensor", moved(tensor)),
        mock.patch.object(torch, "as_tensor", moved(as_tensor)),
        mock.patch.object(Tensor, "new_tensor", new),
    ):
        yield


@contextlib.contextmanager
def _adam_is_fused_on_the_card() -> Generator[None]:
    """Adam asks by a list of devices whether it may be fused."""
    module, asked = importlib.import_module("torch.optim.optimizer"), "_get_fused_kernels_supported_devices"
    names = [*getattr(module, asked)(), CARD.type]
    with mock.patch.object(module, asked, return_value=names):
        yield


@contextlib.contextmanager
def _inference_goes_without_gradients() -> Generator[None]:
    """Stand-ins have no inference tensors; what `torch.inference_mode` means for values is `no_grad`."""

    def enter(mode: Any) -> None:
        mode._inference_mode_context = torch.no_grad() if mode.mode else contextlib.nullcontext()
        mode._inference_mode_context.__enter__()

    with mock.patch.object(torch.inference_mode, "__enter__", enter):
        yield


@contextlib.contextmanager
def _copies_are_no_surprise() -> Generator[None]:
    """PyTorch warns that copying to its own `meta` device does nothing; to a stand-in it does."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "for .*: copying from a non-meta parameter", UserWarning)
        yield
