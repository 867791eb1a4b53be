"""What is recognised and not read as a dataset: what it is, and the next step. Not a format of its own."""

from pathlib import Path
from typing import Final, TypeAlias

from mbrl.core.errors import DataError
from mbrl.data.formats.parquet import is_columnar
from mbrl.data.tables.rosbag import is_bag

_Answer: TypeAlias = tuple[str, str]

_ARRAYS: Final = "np.savez (observations, actions, rewards, terminals, timeouts)"
_BAG: Final = (
    "a ROS bag or MCAP file: topics with clocks of their own, no dataset yet",
    "List its topics (mbrl topics BAG), write their numbers as tables (--out FOLDER), and say in a schema "
    "what is observed and what is commanded (mbrl import SCHEMA.yaml FOLDER --out DATASET).",
)
_LFS: Final = ("a pointer of Git LFS, not the file itself", "Fetch the file: git lfs pull.")
_PICKLE: Final = (
    "a pickle, which can run code when it is opened and is never read",
    f"Open it where you trust it, and write its arrays with {_ARRAYS}.",
)
_TABLE: Final = (
    "a table whose columns nobody has explained: what is observed, what is commanded, where episodes end",
    "Say so in a schema: mbrl import SCHEMA.yaml FILE --out DATASET.",
)
_TORCH: Final = (
    "a file of torch.save, which may hold a pickle and is never read",
    f"Load it with torch.load(weights_only=True), and write its arrays with {_ARRAYS}.",
)
_VIDEO: Final = (
    "a video; images are unsupported",
    "Give the folder or file with the numbers that were logged beside it.",
)
_MATLAB: Final = ("a MATLAB file", f"Load it with scipy.io.loadmat, and write its arrays with {_ARRAYS}.")
_ZARR: Final = ("a Zarr store", f"Open it with the package zarr, and write its arrays with {_ARRAYS}.")
_TFRECORD: Final = (
    "a TensorFlow dataset (RLDS), which takes TensorFlow to read",
    "Load it with tensorflow_datasets, and give its episodes to mbrl.Dataset.from_episodes: the is_last step "
    "has the final observation alone, and is_terminal tells a termination from a cut.",
)
_BY_START: Final[tuple[tuple[bytes, _Answer], ...]] = (
    (b"version https://git-lfs", _LFS),
    (b"MATLAB 5.0", _MATLAB),
    *((b"\x80" + bytes([protocol]), _PICKLE) for protocol in (2, 3, 4, 5)),
)
_BY_SUFFIX: Final[dict[str, _Answer]] = {
    **dict.fromkeys((".csv", ".tsv"), _TABLE),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), _PICKLE),
    **dict.fromkeys((".pt", ".pth"), _TORCH),
    **dict.fromkeys((".mp4", ".avi", ".mkv", ".webm", ".mov"), _VIDEO),
}


def foreign_error(path: Path) -> DataError | None:
    """The error that says what is at `path`, or None where that is not known either."""
    found = _recognise_folder(path) if path.is_dir() else _recognise_file(path)
    found = _BAG if is_bag(path) else found
    if found is None:
        return None
    return DataError(f"no format reads it: it is {found[0]}", file=path, remedy=found[1])


def _recognise_file(path: Path) -> _Answer | None:
    if not path.is_file():
        return None  # a pipe would be waited for
    with path.open("rb") as stream:
        start = stream.read(32)
    by_start = next((answer for signature, answer in _BY_START if start.startswith(signature)), None)
    if by_start is not None or not start:
        return by_start
    if ".tfrecord" in path.name:
        return _TFRECORD
    return _TABLE if is_columnar(path) else _BY_SUFFIX.get(path.suffix.lower())


def _recognise_folder(path: Path) -> _Answer | None:
    names = [entry.name for entry in sorted(path.iterdir())[:1000]]
    if "dataset_info.json" in names and any(".tfrecord" in name or ".array_record" in name for name in names):
        return _TFRECORD
    return _ZARR if ".zgroup" in names or "zarr.json" in names else None
