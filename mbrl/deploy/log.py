"""From a log to the channels of a contract, and back from the runtime's own log to a dataset."""

import dataclasses
from typing import Any

import numpy as np
from pydantic import ValidationError

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.expressions.parse import parse_expression
from mbrl.data.expressions.steps import NEXT
from mbrl.data.importing.schema import ImportSchema, Observation
from mbrl.deploy.contract import ActionChannel, ObservationChannel


@dataclasses.dataclass(frozen=True, slots=True)
class FrameLayout:
    """How the observations of a log are made of frames.

    Attributes:
        history: frames in an observation, the latest first.
        names: of the channels of one.
        schema: that made the log, or None.
    """

    history: int
    names: tuple[str, ...]
    schema: ImportSchema | None

    @classmethod
    def of(cls, log: Dataset) -> "FrameLayout":
        """By the log's import schema; one frame where there is none.

        Raises:
            DataError: the schema does not describe the observations.
        """
        names, schema = log.obs_names, _schema_of(log)
        if schema is None or schema.obs_names != names:
            return cls(1, names, schema=None)
        return cls(schema.history, schema.frame_names, schema)


def _schema_of(log: Dataset) -> ImportSchema | None:
    if log.info.schema is None:
        return None
    try:
        return ImportSchema.model_validate_json(log.info.schema)
    except ValidationError as error:
        raise DataError(
            f"the schema that made {log.info.name!r} cannot be read ({error.errors()[0]['msg']})",
            field="info.schema",
            remedy="Import the raw files again.",
        ) from error


def observation_channels(log: Dataset, layout: FrameLayout) -> tuple[ObservationChannel, ...]:
    """The channels of a frame, with their ranges in the log."""
    count = len(layout.names)
    rows = np.concatenate([episode.observations[:, :count] for episode in log.episodes])
    low, high = rows.min(0), rows.max(0)
    told: list[tuple[str | None, str]] = []
    for channel in () if layout.schema is None else layout.schema.observations:
        unit = None if channel.wrap == "cossin" else channel.unit
        told += [(unit, _made_of(channel, name)) for name in channel.names]
    return tuple(
        ObservationChannel(
            name=name,
            unit=told[k][0] if told else None,
            made_of=told[k][1] if told else None,
            logged_low=float(low[k]),
            logged_high=float(high[k]),
        )
        for k, name in enumerate(layout.names)
    )


def action_channels(
    log: Dataset, layout: FrameLayout, max_change: tuple[float, ...] | None
) -> tuple[ActionChannel, ...]:
    """The channels of an action, with their limits and the largest change of the log."""
    changes = [np.abs(np.diff(e.actions, axis=0)).max(0) for e in log.episodes if len(e) > 1]
    largest = np.max(changes, axis=0) if changes else np.zeros(log.spec.act_dim)
    told = () if layout.schema is None else layout.schema.actions
    return tuple(
        ActionChannel(
            name=name,
            unit=told[k].unit if told else None,
            kind=told[k].kind if told else None,
            low=log.spec.act_low[k],
            high=log.spec.act_high[k],
            max_change=None if max_change is None else max_change[k],
            logged_change=float(largest[k]),
        )
        for k, name in enumerate(log.act_names)
    )


def longest_repeat(log: Dataset, layout: FrameLayout) -> int:
    """How often in a row the log repeats a frame bit by bit."""
    longest = 0
    for episode in log.episodes:
        frames = episode.observations[:, : len(layout.names)]
        same = np.concatenate(([False], (frames[1:] == frames[:-1]).all(1), [False]))
        edges = np.flatnonzero(same[1:] != same[:-1])
        longest = max(longest, int((edges[1::2] - edges[::2]).max(initial=0)))
    return longest


def log_schema(log: Dataset, layout: FrameLayout, channels: tuple[ActionChannel, ...]) -> ImportSchema:
    """What the columns of the runtime's log are, for `mbrl import`.

    Rewards and terminations are those of the log where they are rules of its channels.
    """
    rate = None if log.info.time_step is None else 1.0 / log.info.time_step
    own = {*layout.names, *(NEXT + name for name in layout.names), *log.act_names}
    values: dict[str, Any] = {
        "name": log.info.name[:240].replace("/", "-") + "-deployed",
        "source": "log of a deployed policy",
        "time": {"column": "time"},
        # The clock of a robot jitters: its rows go to the rate of the log that was learned from.
        "rate": rate,
        "missing": "error" if rate is None else "skip",
        "max_gap": None if rate is None else 1.9 / rate,
        "observations": [{"column": name} for name in layout.names],
        "actions": [
            {"column": c.name, "resample": "hold", "low": c.low, "high": c.high, "clip": True}
            for c in channels
        ],
        "history": layout.history,
        "episodes": {"by": "column", "column": "episode"},
    }
    rules = {"reward": log.info.reward_rule, "termination": log.info.termination_rule}
    for place, rule in rules.items():
        if rule is not None and own.issuperset(parse_expression(rule).names):
            values[place] = rule
    return ImportSchema.model_validate(values)


def _made_of(channel: Observation, name: str) -> str:
    """A channel in the words of its schema."""
    if channel.derivative is not None:
        text = f"mean rate of change of {channel.derivative} over {channel.window:g} s"
    else:
        text = str(channel.expression or channel.column)
    if channel.scale not in (None, 1.0):
        text = f"{channel.scale:g} * ({text})"
    if channel.offset:
        text = f"{text} + {channel.offset:g}"
    if channel.wrap == "cossin":
        return f"{'cos' if name == channel.names[0] else 'sin'}({text})"
    return f"unwrapped {text}" if channel.wrap == "unwrap" else text
