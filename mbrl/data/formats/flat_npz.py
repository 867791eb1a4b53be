"""D4RL's flat arrays in one NumPy archive, under the names that people give them.

`[N, ...]` rows, one transition each, all episodes one after the other. Names are those of
`mbrl.data.flat.FLAT_NAMES`: `obs` or `observations`, `action`, `actions` or `act`, `reward(s)`, `terminal(s)`
or `terminated`, `timeout(s)` or `truncated`, `next_obs` or `next_observations`; `done(s)` is asked about. How
rows become episodes is told in `mbrl.data.flat`. Further arrays of N rows are kept as infos, and
`infos/<name>` too.

Our own additions when writing: `is_successor_known` `[N]`, `info`, `act_low`, `act_high`, and for
actions that are choices, ids or labels, `choices` (names).
"""

import io
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.flat import cut_flat, find_names, name_ends, read_flat
from mbrl.data.formats.archive import (
    archive_bounds,
    archive_choices,
    archive_info,
    archive_space,
    load_archive,
    refuse_archive,
)
from mbrl.data.formats.base import FORMATS, Format, flat_rows, only_file
from mbrl.data.formats.output import write_file
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawLog

_INFO: Final = "infos/"
_OWN: Final = frozenset({"info", "act_low", "act_high", "choices"})


class FlatNpzFormat(Format):
    """NumPy archive: flat rows as in D4RL, under the usual names (obs, action, reward, terminals, ...)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts an archive with one of the names, unless its keys are those of another layout."""
        return refuse_archive(path, "flat_npz")

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads the flat arrays and cuts them into episodes."""
        file = only_file(path, (".npz",)) or path
        stored = load_archive(file)
        info = archive_info(stored, file, options)
        names = find_names(stored.keys(), options, file=file)
        arrays = {key: stored[name] for key, name in names.items()}
        _refuse_episode_flags(arrays, names, file)
        name_ends(arrays, names, options, file=file)
        further = {
            key.removeprefix(_INFO): values
            for key, values in stored.items()
            if key not in _OWN and key not in names.values()
        }
        counts: Counter[str] = Counter()
        flat = read_flat(arrays, further, counts, file=file, names=names)
        limit = info.max_episode_steps or options.max_episode_steps
        low, high = archive_bounds(stored, file)
        return RawLog(
            file=file,
            episodes=cut_flat(flat, counts, max_episode_steps=limit),
            info=info,
            act_low=low,
            act_high=high,
            choices=archive_choices(stored, file),
            counts=counts,
        )

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes all rows with their true successors, as `D4rlFormat` does."""
        dataset.require_rewards("The flat layout")
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **_flatten(dataset))
        return write_file(path, stream.getbuffer())


def _refuse_episode_flags(arrays: dict[str, Any], names: dict[str, str], file: Path) -> None:
    """One flag for each episode belongs to the layout with lengths, which this archive then lacks."""
    flags, rows = arrays.get("terminals"), arrays["actions"]
    if flags is not None and flags.ndim == 1 and rows.ndim and 0 < len(flags) < len(rows) / 2:
        raise DataError(
            f"the key is missing: {names['terminals']} has {len(flags)} flags for {len(rows)} actions, as "
            "one for each episode",
            file=file,
            field="lengths",
            remedy="Write the steps of each episode as lengths, or one flag for each row.",
        )


def _flatten(dataset: Dataset) -> dict[str, Any]:
    arrays, infos = flat_rows(dataset)
    return {
        **arrays,
        **archive_space(dataset.spec),
        "info": np.array(dataset.info.to_json()),
        **{_INFO + name: values for name, values in infos.items()},
    }


FORMATS.register("flat_npz")(FlatNpzFormat())
