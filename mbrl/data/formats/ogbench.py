"""OGBench's archives (Park et al., 2025): `observations`, `actions`, `terminals`, `qpos`, `qvel`, `[N, ...]`.

The compact layout as it is downloaded: a trajectory of T steps has T + 1 rows, the last action of which is
meaningless. `terminals` marks that last row: the recording ends there, the task does not. There are no
rewards, since each task relabels the data. `<name>-val.npz` holds the validation data; a folder with both
files is read as one log whose info `split/val` tells them apart.
"""

import functools
from pathlib import Path
from typing import Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.flags import flag_array, read_flags
from mbrl.data.formats.archive import load_archive, refuse_archive
from mbrl.data.formats.base import FORMATS, SPLIT, ReadOnlyFormat, only_file
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog, absent_rewards

_VAL: Final = "-val"
_REQUIRED: Final = ("observations", "actions", "terminals")


class OgbenchFormat(ReadOnlyFormat):
    """OGBench archive: trajectories of T + 1 rows without rewards, also beside its -val file (read only)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts an archive, or a folder with one or with one and its `-val`."""
        pair = _pair(path)
        return refuse_archive(path if pair is None else pair[0], "ogbench")

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads the trajectories; further arrays are kept as infos."""
        pair = _pair(path)
        file = only_file(path, (".npz",)) or path
        files = (file,) if pair is None else pair
        name = files[0].stem
        return RawLog(
            file=path,
            episodes=tuple(episode for part in files for episode in _parse(part, options)),
            info=DatasetInfo(name=name.removesuffix(_VAL), provenance={"layout": "OGBench", "file": name}),
        )


def _pair(path: Path) -> tuple[Path, Path] | None:
    """Training and validation file of a folder that holds nothing else."""
    files = sorted(path.glob("*.npz")) if path.is_dir() else []
    if len(files) != 2:
        return None
    first, second = sorted(files, key=lambda file: len(file.stem))
    return (first, second) if second.stem == first.stem + _VAL else None


def _parse(file: Path, options: LoadOptions) -> tuple[RawEpisode, ...]:
    arrays = load_archive(file)
    for key in _REQUIRED:
        if key not in arrays:
            raise DataError("the key is missing", file=file, field=key, remedy="Download the file again.")
    terminals, count = arrays["terminals"], len(arrays["actions"]) if arrays["actions"].ndim else 0
    for key in _REQUIRED:
        if arrays[key].shape[:1] != (count,) or count == 0:
            raise DataError(
                f"shape {arrays[key].shape}, where the actions have {count} rows",
                file=file,
                field=key,
                remedy="The file is damaged: download it again.",
            )
    report = functools.partial(DataError, file=file)
    ends = read_flags(terminals, report, field="terminals", count=count)
    if not bool(ends[-1]):
        raise DataError(
            "the last row is not marked, so its trajectory is not whole",
            file=file,
            field="terminals",
            row=count - 1,
            remedy="The file was cut: download it again, or mark the last row.",
        )
    stops = np.flatnonzero(ends) + 1
    starts = np.concatenate([[0], stops[:-1]])
    is_val = file.stem.endswith(_VAL)
    return tuple(
        _episode(arrays, file, (int(start), int(stop)), options, is_val=is_val)
        for start, stop in zip(starts, stops, strict=True)
    )


def _episode(
    arrays: dict[str, AnyArray], file: Path, rows: tuple[int, int], options: LoadOptions, *, is_val: bool
) -> RawEpisode:
    start, stop = rows
    steps = stop - start - 1
    infos = {
        key: values[start:stop]
        for key, values in arrays.items()
        if key not in _REQUIRED and len(values) == len(arrays["terminals"]) and options.infos == "all"
    }
    infos[f"{SPLIT}val"] = np.full(steps, is_val)
    return RawEpisode(
        name=f"{file.stem}, rows {start} to {stop - 1}",
        observations=arrays["observations"][start:stop],
        actions=arrays["actions"][start : stop - 1],
        rewards=absent_rewards(steps),
        terminations=flag_array(steps, last=False),
        truncations=flag_array(steps, last=True),
        infos=infos,
        has_rewards=False,
    )


FORMATS.register("ogbench")(OgbenchFormat())
