"""D4RL's flat HDF5 layout (Fu et al., 2020), read as whole episodes.

Keys: `observations`, `actions`, `rewards`, `terminals` `[N, ...]`; optionally `timeouts`,
`next_observations`, `infos/action_log_probs`, further `infos/*` and `metadata/*`. What is done differently
from `qlearning_dataset`:

- The row after a terminal or a time-out belongs to another episode and is never taken for a successor.
  Without `next_observations`, a terminal step keeps its reward and an unknown successor; the last step
  before a time-out is dropped (it has nothing to bootstrap from), and counted.
- With `next_observations` every row is kept. A flagged row whose `next_observations` equals the first
  observation of the next episode was made by shifting, and counts as unknown.
- Without `timeouts`, episodes end where `next_observations` breaks off, or every `max_episode_steps`.

Our own additions when writing: `is_successor_known` `[N]`, and the attributes `info`, `act_low`, `act_high`.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.checks import ACTION_TOLERANCE, as_float32
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS, Format, behaviour_log_probs, common_infos, only_file
from mbrl.data.formats.hdf5 import (
    Group,
    attributes,
    create_hdf5,
    is_hdf5,
    names,
    numeric_leaves,
    open_hdf5,
    optional,
    require,
    set_attribute,
    store,
    subgroup,
    text,
)
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog

_SUFFIXES: Final = (".hdf5", ".h5")
_REQUIRED: Final = ("observations", "actions", "rewards", "terminals")
_OPTIONAL: Final = ("timeouts", "next_observations", "is_successor_known")
_LOG_PROB: Final = "action_log_probs"
_CONTINUITY: Final = 1e-5  # relative, float32 against float64 copies of one number


class D4rlFormat(Format):
    """D4RL HDF5 file: flat arrays with terminals and time-outs."""

    def sniff(self, path: Path) -> str | None:
        """Accepts an HDF5 file with flat arrays at its top."""
        file = only_file(path, _SUFFIXES)
        if file is None:
            return "not a file, nor a folder with exactly one .hdf5 file"
        if not is_hdf5(file):
            return "does not start as HDF5 files do"
        with open_hdf5(file) as content:
            if not {"observations", "actions", "rewards"} & set(names(content)):
                return "no flat observations, actions or rewards at its top"
        return None

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads the flat arrays and cuts them into episodes."""
        file = only_file(path, _SUFFIXES) or path
        with open_hdf5(file) as content:
            arrays = {key: require(content, key, file=file) for key in _REQUIRED}
            arrays |= {key: values for key in _OPTIONAL if (values := optional(content, key)) is not None}
            infos = _parse_infos(content, options)
            stored, provenance = attributes(content), _parse_metadata(content)
        _refuse_unequal_rows(arrays, file)
        default = DatasetInfo(name=file.stem, max_episode_steps=options.max_episode_steps)
        info = DatasetInfo.from_json(stored["info"], file=file) if "info" in stored else default
        counts: Counter[str] = Counter()
        episodes = _cut(_Flat.of(arrays, infos), options, counts, file)
        low, high = _bounds(stored, arrays["actions"])
        return RawLog(
            file=file,
            episodes=episodes,
            info=dataclasses.replace(info, provenance={**info.provenance, **provenance}),
            act_low=low,
            act_high=high,
            counts=counts,
        )

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes all rows with their true successors.

        The layout has no place for time stamps, nor for the last row of infos of T + 1 rows.
        """
        if path.exists():
            raise FileExistsError(f"{path} exists already")
        partial = path.with_name(f".{path.name}.partial")
        rows = dataset.transitions()
        log_probs = behaviour_log_probs(dataset)
        with create_hdf5(partial) as file:
            store(file, "observations", rows.observation)
            store(file, "actions", rows.action)
            store(file, "rewards", rows.reward)
            store(file, "next_observations", rows.next_observation)
            store(file, "terminals", rows.terminated)
            store(file, "timeouts", rows.truncated)
            store(file, "is_successor_known", rows.is_successor_known)
            infos = file.create_group("infos")
            if log_probs is not None:
                store(infos, _LOG_PROB, log_probs)
            for name in common_infos(dataset):
                parts = [episode.infos[name][: len(episode)] for episode in dataset.episodes]
                store(infos, name, np.concatenate(parts))
            set_attribute(file, "info", dataset.info.to_json())
            set_attribute(file, "act_low", np.array(dataset.spec.act_low))
            set_attribute(file, "act_high", np.array(dataset.spec.act_high))
        os.replace(partial, path)
        return path


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Flat:
    """The arrays of a file, N rows each; flags as booleans."""

    observations: AnyArray
    actions: AnyArray
    rewards: AnyArray
    terminals: NDArray[np.bool_]
    timeouts: NDArray[np.bool_] | None
    next_observations: AnyArray | None
    is_successor_known: NDArray[np.bool_] | None
    infos: Mapping[str, AnyArray]

    @classmethod
    def of(cls, arrays: Mapping[str, AnyArray], infos: Mapping[str, AnyArray]) -> "_Flat":
        known, timeouts = arrays.get("is_successor_known"), arrays.get("timeouts")
        count = len(arrays["rewards"])
        return cls(
            observations=arrays["observations"],
            actions=arrays["actions"],
            rewards=arrays["rewards"],
            terminals=arrays["terminals"].reshape(count).astype(np.bool_),
            timeouts=None if timeouts is None else timeouts.reshape(count).astype(np.bool_),
            next_observations=arrays.get("next_observations"),
            is_successor_known=None if known is None else known.reshape(count).astype(np.bool_),
            infos={name: values for name, values in infos.items() if len(values) == count},
        )


def _parse_infos(content: Group, options: LoadOptions) -> dict[str, AnyArray]:
    group = subgroup(content, "infos")
    if group is None:
        return {}
    if options.infos == "all":
        return numeric_leaves(group)
    log_prob = optional(group, _LOG_PROB)
    return {} if log_prob is None else {_LOG_PROB: log_prob}


def _parse_metadata(content: Group) -> dict[str, str]:
    group = subgroup(content, "metadata")
    found = {} if group is None else {key: text(group, key) for key in names(group)}
    return {key: value for key, value in found.items() if value is not None}


def _bounds(
    stored: Mapping[str, Any], actions: AnyArray
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """The bounds in the file; else D4RL's own convention [-1, 1], unless the data contradict it."""
    if "act_low" in stored and "act_high" in stored:
        low, high = (np.asarray(stored[key], dtype=np.float64) for key in ("act_low", "act_high"))
        return tuple(float(v) for v in low), tuple(float(v) for v in high)
    if actions.dtype.kind not in "fiub" or bool((np.abs(actions) > 1 + 2 * ACTION_TOLERANCE).any()):
        return None, None
    act_dim = actions.shape[1] if actions.ndim == 2 else 1
    return (-1.0,) * act_dim, (1.0,) * act_dim


def _refuse_unequal_rows(arrays: Mapping[str, AnyArray], file: Path) -> None:
    count = len(arrays["rewards"]) if arrays["rewards"].ndim else 0
    if count == 0:
        raise DataError("no rows", file=file, field="rewards", remedy="The log is empty: record it again.")
    for key, values in arrays.items():
        is_flag = key in {"terminals", "timeouts", "is_successor_known"}
        if values.shape[:1] == (count,) and not (
            is_flag and (values.size != count or values.dtype.kind == "O")
        ):
            continue
        raise DataError(
            f"shape {values.shape}, dtype {values.dtype}, where the rewards have {count} rows",
            file=file,
            field=key,
            row=min(count, values.shape[0]) if values.ndim else None,
            remedy="All flat arrays need equally many rows; flags need one number per row.",
        )


def _cut(flat: _Flat, options: LoadOptions, counts: Counter[str], file: Path) -> tuple[RawEpisode, ...]:
    flagged, timeouts = _flagged_ends(flat, options, file)
    ends = flagged.copy()
    ends[-1] = True
    is_shifted = np.zeros_like(ends)
    if flat.next_observations is not None:
        is_linked = _is_linked(flat, file)
        _refuse_shuffled(~is_linked & ~flagged[:-1], file)
        ends[:-1] |= ~is_linked
        if flat.is_successor_known is None:
            is_shifted[:-1] = flagged[:-1] & is_linked
            is_shifted[-1] = bool(is_shifted.any())
            counts["successors taken from the next episode"] += int(is_shifted.sum())
        else:
            is_shifted = ~flat.is_successor_known
    stops = np.flatnonzero(ends) + 1
    starts = np.concatenate([[0], stops[:-1]])
    counts += Counter()  # removes reasons that did not occur
    return tuple(
        _episode(flat, timeouts, index, (int(start), int(stop)), is_shifted=bool(is_shifted[stop - 1]))
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True))
    )


def _flagged_ends(
    flat: _Flat, options: LoadOptions, file: Path
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that end an episode by a flag or the time limit, and the time-outs among them."""
    if flat.timeouts is not None:
        return flat.terminals | flat.timeouts, flat.timeouts
    timeouts = np.zeros_like(flat.terminals)
    if options.max_episode_steps is None:
        if flat.next_observations is None:
            raise DataError(
                "the file has neither timeouts nor next_observations, so the ends of episodes are unknown",
                file=file,
                field="timeouts",
                remedy="Give the time limit of the task with max_episode_steps.",
            )
        return flat.terminals, timeouts
    stops = np.concatenate([np.flatnonzero(flat.terminals) + 1, [len(timeouts)]])
    starts = np.concatenate([[0], stops[:-1]])
    limit = options.max_episode_steps
    for start, stop in zip(starts, stops, strict=True):
        timeouts[start + limit - 1 : stop : limit] = True
    timeouts &= ~flat.terminals
    return flat.terminals | timeouts, timeouts


def _is_linked(flat: _Flat, file: Path) -> NDArray[np.bool_]:
    """`[N - 1]`, where the logged successor is the observation of the next row."""
    after, following = flat.next_observations, flat.observations[1:]
    if after is None or after.shape != flat.observations.shape or after.dtype.kind not in "fiub":
        raise DataError(
            f"shape {None if after is None else after.shape} differs from the observations' "
            f"{flat.observations.shape}, or the array is not numeric",
            file=file,
            field="next_observations",
            remedy="Store one successor per row, or leave the key out.",
        )
    after, following = as_float32(after[:-1]), as_float32(following)
    with np.errstate(invalid="ignore"):  # infinities are reported by the checks, with their place
        is_far: AnyArray = np.abs(after - following) > _CONTINUITY * np.maximum(
            np.abs(following), np.abs(after)
        )
    is_linked: NDArray[np.bool_] = np.logical_not(is_far.any(axis=tuple(range(1, is_far.ndim))))
    return is_linked


def _refuse_shuffled(is_broken: NDArray[np.bool_], file: Path) -> None:
    if len(is_broken) > 1 and float(is_broken.mean()) > 0.5:
        raise DataError(
            f"{int(is_broken.sum())} of {len(is_broken)} rows lead elsewhere than to the next row",
            file=file,
            field="next_observations",
            row=int(is_broken.argmax()),
            remedy="Sort the rows by episode and time: shuffled rows cannot be split by episode.",
        )


def _episode(
    flat: _Flat, timeouts: NDArray[np.bool_], index: int, rows: tuple[int, int], *, is_shifted: bool
) -> RawEpisode:
    start, stop = rows
    observations, after = flat.observations[start:stop], flat.next_observations
    infos = {name: values[start:stop] for name, values in flat.infos.items()}
    is_logged = after is not None and not is_shifted
    if after is not None and is_logged:
        observations = np.concatenate([observations, after[stop - 1 : stop]])
    return RawEpisode(
        name=f"{index} (rows {start} to {stop - 1})",
        observations=observations,
        actions=flat.actions[start:stop],
        rewards=flat.rewards[start:stop],
        terminations=flat.terminals[start:stop],
        truncations=timeouts[start:stop],
        final_observation="logged" if is_logged else "absent",
        behaviour_log_prob=infos.pop(_LOG_PROB, None),
        infos=infos,
    )


FORMATS.register("d4rl")(D4rlFormat())
