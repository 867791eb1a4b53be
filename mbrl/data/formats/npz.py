"""Our own flat layout in one `.npz` file, for logs that were made without any library.

With E episodes of T_0 ... T_{E-1} steps and N = sum(T_i), all episodes one after the other:

| key | shape | meaning |
|---|---|---|
| `lengths` | `[E]` integer | T_i, steps of each episode |
| `observations` | `[N + E, obs_dim]` | T_i + 1 rows per episode, the last being the final observation |
| `actions` | `[N, act_dim]` | environment units; of choices `[N]` ids or labels, or `[N, w]` integers |
| `rewards` | `[N]` | left out where `has_rewards` says so |
| `terminated`, `truncated` | `[E]` flags | how each episode ended |
| `act_low`, `act_high` | `[act_dim]` | optional: action bounds; the range of the data without them |
| `choices` | `[n]` text, or a number | optional: names or number of the choices; else those seen |
| `behaviour_log_prob` | `[N]` | optional: log-density of the action scaled to [-1, 1], or log-probability |
| `timestamps` | `[N + E]` | optional: seconds |
| `is_final_observation_known` | `[E]` flags | optional: False where the last one repeats the one before |
| `has_rewards` | one flag | optional: False for a log without rewards |
| `infos/action_mask` | `[N + E, n]` flags | optional: the choices that were allowed in each state |
| `infos/<name>` | `[N, ...]` or `[N + E, ...]` | optional: anything else |
| `info` | text | optional: JSON of `DatasetInfo` |
"""

import functools
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.flags import flag_array, read_flags
from mbrl.data.formats.archive import (
    archive_bounds,
    archive_choices,
    archive_info,
    archive_space,
    load_archive,
    refuse_archive,
)
from mbrl.data.formats.base import (
    FORMATS,
    Format,
    behaviour_log_probs,
    common_infos,
    only_file,
    stored_actions,
)
from mbrl.data.formats.output import write_file
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, RawLog, absent_rewards

_INFO_PREFIX: Final = "infos/"
_FLAGS: Final = ("terminated", "truncated", "is_final_observation_known")
_REQUIRED: Final = ("lengths", "observations", "actions", "rewards", "terminated", "truncated")


class NpzFormat(Format):
    """NumPy archive: flat arrays and the length of each episode (see `mbrl.data.formats.npz`)."""

    def sniff(self, path: Path) -> str | None:
        """Accepts a zip archive of NumPy arrays, unless its keys are those of another layout."""
        return refuse_archive(path, "npz")

    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads all keys; nothing is unpickled."""
        file = only_file(path, (".npz",)) or path
        arrays = load_archive(file)
        has_rewards = _has_rewards(arrays, file)
        for key in _REQUIRED:
            if key not in arrays and (key != "rewards" or has_rewards):
                raise DataError(
                    f"the key is missing; present: {', '.join(sorted(arrays)) or 'nothing'}",
                    file=file,
                    field=key,
                    remedy="Write the key; the module mbrl.data.formats.npz documents the layout.",
                )
        low, high = archive_bounds(arrays, file)
        return RawLog(
            file=file,
            episodes=_cut(arrays, file),
            info=archive_info(arrays, file, options),
            act_low=low,
            act_high=high,
            choices=archive_choices(arrays, file),
        )

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes one compressed archive; infos that some episode lacks are left out."""
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **_flatten(dataset))
        return write_file(path, stream.getbuffer())


def _has_rewards(arrays: Mapping[str, AnyArray], file: Path) -> bool:
    """True unless the archive says that it has none."""
    if "has_rewards" not in arrays:
        return True
    report = functools.partial(DataError, file=file)
    flag = read_flags(arrays["has_rewards"].reshape(-1), report, field="has_rewards", count=1)
    if "rewards" in arrays and not bool(flag[0]):
        raise report(
            "the archive says that it has no rewards, and holds some",
            field="has_rewards",
            remedy="Leave one of the two out.",
        )
    return bool(flag[0])


def _read_lengths(values: AnyArray, file: Path) -> NDArray[np.int64]:
    report = functools.partial(DataError, file=file, field="lengths")
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise report(f"shape {values.shape}, dtype {values.dtype}", remedy="Store one integer per episode.")
    is_bad = (values < 0) | (values > 2**40)
    if bool(is_bad.any()):
        row = int(is_bad.argmax())
        raise report(
            f"an episode of {values[row]} steps", row=row, remedy="Store the number of steps of each episode."
        )
    lengths = values.astype(np.int64)
    if (lengths == 0).sum() > 1000:
        row = int((lengths == 0).argmax())
        raise report(
            f"{int((lengths == 0).sum())} episodes without steps", row=row, remedy="Leave empty episodes out."
        )
    return lengths


def _cut(arrays: Mapping[str, AnyArray], file: Path) -> tuple[RawEpisode, ...]:
    lengths = _read_lengths(arrays["lengths"], file)
    steps, count = sum(lengths.tolist()), len(lengths)
    allowed = {key: (steps,) for key in ("actions", "rewards", "behaviour_log_prob")}
    allowed |= {key: (count,) for key in _FLAGS}
    allowed |= {"observations": (steps + count, steps), "timestamps": (steps + count,)}
    allowed |= {key: (steps, steps + count) for key in arrays if key.startswith(_INFO_PREFIX)}
    for key, rows in allowed.items():
        if key in arrays and arrays[key].shape[:1] not in {(number,) for number in rows}:
            found = arrays[key].shape[0] if arrays[key].ndim else "no"
            raise DataError(
                f"{found} rows where the lengths of {count} episodes ask for {rows[0]}",
                file=file,
                field=key,
                remedy="Store T + 1 observations and T of everything else per episode of T steps.",
            )
    report = functools.partial(DataError, file=file)
    flags = {key: read_flags(arrays[key], report, field=key, count=count) for key in _FLAGS if key in arrays}
    sized = {key: values for key, values in arrays.items() if key in allowed and key not in _FLAGS}
    stops = np.cumsum(lengths)
    return tuple(
        _episode(sized, flags, index, (int(stop) - int(length), int(stop), steps))
        for index, (length, stop) in enumerate(zip(lengths, stops, strict=True))
    )


def _episode(
    arrays: Mapping[str, AnyArray],
    flags: Mapping[str, NDArray[np.bool_]],
    index: int,
    place: tuple[int, int, int],
) -> RawEpisode:
    """Episode `index`, rows `start` to `stop` of `steps` in all (`place`)."""
    start, stop, steps = place

    def rows(key: str) -> AnyArray:
        """The rows of this episode, T or T + 1 of them by the size of the array."""
        values = arrays[key]
        if len(values) == steps:
            return values[start:stop]
        return values[start + index : stop + index + 1]

    known = flags.get("is_final_observation_known")
    return RawEpisode(
        name=str(index),
        observations=rows("observations"),
        actions=rows("actions"),
        rewards=rows("rewards") if "rewards" in arrays else absent_rewards(stop - start),
        has_rewards="rewards" in arrays,
        terminations=flag_array(stop - start, last=bool(flags["terminated"][index])),
        truncations=flag_array(stop - start, last=bool(flags["truncated"][index])),
        final_observation="logged" if known is None or bool(known[index]) else "unknown",
        behaviour_log_prob=rows("behaviour_log_prob") if "behaviour_log_prob" in arrays else None,
        timestamps=rows("timestamps") if "timestamps" in arrays else None,
        infos={key.removeprefix(_INFO_PREFIX): rows(key) for key in arrays if key.startswith(_INFO_PREFIX)},
    )


def _flatten(dataset: Dataset) -> dict[str, Any]:
    episodes = dataset.episodes
    arrays: dict[str, Any] = {
        "lengths": dataset.episode_lengths,
        "observations": np.concatenate([episode.observations for episode in episodes]),
        "actions": stored_actions(np.concatenate([e.actions for e in episodes]), dataset.spec),
        "terminated": np.array([episode.terminated for episode in episodes]),
        "truncated": np.array([episode.truncated for episode in episodes]),
        "is_final_observation_known": np.array([e.is_final_observation_known for e in episodes]),
        **archive_space(dataset.spec),
        "info": np.array(dataset.info.to_json()),
    }
    if dataset.has_rewards:
        arrays["rewards"] = np.concatenate([episode.rewards for episode in episodes])
    else:
        arrays["has_rewards"] = np.array([False])
    log_probs = behaviour_log_probs(dataset)
    if log_probs is not None:
        arrays["behaviour_log_prob"] = log_probs
    times = [episode.timestamps for episode in episodes if episode.timestamps is not None]
    if len(times) == len(episodes):
        arrays["timestamps"] = np.concatenate(times)
    for name in common_infos(dataset):
        arrays[_INFO_PREFIX + name] = np.concatenate([episode.infos[name] for episode in episodes])
    return arrays


FORMATS.register("npz")(NpzFormat())
