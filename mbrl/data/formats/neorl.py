"""NeoRL's archives (Qin et al., 2022): `obs`, `next_obs`, `action`, `reward`, `done`, `index`, `[N, ...]`.

`index[k]` is the row after the last one of trajectory k (the library puts a 0 before it on loading, whatever
its README says); files whose index starts with 0 hold first rows instead. `done` is set at failures in some
tasks and at time limits in others: the option `dones` says which. The offset of the position of Hopper and
Walker2d is part of `obs`.
"""

import functools
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.flags import flag_array, read_flags, settle_dones
from mbrl.data.formats.archive import load_archive, refuse_archive
from mbrl.data.formats.base import FORMATS, ReadOnlyFormat, only_file
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog, absent_rewards

_REQUIRED: Final = ("obs", "next_obs", "action", "index")
_REMEDY: Final = "The file is damaged: download it again."


class NeorlFormat(ReadOnlyFormat):
    """NeoRL archive: flat rows with successors, trajectories by an index of rows (read only)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts an archive with NeoRL's keys."""
        return refuse_archive(path, "neorl")

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads the trajectories; a file without `done` never terminates."""
        file = only_file(path, (".npz",)) or path
        arrays = load_archive(file)
        for key in _REQUIRED:
            if key not in arrays:
                raise DataError("the key is missing", file=file, field=key, remedy=_REMEDY)
        count = len(arrays["action"]) if arrays["action"].ndim else 0
        for key in ("obs", "next_obs", "reward", "done"):
            if key in arrays and (arrays[key].shape[:1] != (count,) or count == 0):
                raise DataError(
                    f"shape {arrays[key].shape}, where the actions have {count} rows",
                    file=file,
                    field=key,
                    remedy=_REMEDY,
                )
        starts, stops = _trajectories(arrays["index"], count, file)
        terminated = _terminated(arrays, starts, stops, options, file)
        return RawLog(
            file=file,
            episodes=tuple(
                _episode(arrays, index, (int(starts[index]), int(stops[index])), terminated)
                for index in range(len(starts))
            ),
            info=DatasetInfo(
                name=file.stem, max_episode_steps=options.max_episode_steps, provenance={"layout": "NeoRL"}
            ),
        )


def _trajectories(index: AnyArray, count: int, file: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First rows, and rows after the last ones."""
    is_rows = index.ndim == 1 and index.dtype.kind in "iuf" and index.size > 0
    if not is_rows or not bool((np.isfinite(index) & (index == np.floor(index)) & (index >= 0)).all()):
        raise DataError(
            f"shape {index.shape}, dtype {index.dtype}, where rows are needed",
            file=file,
            field="index",
            remedy=_REMEDY,
        )
    marks = np.unique(np.clip(index, 0, 2**40).astype(np.int64))
    edges = marks if marks[0] == 0 else np.concatenate([[0], marks])
    edges = edges if edges[-1] == count else np.append(edges, count)
    if len(marks) != len(index) or bool((index[1:] <= index[:-1]).any()) or int(marks[-1]) > count:
        raise DataError(f"the rows do not rise to {count}", file=file, field="index", remedy=_REMEDY)
    return edges[:-1], edges[1:]


def _terminated(
    arrays: dict[str, AnyArray],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    options: LoadOptions,
    file: Path,
) -> NDArray[np.bool_]:
    """`[episodes]`, by the flag of the last rows; flags within a trajectory contradict the index."""
    if "done" not in arrays:
        return np.zeros(len(starts), dtype=np.bool_)
    report = functools.partial(DataError, file=file)
    done = read_flags(arrays["done"], report, field="done", count=len(arrays["action"]))
    is_last = np.zeros_like(done)
    is_last[stops - 1] = True
    early = done & ~is_last
    if bool(early.any()):
        raise report(
            f"{int(early.sum())} rows are done within a trajectory of the index",
            field="done",
            row=int(early.argmax()),
            remedy=_REMEDY,
        )
    return settle_dones(done[stops - 1], stops - starts, options, report, field="done")


def _episode(
    arrays: dict[str, AnyArray], index: int, rows: tuple[int, int], terminated: NDArray[np.bool_]
) -> RawEpisode:
    start, stop = rows
    steps, ends = stop - start, bool(terminated[index])
    rewards = arrays["reward"][start:stop] if "reward" in arrays else absent_rewards(steps)
    return RawEpisode(
        name=f"{index} (rows {start} to {stop - 1})",
        observations=np.concatenate([arrays["obs"][start:stop], arrays["next_obs"][stop - 1 : stop]]),
        actions=arrays["action"][start:stop],
        rewards=rewards,
        terminations=flag_array(steps, last=ends),
        truncations=flag_array(steps, last=not ends),
        has_rewards="reward" in arrays,
    )


FORMATS.register("neorl")(NeorlFormat())
