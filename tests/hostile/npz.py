"""NumPy archives that lie or are damaged."""

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.hostile.case import Case

EPISODES: Final = 4
STEPS: Final = 30
ROWS: Final = EPISODES * STEPS


def sound() -> dict[str, Any]:
    """Four episodes of 30 steps: a point that drifts by its action."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (EPISODES, STEPS, 1))
    path = np.concatenate([np.zeros((EPISODES, 1, 1)), np.cumsum(0.1 * actions, axis=1)], axis=1)
    return {
        "lengths": np.full(EPISODES, STEPS),
        "observations": np.concatenate([path, -path], axis=2).reshape(-1, 2),
        "actions": actions.reshape(-1, 1),
        "rewards": -np.square(path[:, :-1]).reshape(-1),
        "terminated": np.zeros(EPISODES, dtype=bool),
        "truncated": np.ones(EPISODES, dtype=bool),
        "act_low": np.array([-1.0]),
        "act_high": np.array([1.0]),
    }


def write(path: Path, arrays: dict[str, Any], **options: Any) -> Path:
    """Writes the arrays that are not None."""
    np.savez(path, **options, **{key: values for key, values in arrays.items() if values is not None})
    return path


def case(name: str, words: str = "", /, **changes: Any) -> Case:
    """The sound archive with some keys replaced, None removing one."""
    return Case(f"npz: {name}", lambda folder: write(folder / "log.npz", sound() | changes), words=words)


def info_case(name: str, words: str = "", /, **fields: Any) -> Case:
    """The sound archive with a description."""
    return case(name, words, info=np.array(json.dumps({"name": "log"} | fields)))


def edited(name: str, edit: Callable[[bytes], bytes], words: str = "") -> Case:
    """The sound archive with its bytes changed."""

    def make(folder: Path) -> Path:
        path = write(folder / "log.npz", sound())
        path.write_bytes(edit(path.read_bytes()))
        return path

    return Case(f"npz: {name}", make, words=words)


def member(name: str, content: bytes, words: str = "", key: str = "observations") -> Case:
    """The sound archive with the bytes of one array replaced."""

    def make(folder: Path) -> Path:
        source = write(folder / "sound.npz", sound())
        path = folder / "log.npz"
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
            for entry in old.namelist():
                new.writestr(entry, content if entry == f"{key}.npy" else old.read(entry))
        source.unlink()
        return path

    return Case(f"npz: {name}", make, words=words)


def header(text: str, version: tuple[int, int] = (1, 0), data: bytes = b"\0" * 64) -> bytes:
    """An array file with any header."""
    raw = text.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(raw))
    return b"\x93NUMPY" + bytes(version) + size + raw + data


def claim(shape: str, dtype: str = "'<f8'") -> bytes:
    """An array file that claims a shape."""
    return header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}")


def inflating(folder: Path) -> Path:
    """A small archive whose directory and header promise 4 GiB, as a compressed array of zeros does."""
    path = folder / "log.npz"
    shape = (2**32 - 256) // 8
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", claim(f"({shape},)"))
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, entry + 24, 2**32 - 2)  # uncompressed size in the central directory
    path.write_bytes(content)
    return path


def twice(folder: Path) -> Path:
    path = write(folder / "log.npz", sound())
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library knows that this is odd
        archive.writestr("rewards.npy", stream.getvalue())
    return path


def encrypt(content: bytes) -> bytes:
    changed = bytearray(content)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.index(signature) + offset
        changed[place] |= 1
    return bytes(changed)


def flags(value: Any, dtype: Any = None) -> np.ndarray:
    """Flags of the episodes, the third of which has an odd value."""
    return np.array([0, 0, value, 0] if dtype is None else [value] * EPISODES, dtype=dtype)


def with_value(key: str, value: Any) -> np.ndarray:
    values = sound()[key].copy()
    values[17] = value
    return values


def cases() -> tuple[Case, ...]:
    """The table."""
    lengths = sound()["lengths"]
    deep = "[" * 50_000 + "]" * 50_000
    return (
        edited("an empty file", lambda _: b"", "no format reads it"),
        edited("text", lambda _: b"t,x,u\n0,1,2\n", "no format reads it"),
        edited("a signature alone", lambda content: content[:4], "truncated or damaged"),
        edited("a tenth", lambda content: content[: len(content) // 10], "truncated or damaged"),
        edited("a half", lambda content: content[: len(content) // 2], "truncated or damaged"),
        edited("all but the last byte", lambda content: content[:-1], "truncated or damaged"),
        edited("noise in the middle", lambda c: c[:900] + bytes(range(256)) * 4 + c[1924:]),
        edited("noise at the end", lambda c: c[:-200] + bytes(200)),
        edited("encrypted", encrypt, "truncated or damaged"),
        Case("npz: no arrays", lambda folder: write(folder / "log.npz", {}), words="no format reads it"),
        Case("npz: an array twice", twice, words="twice"),
        Case("npz: 4 GiB promised", inflating, words="times the size of the file"),
        member("218 TiB claimed", claim("(30, 10**12)".replace("10**12", str(10**12))), "bytes"),
        member("a negative shape", claim("(-5, 2)")),
        member("a shape of text", claim("('a',)")),
        member("a shape of 10**30", claim(f"({10**30},)"), "bytes"),
        member("a header that is no dictionary", header("[1, 2]")),
        member("a header of brackets", header("(" * 9000)),
        member("a header of code", header("__import__('os').system('echo')")),
        member("a header of 1 MB", header("{" + " " * 1_000_000 + "}", (2, 0))),
        member("an unknown version", header("{}", (9, 9)), "format"),
        member("an unknown dtype", claim("(3,)", "'<z9'")),
        member("no array at all", b"hello"),
        member("objects", claim("(3,)", "'|O'"), "dtype object"),
        member("a structured array", claim("(120,)", "[('a', '<f8')]"), ""),
        *(case(f"without {key}", "missing", **{key: None}) for key in list(sound())[:6]),
        case("negative lengths", "-3 steps", lengths=np.array([-3, 63, 30, 30])),
        case("huge lengths", "steps", lengths=np.array([2**63 - 1, 30, 30, 30])),
        case("fractional lengths", "one integer", lengths=lengths + 0.5),
        case("lengths of two axes", "one integer", lengths=lengths[:, None]),
        case("lengths of text", "one integer", lengths=np.array(["30"] * 4)),
        case("no lengths", lengths=np.array([], dtype=np.int64)),
        case("lengths that do not add up", "rows where", lengths=lengths + 1),
        case("a million empty episodes", "without steps", lengths=np.zeros(10**6, dtype=np.int8)),
        case("an empty episode", "no steps", lengths=np.array([60, 0, 30, 30])),
        case("flags of text", "neither 0 nor 1", terminated=flags("False", "U5")),
        case("flags of text, truncated", "neither 0 nor 1", truncated=flags("True", "U5")),
        case("a flag NaN", "neither 0 nor 1", terminated=flags(np.nan)),
        case("a flag 0.3", "neither 0 nor 1", terminated=flags(0.3)),
        case("a flag 2", "neither 0 nor 1", terminated=flags(2)),
        case("a flag -1", "neither 0 nor 1", truncated=flags(-1)),
        case("flags of bytes", "neither 0 nor 1", terminated=flags(b"0", "S1")),
        case("a flag for each step", "120 rows", terminated=np.zeros(ROWS)),
        case("both flags", "overlap=truncated fits", terminated=np.ones(EPISODES, dtype=bool)),
        case("a known successor of text", "neither 0 nor 1", is_final_observation_known=flags("False", "U5")),
        case("an unknown successor of a cut", "bootstrap", is_final_observation_known=flags(0)),
        case("bounds of text", "not numbers", act_low=np.array(["low"])),
        case("bounds that are swapped", "empty", act_low=np.array([1.0]), act_high=np.array([-1.0])),
        case("bounds that are equal", "empty", act_low=np.array([1.0])),
        case("a bound NaN", "nan", act_high=np.array([np.nan])),
        case("too many bounds", "3 action bounds", act_low=np.zeros(3), act_high=np.ones(3)),
        case("complex bounds", "not numbers", act_low=np.array([1j])),
        case("a million bounds", "too many", act_low=np.zeros(10**6)),
        case("an observation NaN", "row 17", observations=with_value("observations", np.nan)),
        case("an observation infinite", "row 17", observations=with_value("observations", np.inf)),
        case("an observation beyond float32", "float32", observations=with_value("observations", 1e300)),
        case("observations of text", "numeric", observations=sound()["observations"].astype("U20")),
        case("complex observations", "numeric", observations=sound()["observations"] + 0j),
        case("observations of dates", "numeric", observations=np.zeros((124, 2), "datetime64[s]")),
        case("observations without columns", "vector", observations=np.zeros((124, 0))),
        case("observations of one number", "no rows", observations=np.array(1.0)),
        case("images", "images", observations=np.zeros((124, 2, 16, 16))),
        case("images of bytes", "images", observations=np.zeros((124, 8, 8), np.uint8)),
        case("an offset of 1e9", "subtract a constant", observations=sound()["observations"] + 1e9),
        case("an action NaN", "row 17", actions=with_value("actions", np.nan)),
        case("an action beyond its bounds", "beyond", actions=with_value("actions", 7.0)),
        case("actions without columns", "vector", actions=np.zeros((ROWS, 0))),
        case("a reward NaN", "row 17", rewards=with_value("rewards", np.nan)),
        case("rewards of text", "numeric", rewards=np.array(["1"] * ROWS)),
        case("rewards of two columns", "axes", rewards=np.zeros((ROWS, 2))),
        case("time that runs backwards", "time goes", timestamps=np.arange(124.0)[::-1].copy()),
        case("time NaN", "time goes", timestamps=np.full(124, np.nan)),
        case("time of text", "numeric", timestamps=np.array(["1"] * 124)),
        case("time stamps of other length", "rows where", timestamps=np.arange(7.0)),
        case("a log-density NaN", "behaviour=ignore", behaviour_log_prob=with_value("rewards", np.nan)),
        case("a log-density of 1e6", "behaviour=ignore", behaviour_log_prob=np.full(ROWS, 1e6)),
        case("half of the log-densities", "rows where", behaviour_log_prob=np.zeros(ROWS // 2)),
        case("infos of other length", "rows where", **{"infos/x": np.zeros(7)}),
        case("a description of brackets", "info", info=np.array("[" * 50_000)),
        case("a description of nested lists", "info", info=np.array(deep)),
        case("a description of 2 MB", "characters", info=np.array("x" * 2_000_000)),
        case("a description that is a number", "info", info=np.array(7)),
        case("two descriptions", "info", info=np.array(["{}", "{}"])),
        case("a description without a name", "info", info=np.array("{}")),
        info_case("a task that is a number", "task", task=5),
        info_case("names that are numbers", "obs_names", obs_names=[1, 2]),
        info_case("too few names", "1 names", obs_names=["x"]),
        info_case("names of 5,000 characters", "5,000 characters", act_names=["a" * 5000]),
        info_case("a name of 5,000 characters", "5,000 characters", name="n" * 5000),
        info_case("an empty name", "empty", name=""),
        info_case("a name of two lines", "cannot be printed", name="a\nb"),
        info_case("a negative time step", "-1", time_step=-1),
        info_case("reference scores upside down", "ref_min", ref_min_score=10, ref_max_score=-10),
        info_case("a negative time limit", "-3", max_episode_steps=-3),
        info_case("a time limit of 10**30", "", max_episode_steps=10**30),
    )
