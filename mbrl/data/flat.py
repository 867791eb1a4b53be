"""Flat rows, one transition each, cut into episodes: D4RL's layout, and what users hold in their own arrays.

The row after a terminal or a time-out belongs to another episode and is never taken for a successor. Without
`next_observations`, a terminal step keeps its reward and an unknown successor; the last step before a
time-out is dropped (it has nothing to bootstrap from), and counted. With `next_observations` every row is
kept; a flagged row whose `next_observations` equals the first observation of the next episode was made by
shifting, and counts as unknown. Without `timeouts`, episodes end where `next_observations` breaks off, or
every `max_episode_steps`. A flag that is named `done` says that something ended, not what: the option `dones`
does.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.names import listed
from mbrl.data.checks import as_float32
from mbrl.data.flags import read_flags, settle_dones
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawEpisode, absent_rewards

LOG_PROB: Final = "action_log_probs"
"""The info that holds log-densities of the behaviour."""

FLAT_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "observations": ("observations", "observation", "obs"),
    "actions": ("actions", "action", "act"),
    "rewards": ("rewards", "reward", "rew"),
    "terminals": ("terminals", "terminal", "terminations", "terminated"),
    "dones": ("dones", "done"),
    "timeouts": ("timeouts", "timeout", "truncations", "truncated"),
    "next_observations": ("next_observations", "next_observation", "next_obs"),
    "is_successor_known": ("is_successor_known",),
}
"""What people call flat arrays in files, by our names for them."""

_WITHOUT: Final = {
    "rewards": ", or read a log that has none with rewards=ignore",
    "terminals": ": 0 everywhere if the task never ended",
}
_CONTINUITY: Final = 1e-5  # relative, float32 against float64 copies of one number
_FLAGS: Final = ("terminals", "timeouts", "is_successor_known")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FlatRows:
    """Arrays of N rows each; flags as booleans.

    Attributes:
        observations: `[N, ...]`.
        actions: `[N, ...]`.
        rewards: `[N]`; None for rows without rewards.
        terminals: `[N]`, the task ended with this row.
        timeouts: `[N]`, the episode was cut after this row; None where nobody noted it.
        next_observations: `[N, ...]`, None likewise.
        is_successor_known: `[N]`, None likewise.
        infos: further arrays by name.
        file: where they were read; None for a user's own arrays.
        names: what the user calls the arrays, where that is something else.
    """

    observations: AnyArray
    actions: AnyArray
    rewards: AnyArray | None
    terminals: NDArray[np.bool_]
    timeouts: NDArray[np.bool_] | None
    next_observations: AnyArray | None
    is_successor_known: NDArray[np.bool_] | None
    infos: Mapping[str, AnyArray]
    file: object | None
    names: Mapping[str, str]

    def error(self, problem: str, field: str, *, remedy: str, row: int | None = None) -> DataError:
        """An error that names an array as the user does."""
        name = self.names.get(field, field)
        return DataError(problem, file=self.file, field=name, row=row, remedy=remedy)


def read_flat(
    arrays: Mapping[str, AnyArray],
    infos: Mapping[str, AnyArray],
    counts: Counter[str],
    *,
    file: object | None,
    names: Mapping[str, str] | None = None,
) -> FlatRows:
    """Checks that arrays go together row by row, and that flags are flags.

    Args:
        arrays: by the names of `FlatRows`; the first four must be there, `rewards` excepted.
        infos: further arrays; those with another number of rows are left out.
        counts: told of what was left out.
        file: where they were read.
        names: what the user calls the arrays, where that is something else.

    Raises:
        DataError: there are no rows, or an array has another number of them, or a flag is none.
    """
    called = dict(names or {})
    rewards = arrays.get("rewards")
    leading = arrays["actions"] if rewards is None else rewards
    counted, count = "actions" if rewards is None else "rewards", leading.shape[0] if leading.ndim else 0
    if count == 0:
        field = called.get(counted, counted)
        raise DataError("no rows", file=file, field=field, remedy="The log is empty: record it again.")
    log_prob = infos.get(LOG_PROB)
    sized = {**arrays, **({} if log_prob is None else {LOG_PROB: log_prob})}
    for key, values in sized.items():
        if values.shape[:1] != (count,) or (key in _FLAGS and values.size != count):
            raise DataError(
                f"shape {values.shape}, dtype {values.dtype}, where the {counted} have {count} rows",
                file=file,
                field=called.get(key, key),
                row=min(count, values.shape[0]) if values.ndim else None,
                remedy="All flat arrays need equally many rows; flags need one number per row.",
            )
    problem = functools.partial(DataError, file=file)
    flags = {
        key: read_flags(arrays[key], problem, field=called.get(key, key), count=count)
        for key in _FLAGS
        if key in arrays
    }
    kept = {name: values for name, values in infos.items() if values.shape[:1] == (count,)}
    if len(kept) < len(infos):
        counts["infos left out: other number of rows"] += len(infos) - len(kept)
    return FlatRows(
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=rewards,
        terminals=flags["terminals"],
        timeouts=flags.get("timeouts"),
        next_observations=arrays.get("next_observations"),
        is_successor_known=flags.get("is_successor_known"),
        infos=kept,
        file=file,
        names=called,
    )


def find_names(present: Collection[str], options: LoadOptions, *, file: object | None) -> dict[str, str]:
    """What a file calls the flat arrays that it has, by our names.

    Args:
        present: keys of the file.
        options: of the load, which may do without rewards.
        file: where.

    Raises:
        DataError: an array is there under two names, or one is missing that must be there.
    """
    found: dict[str, str] = {}
    for key, names in FLAT_NAMES.items():
        there = [name for name in names if name in present]
        if len(there) > 1:
            raise DataError(
                f"{there[0]} and {there[1]} are names of the same",
                file=file,
                field=there[1],
                remedy="Keep one of them.",
            )
        if there:
            found[key] = there[0]
    if options.rewards == "ignore":
        found.pop("rewards", None)
    needed = ["observations", "actions", *(["rewards"] if options.rewards == "read" else [])]
    for key in (*needed, *([] if "dones" in found else ["terminals"])):
        if key not in found:
            raise DataError(
                f"the key is missing; present: {listed(present)[:300]}",
                file=file,
                field=key,
                remedy=f"Write it as {', '.join(FLAT_NAMES[key])}{_WITHOUT.get(key, '')}.",
            )
    if "terminals" in found and "dones" in found:
        raise DataError(
            f"there are {found['terminals']} and {found['dones']}",
            file=file,
            field=found["dones"],
            remedy="Keep the terminals; add timeouts where recordings were cut.",
        )
    return found


def name_ends(
    arrays: dict[str, AnyArray], names: Mapping[str, str], options: LoadOptions, *, file: object | None
) -> None:
    """Puts `terminals`, and `timeouts` where they are known, in the place of `dones`; in place.

    Raises:
        DataError: the flags are none, or nobody says what they mean.
    """
    count = len(arrays["observations"]) if arrays["observations"].ndim else 0
    if "dones" not in arrays:
        return
    report = functools.partial(DataError, file=file)
    dones = read_flags(arrays.pop("dones"), report, field=names["dones"], count=count)
    if "timeouts" in arrays:
        arrays["terminals"] = dones
        return
    ends = np.flatnonzero(dones)
    is_terminal = settle_dones(dones[ends], np.diff(ends, prepend=-1), options, report, field=names["dones"])
    arrays["terminals"] = np.zeros(count, dtype=np.bool_)
    arrays["terminals"][ends] = is_terminal
    if len(ends) and options.dones != "terminated":
        arrays["timeouts"] = dones & ~arrays["terminals"]


def cut_flat(
    flat: FlatRows, counts: Counter[str], *, max_episode_steps: int | None
) -> tuple[RawEpisode, ...]:
    """The episodes of flat rows.

    Args:
        flat: the rows.
        counts: told of successors that were found to be another episode's.
        max_episode_steps: time limit, for rows without time-outs.

    Raises:
        DataError: ends of episodes cannot be told, or successors are not those of the next rows.
    """
    flagged, timeouts = _flagged_ends(flat, max_episode_steps)
    ends = flagged.copy()
    ends[-1] = True
    is_shifted = np.zeros_like(ends)
    if flat.next_observations is not None:
        is_linked = _is_linked(flat)
        _refuse_shuffled(flat, ~is_linked & ~flagged[:-1])
        ends[:-1] |= ~is_linked
        if flat.is_successor_known is None:
            is_shifted[:-1] = flagged[:-1] & is_linked
            is_shifted[-1] = bool(is_shifted.any())
            if bool(is_shifted.any()):
                counts["successors taken from the next episode"] += int(is_shifted.sum())
        else:
            is_shifted = ~flat.is_successor_known
    stops = np.flatnonzero(ends) + 1
    starts = np.concatenate([[0], stops[:-1]])
    return tuple(
        _episode(flat, timeouts, index, (int(start), int(stop)), is_shifted=bool(is_shifted[stop - 1]))
        for index, (start, stop) in enumerate(zip(starts, stops, strict=True))
    )


def _flagged_ends(flat: FlatRows, limit: int | None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows that end an episode by a flag or the time limit, and the time-outs among them."""
    if flat.timeouts is not None:
        return flat.terminals | flat.timeouts, flat.timeouts
    timeouts = np.zeros_like(flat.terminals)
    if limit is None:
        if flat.next_observations is None:
            raise flat.error(
                f"there are neither {flat.names.get('timeouts', 'timeouts')} nor next_observations, so the "
                "ends of episodes are unknown",
                "timeouts",
                remedy="Give the time limit of the task with max_episode_steps.",
            )
        return flat.terminals, timeouts
    stops = np.concatenate([np.flatnonzero(flat.terminals) + 1, [len(timeouts)]])
    starts = np.concatenate([[0], stops[:-1]])
    for start, stop in zip(starts, stops, strict=True):
        timeouts[start + limit - 1 : stop : limit] = True
    timeouts &= ~flat.terminals
    return flat.terminals | timeouts, timeouts


def _is_linked(flat: FlatRows) -> NDArray[np.bool_]:
    """`[N - 1]`, where the logged successor is the observation of the next row."""
    after, following = flat.next_observations, flat.observations[1:]
    is_numeric = flat.observations.dtype.kind in "fiub" and after is not None and after.dtype.kind in "fiub"
    if after is None or after.shape != flat.observations.shape or not is_numeric:
        raise flat.error(
            f"shape {None if after is None else after.shape} differs from the observations' "
            f"{flat.observations.shape}, or one of them is not numeric",
            "next_observations",
            remedy="Store one successor per row, or leave the key out.",
        )
    after, following = as_float32(after[:-1]), as_float32(following)
    with np.errstate(invalid="ignore"):  # infinities are reported by the checks, with their place
        is_far: AnyArray = np.abs(after - following) > _CONTINUITY * np.maximum(
            np.abs(following), np.abs(after)
        )
    is_linked: NDArray[np.bool_] = np.logical_not(is_far.any(axis=tuple(range(1, is_far.ndim))))
    return is_linked


def _refuse_shuffled(flat: FlatRows, is_broken: NDArray[np.bool_]) -> None:
    if len(is_broken) > 1 and float(is_broken.mean()) > 0.5:
        raise flat.error(
            f"{int(is_broken.sum())} of {len(is_broken)} rows lead elsewhere than to the next row",
            "next_observations",
            row=int(is_broken.argmax()),
            remedy="Sort the rows by machine, episode and time: shuffled rows, or rows of several machines "
            "in turn, cannot be split by episode.",
        )


def _episode(
    flat: FlatRows, timeouts: NDArray[np.bool_], index: int, rows: tuple[int, int], *, is_shifted: bool
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
        rewards=absent_rewards(stop - start) if flat.rewards is None else flat.rewards[start:stop],
        has_rewards=flat.rewards is not None,
        terminations=flat.terminals[start:stop],
        truncations=timeouts[start:stop],
        final_observation="logged" if is_logged else "absent",
        behaviour_log_prob=infos.pop(LOG_PROB, None),
        infos=infos,
    )
