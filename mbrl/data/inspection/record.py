"""Channels against time, the form in which raw files and datasets are examined alike."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mbrl.data.dataset import Dataset

Floats: TypeAlias = NDArray[np.float64]
Role: TypeAlias = Literal["observation", "action", "other"]

_ANGLE: Final = re.compile(
    r"(^|[^a-z])(pos|position|angle|theta|alpha|phi|psi|beta|q|yaw|pitch|roll|joint|winkel)([^a-z]|$|\d)|pos_|_pos",
    re.I,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Channel:
    """A column of a record.

    Attributes:
        name: that findings use.
        role: what the schema or the dataset says of it.
        column: of the file that it is read from; equal to `name` in a dataset.
        unit: if it is known.
    """

    name: str
    role: Role
    column: str = ""
    unit: str = ""

    @property
    def source(self) -> str:
        """The column, as a line of a schema names it."""
        return self.column or self.name

    @property
    def may_be_angle(self) -> bool:
        """Whether its unit or its name is that of an angle."""
        return self.unit in {"rad", "deg"} or (not self.unit and _ANGLE.search(self.source) is not None)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Rows in the order of time: an episode, or what a file holds between two resets of its clock.

    Attributes:
        name: how findings call it.
        file: that it comes from; empty in a dataset.
        time: `[n]` seconds, ascending.
        values: `[n, channels]`; NaN where there is none, as for the action of a final observation.
        is_terminated: whether it is marked as ended by the task; None where nothing says so.
        has_final: whether its last row is an observation without an action.
    """

    name: str
    file: str
    time: Floats
    values: Floats
    is_terminated: bool | None = None
    has_final: bool = False

    @property
    def seconds(self) -> float:
        """From the first row to the last."""
        return float(self.time[-1] - self.time[0]) if len(self.time) else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class ClockFault:
    """A stamp that does not follow the one above it."""

    trace: int
    row: int
    before: float
    after: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Record:
    """Everything that is examined.

    Attributes:
        name: of the log.
        channels: what the columns of `values` are.
        traces: episodes or runs.
        step: seconds of a control step, which models are judged at.
        is_raw: rows of files; else steps of a dataset.
        is_timed: whether the stamps were logged.
        is_simulated: whether it names the environment that made it, whose bounds are its own.
        are_choices: whether its actions are one choice, a column of 0 and 1 for each that may be taken.
        resets: where clocks go back; a trace begins behind each.
        repeats: where a stamp equals the one above it; the second row is left out.
        headers: files by their columns, raw files alone.
        texts: by file, its columns that hold texts where numbers were expected, with one of them.
        faults: by file, why it is not examined.
    """

    name: str
    channels: tuple[Channel, ...]
    traces: tuple[Trace, ...]
    step: float
    is_raw: bool = False
    is_timed: bool = True
    is_simulated: bool = False
    are_choices: bool = False
    resets: tuple[ClockFault, ...] = ()
    repeats: tuple[ClockFault, ...] = ()
    headers: Mapping[tuple[str, ...], tuple[str, ...]] = dataclasses.field(
        default_factory=dict[tuple[str, ...], tuple[str, ...]]
    )
    texts: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict[str, Mapping[str, str]])
    faults: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def indices(self, *roles: Role) -> list[int]:
        """Columns of the channels of some roles."""
        return [index for index, channel in enumerate(self.channels) if channel.role in roles]

    def column(self, index: int) -> list[Floats]:
        """A channel, trace by trace, without rows that lack a value."""
        columns = (trace.values[:, index] for trace in self.traces)
        return [values[np.isfinite(values)] for values in columns]

    def enumerated(self, *roles: Role) -> Iterator[tuple[int, Channel]]:
        """Index and channel of some roles, of all without any."""
        for index, channel in enumerate(self.channels):
            if not roles or channel.role in roles:
                yield index, channel

    @property
    def rows(self) -> int:
        """Of all traces."""
        return sum(len(trace.time) for trace in self.traces)


def record_of(dataset: Dataset) -> Record:
    """The episodes of a dataset as a record."""
    info, spec = dataset.info, dataset.spec
    channels = [Channel(name, "observation") for name in dataset.obs_names]
    channels += [Channel(name, "action") for name in dataset.act_names]
    step = info.time_step or 1.0
    traces: list[Trace] = []
    timed = True
    for index, episode in enumerate(dataset.episodes):
        actions = np.full((len(episode) + 1, spec.act_dim), np.nan)
        actions[:-1] = episode.actions
        values = np.concatenate([episode.observations.astype(np.float64), actions], axis=1)
        if not episode.is_final_observation_known:
            values[-1] = np.nan
        timed = timed and episode.timestamps is not None
        counted = step * np.arange(len(episode) + 1, dtype=np.float64)
        time = counted if episode.timestamps is None else episode.timestamps.astype(np.float64)
        traces.append(Trace(f"episode {index}", "", time, values, episode.terminated, has_final=True))
    return Record(
        info.name, tuple(channels), tuple(traces), step,
        is_timed=timed, is_simulated=info.env_id is not None, are_choices=spec.choices is not None,
    )  # fmt: skip
