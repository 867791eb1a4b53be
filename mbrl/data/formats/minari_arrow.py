"""Minari's Arrow and Parquet layouts (Younis et al., 2024): a folder for each episode beside `metadata.json`.

`<id>/data/<i>/part-0.{arrow,parquet}` has T + 1 rows: observations, and actions, rewards and flags with one
row of padding at the end. Every file is read whole: the library reads episodes of more than 32,767 rows as if
they ended there, and takes the rest for the next one. Metadata are those of the HDF5 layout
(`mbrl.data.formats.minari`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from mbrl.core.errors import DataError
from mbrl.data.formats.base import FORMATS, ReadOnlyFormat
from mbrl.data.formats.metadata import Metadata
from mbrl.data.formats.minari import (
    LOG_PROB_KEY,
    METADATA_FILE,
    TIME_KEY,
    action_bounds,
    action_choices,
    parse_info,
    refuse_other_sizes,
)
from mbrl.data.formats.parquet import StoredTable, read_columns
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

_SUFFIXES: Final = (".arrow", ".parquet")
_STEPS: Final = ("rewards", "terminations", "truncations")
_NUMBER: Final = re.compile(r"\d{1,9}")
_PART: Final = re.compile(r"part-(\d{1,9})\.(arrow|parquet)")


class MinariArrowFormat(ReadOnlyFormat):
    """Minari Arrow or Parquet dataset: a folder with metadata.json and one folder per episode (read only)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts the dataset's folder or its `data` folder."""
        root = _root(path)
        if root is None:
            return f"no folder with {METADATA_FILE}"
        return (
            None if _episode_folders(root) else "no folders of episodes with part-0.arrow or part-0.parquet"
        )

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads every episode."""
        root = _root(path) or path
        metadata = Metadata.load(root / METADATA_FILE)
        low, high = action_bounds(metadata)
        episodes = tuple(_parse_episode(folder, options) for folder in _episode_folders(root))
        refuse_other_sizes(metadata, episodes, root / METADATA_FILE)
        info = parse_info(metadata, root / METADATA_FILE)
        choices = action_choices(metadata)
        return RawLog(file=path, episodes=episodes, info=info, act_low=low, act_high=high, choices=choices)


def _root(path: Path) -> Path | None:
    return next((root for root in (path, path / "data") if (root / METADATA_FILE).is_file()), None)


def _episode_folders(root: Path) -> list[Path]:
    found = [entry for entry in root.iterdir() if _NUMBER.fullmatch(entry.name) and entry.is_dir()]
    return sorted((folder for folder in found if _parts(folder)), key=lambda folder: int(folder.name))


def _parts(folder: Path) -> list[Path]:
    """Files of an episode in their order."""
    found = [(match, entry) for entry in folder.iterdir() if (match := _PART.fullmatch(entry.name))]
    return [entry for _, entry in sorted(found, key=lambda pair: int(pair[0][1]))]


def _parse_episode(folder: Path, options: LoadOptions) -> RawEpisode:
    files = _parts(folder)
    tables = [read_columns(file, purpose="reading Minari's Arrow and Parquet datasets") for file in files]
    steps = {name: _join(tables, name, files[0])[:-1] for name in _STEPS}
    infos = _leaves(tables, "infos") if "infos" in tables[0].names() else {}
    infos = {
        key: values.reshape(len(values)) if values[0:1].size == 1 else values for key, values in infos.items()
    }
    log_prob, times = infos.pop(LOG_PROB_KEY, None), infos.pop(TIME_KEY, None)
    return RawEpisode(
        name=folder.name,
        observations=_join(tables, "observations", files[0]),
        actions=_join(tables, "actions", files[0])[:-1],
        rewards=steps["rewards"],
        terminations=steps["terminations"],
        truncations=steps["truncations"],
        behaviour_log_prob=log_prob,
        timestamps=times,
        infos=infos if options.infos == "all" else {},
    )


def _join(tables: Sequence[StoredTable], name: str, file: Path) -> AnyArray:
    """A column; the parts of a dictionary space side by side in the order of their names."""
    leaves = _leaves(tables, name)
    if set(leaves) == {""}:
        return leaves[""]
    parts = [leaves[key].reshape(len(leaves[key]), -1) for key in sorted(leaves)]
    if not parts:
        raise DataError("it has no parts", file=file, field=name, remedy="Write vectors of numbers.")
    return np.concatenate(parts, axis=1)


def _leaves(tables: Sequence[StoredTable], name: str) -> dict[str, AnyArray]:
    found = [table.leaves(name) for table in tables]
    return {key: np.concatenate([leaves[key] for leaves in found]) for key in found[0]}


FORMATS.register("minari_arrow")(MinariArrowFormat())
