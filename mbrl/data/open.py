"""Opens a dataset by path or id, whatever its format."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Final

from mbrl.core.assets import assets_dir
from mbrl.core.errors import DataError
from mbrl.data.assemble import assemble
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS, Format
from mbrl.data.formats.foreign import foreign_error
from mbrl.data.formats.limits import reading
from mbrl.data.info import MAX_NAME
from mbrl.data.options import LoadOptions, Origin
from mbrl.data.raw import RawLog
from mbrl.data.stacking.choose import apply_history

MINARI_PREFIX: Final = "minari:"
BUNDLED_PREFIX: Final = "bundled:"
DEFAULT_MINARI_ROOT: Final = Path("~/.minari/datasets")


def open_dataset(
    source: str | Path, options: LoadOptions | None = None, *, minari_root: Path | None = None
) -> Dataset:
    """Opens `source`, finding the format by looking into it.

    Args:
        source: a path, `minari:<id>`, `bundled:<name>`, or the bare name of a bundled dataset.
        options: what may be repaired; nothing by default.
        minari_root: folder of Minari's local datasets; `~/.minari/datasets` when None.

    Raises:
        DataError: nothing is there, no format reads it, or its content would make training wrong.
    """
    options = options or LoadOptions()
    dataset = assemble(parse_log(source, options, minari_root=minari_root), options)
    return apply_history(dataclasses.replace(dataset, origin=Origin(str(source), options)), options.history)


def parse_log(
    source: str | Path, options: LoadOptions | None = None, *, minari_root: Path | None = None
) -> RawLog:
    """Reads `source` without checking it: for the doctor, which lists every problem.

    Raises:
        DataError: nothing is there, no format reads it, or the file is damaged.
    """
    path = locate(source, minari_root=minari_root)
    return find_format(path).load(path, options or LoadOptions())


def locate(source: str | Path, *, minari_root: Path | None = None) -> Path:
    """The path that `source` stands for.

    Raises:
        DataError: nothing is there; the message lists the places that were tried.
    """
    text = str(source)
    if text.startswith(MINARI_PREFIX):
        root = (minari_root or DEFAULT_MINARI_ROOT).expanduser()
        candidates = [root / text.removeprefix(MINARI_PREFIX)]
    elif text.startswith(BUNDLED_PREFIX):
        candidates = [bundled_root() / text.removeprefix(BUNDLED_PREFIX)]
    else:
        candidates = [Path(text).expanduser(), bundled_root() / text]
    for candidate in candidates:
        with contextlib.suppress(OSError):  # a name that no file system can hold
            if candidate.exists():
                return candidate
    tried = " and ".join(str(candidate)[:MAX_NAME] for candidate in candidates)
    names = ", ".join(bundled_names()) or "none"
    raise DataError(
        f"no dataset {text[:MAX_NAME]!r}: tried {tried}",
        remedy=f"Give a path, minari:<id> of a downloaded dataset, or a bundled dataset ({names}).",
    )


def find_format(path: Path) -> Format:
    """The first format that reads `path`.

    Raises:
        DataError: none does; the message says what it is if that is known, else what was tried and why each
            refused.
    """
    refusals: list[str] = []
    for name in FORMATS.names():
        refusal = FORMATS.get(name).refuse(path)
        if refusal is None:
            return FORMATS.get(name)
        refusals.append(f"{name}: {refusal}")
    with reading(path):
        foreign = foreign_error(path)
    raise foreign or DataError(
        f"no format reads it ({'; '.join(refusals)})",
        file=path,
        remedy="Give a dataset in one of these formats, or convert it.",
    )


def bundled_root() -> Path:
    """Folder of the datasets that travel with the package."""
    return assets_dir() / "datasets"


def bundled_names() -> tuple[str, ...]:
    """Names of the datasets that travel with the package."""
    root = bundled_root()
    return tuple(sorted(entry.name for entry in root.iterdir())) if root.is_dir() else ()
