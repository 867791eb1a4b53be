"""Observations and actions at given times, by what a schema says of each channel."""

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from mbrl.data.expressions.parse import parse_expression
from mbrl.data.importing.schema import Action, ImportSchema, Observation
from mbrl.data.importing.signals import Floats, Signal, unwrapped

Signals: TypeAlias = Mapping[str, Signal]


def look_back(schema: ImportSchema) -> float:
    """Seconds before a time that its observation reads."""
    return max((channel.window or 0.0 for channel in schema.observations), default=0.0)


def resolve_channels(schema: ImportSchema) -> ImportSchema:
    """Every channel with its name and scale; a rate of change takes those of the observation below it."""
    below = {c.column: c for c in schema.observations if c.column is not None}
    observations: list[Observation] = []
    for channel in schema.observations:
        parent = below.get(channel.derivative) if channel.derivative is not None else None
        scale, wrap = channel.scale, channel.wrap
        if parent is not None and scale is None:
            scale = parent.scale
        if parent is not None and wrap == "none" and parent.wrap != "none":
            wrap = "unwrap"
        filled = {"name": channel.label, "scale": 1.0 if scale is None else scale, "wrap": wrap}
        observations.append(channel.model_copy(update=filled))
    actions = [
        c.model_copy(update={"name": c.label, "scale": 1.0 if c.scale is None else c.scale})
        for c in schema.actions
    ]
    return schema.model_copy(update={"observations": tuple(observations), "actions": tuple(actions)})


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Samples the columns of a piece; angles that are wrapped are unwrapped before.

    Attributes:
        schema: resolved.
        signals: the columns as they were read.
        angles: unwrapped channels by name, in their unit.
    """

    schema: ImportSchema
    signals: Signals
    angles: Signals

    @classmethod
    def of(cls, schema: ImportSchema, signals: Signals) -> "Sampler":
        """Unwraps what the schema says are angles."""
        angles: dict[str, Signal] = {}
        for channel in schema.observations:
            source = channel.derivative or channel.column
            if channel.wrap != "none" and source is not None:
                signal = signals[source]
                values = unwrapped(_scaled(channel, signal.value))
                angles[channel.name] = dataclasses.replace(signal, value=values)
        return cls(schema, signals, angles)

    def frames(self, at: Floats) -> Floats:
        """`[k, d]` observations of one frame."""
        columns: list[Floats] = []
        for channel in self.schema.observations:
            values = self._observe(channel, at)
            columns += [np.cos(values), np.sin(values)] if channel.wrap == "cossin" else [values]
        return np.stack(columns, axis=1)

    def actions(self, edges: Floats) -> Floats:
        """`[k - 1, a]` actions of the steps between `edges`."""
        return np.stack([self._act(channel, edges) for channel in self.schema.actions], axis=1)

    def _observe(self, channel: Observation, at: Floats) -> Floats:
        signal = self.angles.get(channel.name)
        if channel.derivative is not None:
            assert channel.window is not None
            if signal is not None:
                return signal.rate(at, channel.window)
            return _scaled(channel, self.signals[channel.derivative].rate(at, channel.window))
        if signal is not None:
            return signal.linear(at)
        if channel.expression is not None:
            expression = parse_expression(channel.expression)
            values = {name: self.signals[name].linear(at) for name in expression.names}
            return _scaled(channel, expression.evaluate(values, len(at)))
        assert channel.column is not None
        return _scaled(channel, self.signals[channel.column].linear(at))

    def _act(self, channel: Action, edges: Floats) -> Floats:
        def sample(name: str) -> Floats:
            signal = self.signals[name]
            is_mean = channel.resample == "mean" and channel.choices is None  # there is none of choices
            return signal.mean(edges) if is_mean else signal.held(edges[:-1])

        if channel.expression is not None:
            expression = parse_expression(channel.expression)
            values = {name: sample(name) for name in expression.names}
            found = _scaled(channel, expression.evaluate(values, len(edges) - 1))
        else:
            assert channel.column is not None
            found = _scaled(channel, sample(channel.column))
        if channel.low is None or channel.high is None:
            return found
        # What exceeds a bound by rounding alone is moved to it in any case.
        slack = np.inf if channel.clip else 1e-9 * (channel.high - channel.low)
        is_near = (found >= channel.low - slack) & (found <= channel.high + slack)
        return np.where(is_near, np.clip(found, channel.low, channel.high), found)


def _scaled(channel: Observation | Action, values: Floats) -> Floats:
    return (1.0 if channel.scale is None else channel.scale) * values + channel.offset
