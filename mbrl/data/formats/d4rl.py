"""D4RL's flat HDF5 layout (Fu et al., 2020), read as whole episodes.

Keys: `observations`, `actions`, `rewards`, `terminals` `[N, ...]`; optionally `timeouts`,
`next_observations`, `infos/action_log_probs`, further `infos/*` and `metadata/*`. Files of others name them
`obs`, `action`, `done` and so on (`mbrl.data.flat.FLAT_NAMES`). How rows become episodes, and what is done
differently from `qlearning_dataset`, is told in `mbrl.data.flat`.

Our own additions when writing: `is_successor_known` `[N]`, and the attributes `info`, `act_low`, `act_high`,
and `choices`, a JSON list of names, where actions are choices and stored by their ids.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mbrl.data.checks import ACTION_TOLERANCE
from mbrl.data.dataset import Dataset
from mbrl.data.flat import FLAT_NAMES, LOG_PROB, cut_flat, find_names, name_ends, read_flat
from mbrl.data.formats.base import FORMATS, Format, flat_rows
from mbrl.data.formats.hdf5 import (
    Group,
    StoredGroup,
    hdf5_at,
    make_hdf5,
    open_hdf5,
    refuse_hdf5,
    set_attribute,
    store,
)
from mbrl.data.formats.metadata import Metadata
from mbrl.data.formats.output import write_file
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawLog
from mbrl.data.spaces import read_bounds


class D4rlFormat(Format):
    """D4RL HDF5 file: flat arrays with terminals and time-outs."""

    def sniff(self, path: Path) -> str | None:
        """Accepts an HDF5 file with flat arrays at its top."""
        return refuse_hdf5(path, _refuse)

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads the flat arrays and cuts them into episodes."""
        file = hdf5_at(path)
        counts: Counter[str] = Counter()
        with open_hdf5(file) as content:
            names = find_names(content.names(), options, file=file)
            arrays = {key: content.require(name) for key, name in names.items()}
            name_ends(arrays, names, options, file=file)
            infos = _parse_infos(content, options)
            stored, provenance = content.attributes(), _parse_metadata(content)
            text = Metadata(stored, file).text("info")
            flat = read_flat(arrays, infos, counts, file=file, names=names)
            episodes = cut_flat(flat, counts, max_episode_steps=options.max_episode_steps)
            choices = Metadata(stored, file).choice_names("choices")
            low, high = (None, None) if choices else _bounds(stored, arrays["actions"], file)
        default = DatasetInfo(name=file.stem, max_episode_steps=options.max_episode_steps)
        info = default if text is None else DatasetInfo.from_json(text, file=file)
        return RawLog(
            file=file,
            episodes=episodes,
            info=dataclasses.replace(info, provenance={**info.provenance, **provenance}),
            act_low=low,
            act_high=high,
            choices=choices,
            counts=counts,
        )

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes all rows with their true successors.

        The layout has no place for time stamps, nor for the last row of infos of T + 1 rows.
        """
        dataset.require_rewards("The layout of D4RL")
        arrays, further = flat_rows(dataset)

        def fill(file: Group) -> None:
            for name, values in arrays.items():
                store(file, name, values)
            infos = file.create_group("infos")
            for name, values in further.items():
                store(infos, name, values)
            set_attribute(file, "info", dataset.info.to_json())
            if dataset.spec.choices is not None:
                set_attribute(file, "choices", json.dumps(dataset.spec.choices))
                return
            set_attribute(file, "act_low", np.array(dataset.spec.act_low))
            set_attribute(file, "act_high", np.array(dataset.spec.act_high))

        return write_file(path, make_hdf5(fill))


def _refuse(content: StoredGroup) -> str | None:
    names = set(content.names())
    if not any(names & set(FLAT_NAMES[key]) for key in ("observations", "actions", "rewards")):
        return "no flat observations, actions or rewards at its top"
    if {"episode_terminals", "discrete_action"} <= names:
        return "its keys are those of d3rlpy"
    return None


def _parse_infos(content: StoredGroup, options: LoadOptions) -> dict[str, AnyArray]:
    group = content.subgroup("infos")
    if group is None:
        return {}
    if options.infos == "all":
        return group.numeric_leaves()
    log_prob = group.optional(LOG_PROB)
    return {} if log_prob is None else {LOG_PROB: log_prob}


def _parse_metadata(content: StoredGroup) -> dict[str, str]:
    group = content.subgroup("metadata")
    found = {} if group is None else {key: group.text(key) for key in group.names()}
    return {key: value for key, value in found.items() if value is not None}


def _bounds(
    stored: Mapping[str, Any], actions: AnyArray, file: Path
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The bounds in the file; else D4RL's own convention [-1, 1], unless the data contradict it.

    Integers are no commands by that convention, but choices.
    """
    if "act_low" in stored and "act_high" in stored:
        low, high = (read_bounds(stored[key], file=file, field=key) for key in ("act_low", "act_high"))
        return low, high
    if actions.dtype.kind != "f" or bool((np.abs(actions) > 1 + 2 * ACTION_TOLERANCE).any()):
        return None, None
    act_dim = actions.shape[1] if actions.ndim == 2 else 1
    return (-1.0,) * act_dim, (1.0,) * act_dim


FORMATS.register("d4rl")(D4rlFormat())
