"""Policy files that hold none, or one that nobody could have trained."""

import copy
import functools
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from mbrl.core.types import SpaceSpec
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.generative.bcq import BCQPolicy, BCQSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.run.policies import save_policy
from tests.hostile.case import PLACE, Case

PENDULUM: Final = SpaceSpec(3, 1, (-2.0,), (2.0,))
EVALUATE: Final = ("evaluate", PLACE, "--episodes", "1", "--runs", "OUT")
EXPORT: Final = ("export", PLACE, "--out", "OUT.safetensors")


@functools.cache
def sound(kind: str = "tanh_gaussian") -> tuple[str, bytes]:
    """Header and bytes of a policy that can be used."""
    normaliser, generator = Normaliser.identity(3), torch.Generator().manual_seed(0)
    if kind == "bcq":
        sizes: dict[str, Any] = {"hidden": (8,), "vae_hidden": (8,), "latent_dim": 2}
        policy: Any = BCQPolicy(
            BCQSpec("bcq", PENDULUM, **sizes, perturbation=0.1, candidates=4), normaliser, generator
        )
    else:
        policy = build_actor(ActorSpec(kind, PENDULUM, (8,), components=2), normaliser, generator)  # pyright: ignore[reportArgumentType]
    facts = {"task": "pendulum", "algorithm": "bc", "seed": 0, "dataset": None, "updates": 3}
    with tempfile.TemporaryDirectory() as folder:
        content = save_policy(Path(folder) / "p.safetensors", policy, facts).read_bytes()
    length = int.from_bytes(content[:8], "little")
    return content[8 : 8 + length].decode(), content[8 + length :]


def packed(header: str | bytes, body: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a file with any header."""
    data = header.encode() if isinstance(header, str) else header
    return (len(data) if length is None else length).to_bytes(8, "little") + data + body


def raw(
    name: str, content: Callable[[], bytes], words: str = "", command: tuple[str, ...] = EVALUATE
) -> Case:
    """A file of these bytes."""

    def make(folder: Path) -> Path:
        path = folder / "p.safetensors"
        path.write_bytes(content())
        return path

    return Case(f"policy: {name}", make, command, words)


def told(
    name: str,
    words: str,
    change: Callable[[dict[str, Any]], object],
    *,
    kind: str = "tanh_gaussian",
    command: tuple[str, ...] = EVALUATE,
) -> Case:
    """A policy whose own entry of the header was changed."""

    def content() -> bytes:
        header, body = sound(kind)
        entries = json.loads(header)
        own = json.loads(entries["__metadata__"]["mbrl"])
        change(own)
        entries["__metadata__"]["mbrl"] = json.dumps(own)
        return packed(json.dumps(entries), body)

    return raw(name, content, words, command)


def actor(
    name: str,
    words: str,
    *,
    kind: str = "tanh_gaussian",
    space: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Case:
    """A policy whose network is described otherwise."""

    def change(own: dict[str, Any]) -> None:
        own["actor"] |= changes
        if space is not None:
            own["actor"]["space"] |= space

    return told(name, words, change, kind=kind)


def fact(name: str, words: str, **changes: Any) -> Case:
    """A policy that says something else of itself."""
    return told(name, words, lambda own: own["facts"].update(changes))


def tensors(
    name: str,
    words: str,
    change: Callable[[dict[str, Any]], object],
    *,
    body: Callable[[bytes], bytes] = lambda b: b,
) -> Case:
    """A policy whose claims about its tensors, or their bytes, were changed."""

    def content() -> bytes:
        header, rest = sound()
        entries = json.loads(header)
        change(entries)
        return packed(json.dumps(entries), body(rest))

    return raw(name, content, words)


def numbers(name: str, words: str, tensor: str, value: float) -> Case:
    """A policy with one other number in a tensor."""

    def content() -> bytes:
        header, rest = sound()
        start = json.loads(header)[tensor]["data_offsets"][0]
        number = torch.tensor([value]).numpy().tobytes()
        return packed(header, rest[:start] + number + rest[start + 4 :])

    return raw(name, content, words)


def put(key: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Changes the claim about one tensor."""
    return lambda entries: entries[key].update(changes)


def rename(entries: dict[str, Any]) -> None:
    entries["net.other"] = entries.pop("net.flat")


def alias(entries: dict[str, Any]) -> None:
    entries["net.more"] = copy.deepcopy(entries["net.flat"])


def file_cases() -> tuple[Case, ...]:
    """Bytes that are no safetensors file of this package."""
    return (
        raw("an empty file", lambda: b"", "damaged"),
        raw("text", lambda: b"hello, world", "damaged"),
        raw("a pickle", lambda: b"\x80\x04cos\nsystem\n.", "damaged"),
        raw(
            "a header as long as the address space", lambda: packed("{}", length=2**64 - 1), "claims a header"
        ),
        raw("a header longer than the file", lambda: packed("{}", length=100), "claims a header"),
        raw("a header of half a file", lambda: packed(sound()[0], length=40), "damaged"),
        raw("a header that is no JSON", lambda: packed("{x"), "damaged"),
        raw("a header that is no text", lambda: packed(b"\xff\xfe\x00\x01"), "damaged"),
        raw("a header that is a list", lambda: packed("[]"), "not a json object"),
        raw("a header of brackets", lambda: packed("[" * 200_000), "damaged"),
        raw("no metadata", lambda: packed("{}"), "no entry 'mbrl'"),
        raw("metadata that is a list", lambda: packed('{"__metadata__": []}'), "no entry 'mbrl'"),
        raw("an entry that is a number", lambda: packed('{"__metadata__": {"mbrl": 3}}'), "no entry 'mbrl'"),
        raw("an entry that is no JSON", lambda: packed('{"__metadata__": {"mbrl": "x"}}'), "damaged"),
        raw(
            "an entry that is a list",
            lambda: packed('{"__metadata__": {"mbrl": "[1]"}}'),
            "not a json object",
        ),
        raw(
            "an entry of brackets",
            lambda: packed(json.dumps({"__metadata__": {"mbrl": "[" * 100_000}})),
            "damaged",
        ),
        raw(
            "an entry 500 deep",
            lambda: packed(json.dumps({"__metadata__": {"mbrl": '{"a":' * 500 + "1" + "}" * 500}})),
            "deeper",
        ),
        raw("half a policy", lambda: packed(*sound())[:-100], "claims"),
        raw("a policy without its last byte", lambda: packed(*sound())[:-1], "claims"),
        raw("more bytes than its tensors", lambda: packed(*sound()) + b"xxxx", "damaged"),
        raw("half a policy, exported", lambda: packed(*sound())[:-100], "claims", EXPORT),
    )


def tensor_cases() -> tuple[Case, ...]:
    """Tensors that are not there, or not what is needed."""
    return (
        tensors("a tensor of 218 TiB", "claims", put("net.flat", shape=[60, 10**12])),
        tensors("a tensor of 2^80 numbers", "no type, shape or place", put("net.flat", shape=[2**80])),
        tensors("sizes that overflow to what is there", "claims", put("net.flat", shape=[2**62, 2**62, 4])),
        tensors("a negative size", "no type, shape or place", put("net.flat", shape=[1, -5])),
        tensors("a size in words", "no type, shape or place", put("net.flat", shape=["1", "49"])),
        tensors("a size that is true", "no type, shape or place", put("net.flat", shape=[True, 49])),
        tensors("a shape that is a number", "no type, shape or place", put("net.flat", shape=49)),
        tensors("a thousand dimensions", "no type, shape or place", put("net.flat", shape=[1] * 1000)),
        tensors("another type", "no type, shape or place", put("net.flat", dtype="F16")),
        tensors("an unknown type", "no type, shape or place", put("net.flat", dtype={"a": 1})),
        tensors("places beyond the file", "claims", put("net.flat", data_offsets=[2**40, 2**40 + 200])),
        tensors("swapped places", "claims", put("net.flat", data_offsets=[200, 0])),
        tensors("a tensor that is a number", "no type, shape or place", lambda e: e.update({"net.flat": 3})),
        tensors("two tensors in one place", "damaged", alias),
        tensors("a renamed tensor", "missing", rename),
        tensors("weights of another shape", "the header describes", put("net.flat", shape=[2, 25])),
        numbers("a NaN among the weights", "nan or an infinity", "net.flat", float("nan")),
        numbers("an infinite mean", "nan or an infinity", "normaliser.mean", float("inf")),
        numbers("a deviation of zero", "not positive", "normaliser.std", 0.0),
        numbers("a negative deviation", "not positive", "normaliser.std", -1.0),
    )


def header_cases() -> tuple[Case, ...]:
    """Networks and facts that contradict their file, or make no sense."""
    return (
        told("no version", "format version none", lambda own: own.pop("format_version")),
        told("version 2", "format version 2", lambda own: own.update(format_version=2)),
        told("a version in words", "format version 1", lambda own: own.update(format_version="1")),
        told("a version that is true", "format version true", lambda own: own.update(format_version=True)),
        told("a version that is a list", "format version [1]", lambda own: own.update(format_version=[1])),
        told("no actor", "has no 'actor'", lambda own: own.pop("actor")),
        told("an actor that is a list", "field actor", lambda own: own.update(actor=[])),
        told("no facts", "has no 'facts'", lambda own: own.pop("facts")),
        told("facts that are a number", "field facts", lambda own: own.update(facts=3)),
        told(
            "facts 200 deep", "deeper", lambda own: own["facts"].update(x=json.loads("[" * 200 + "]" * 200))
        ),
        told("an unknown kind", "expected tags", lambda own: own["actor"].update(kind="evil")),
        told("a kind that is a list", "actor", lambda own: own["actor"].update(kind=["bcq"])),
        told("no space", "space", lambda own: own["actor"].pop("space")),
        actor("a setting that there is not", "evil", evil=1),
        actor("1e9 observations", "100,000", space={"obs_dim": 10**9}),
        actor("two observations", "the header describes", space={"obs_dim": 2}),
        actor("-1 observations", "-1", space={"obs_dim": -1}),
        actor("observations in words", "'3'", space={"obs_dim": "3"}),
        actor("3.5 observations", "3.5", space={"obs_dim": 3.5}),
        actor("observations that are true", "true", space={"obs_dim": True}),
        actor("no actions", "0", space={"act_dim": 0, "act_low": [], "act_high": []}),
        actor("swapped bounds", "must lie below", space={"act_low": [2.0], "act_high": [-2.0]}),
        actor("bounds in words", "act_low", space={"act_low": ["-2"]}),
        actor("a bound that is NaN", "finite", space={"act_low": [float("nan")]}),
        actor("an infinite bound", "finite", space={"act_high": [float("inf")]}),
        actor("too few bounds", "bounds have", space={"act_low": []}),
        actor("bounds that are a number", "act_low", space={"act_low": -2}),
        actor("a layer of 10^12", "4096", hidden=[10**12]),
        actor("twelve layers of 4096", "the header describes", hidden=[4096] * 12),
        actor("a thousand layers", "12", hidden=[8] * 1000),
        actor("a negative layer", "-8", hidden=[-8]),
        actor("a layer in words", "'8'", hidden=["8"]),
        actor("layers that are a number", "hidden", hidden=8),
        actor("an unknown activation", "activation", activation="exec"),
        actor("layer_norm in words", "layer_norm", layer_norm="yes"),
        actor("a LayerNorm that has no weights", "the header describes", layer_norm=True),
        actor("one limit of the deviation", "log_std_bounds", log_std_bounds=[-5.0]),
        actor("a limit that is NaN", "log_std_bounds", log_std_bounds=[float("nan"), 2.0]),
        actor("10^9 components", "1000", kind="mixture", components=10**9),
        actor("another number of components", "the header describes", kind="mixture", components=3),
        actor("10^9 candidates", "10000", kind="bcq", candidates=10**9),
        actor("latents of size -1", "latent_dim", kind="bcq", latent_dim=-1),
        actor("a perturbation that is NaN", "perturbation", kind="bcq", perturbation=float("nan")),
        fact("a task that is a file", "task files and modules are not taken from data", task="evil.yaml"),
        fact("a task in another folder", "not taken from data", task="../../evil.yaml"),
        fact("a task that is a module", "not taken from data", task="evil:Env-v0"),
        fact("an unknown task", "none of the shipped", task="pendulums"),
        fact("a task that is a number", "task", task=3),
        fact("a task of 5,000 characters", "200 characters", task="p" * 5000),
        fact("another task of a shipped name", "means another one", task_hash="0" * 32),
        fact("no task", "mbrl ope", task=None),
        fact("an algorithm of 5,000 characters", "200 characters", algorithm="x" * 5000),
        fact("an algorithm with a NUL", "pattern", algorithm="b\0c"),
        fact("an algorithm that moves the cursor", "pattern", algorithm="\x1b[2J"),
        fact("an algorithm that is a list", "algorithm", algorithm=["bc"]),
        fact("a seed in words", "seed", seed="0"),
        fact("a negative seed", "seed", seed=-1),
        fact("a seed of 100 digits", "seed", seed=10**100),
        fact("a seed that is NaN", "seed", seed=float("nan")),
        fact("half an update", "updates", updates=0.5),
    )


def place(name: str, make: Callable[[Path], object], words: str, *, at: str = "p.safetensors") -> Case:
    """A path that is no file, or none that may be read."""

    def prepare(folder: Path) -> Path:
        path = folder / at
        make(path)
        return path

    return Case(f"policy: {name}", prepare, EVALUATE, words)


def place_cases() -> tuple[Case, ...]:
    """Paths that hold no policy."""
    return (
        place("nothing", lambda path: None, "there is no such file"),
        place("an empty folder", Path.mkdir, "not a run folder"),
        place("a link to itself", lambda path: path.symlink_to(path), "there is no such file"),
        place("a pipe", os.mkfifo, "no plain file"),
        place("a name of 5,000 characters", lambda path: None, "name too long", at="n" * 5000),
        place("a file as a folder", lambda path: path.parent.write_bytes(b""), "", at="file/p.safetensors"),
    )


def cases() -> tuple[Case, ...]:
    """The table."""
    return (*file_cases(), *tensor_cases(), *header_cases(), *place_cases())
