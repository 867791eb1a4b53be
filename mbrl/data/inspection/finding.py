"""What an inspection says: a finding, where in the log it stands, and a chart that shows it."""

from typing import Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Severity: TypeAlias = Literal["error", "warning", "note"]

MAX_PLACES: Final = 50
"""Places that a finding names at most."""


class Place(BaseModel):
    """A stretch of an episode that a finding is about.

    Attributes:
        episode: index of the episode, or of the run of a raw log.
        start: seconds in it.
        stop: likewise; equal to `start` for an instant.
        channel: that it is about; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode: int
    start: float
    stop: float
    channel: str | None = None


class Curve(BaseModel):
    """Values against a horizontal axis, at most a few hundred of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]


class Chart(BaseModel):
    """A figure as numbers; whoever makes pages draws it.

    Attributes:
        title: a few words.
        x_label: what the horizontal axis shows, with its unit.
        y_label: likewise, vertical.
        curves: lines; or bars, each curve a group of them, where `bars` names the rows.
        upright: vertical reference lines, name and value.
        across: horizontal ones.
        bars: names of the rows of a bar chart, from the top; `y` of a curve are their lengths.
        is_log: whether the vertical axis of lines is logarithmic.
        is_dots: dots instead of lines.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    x_label: str
    y_label: str = ""
    curves: tuple[Curve, ...]
    upright: tuple[tuple[str, float], ...] = ()
    across: tuple[tuple[str, float], ...] = ()
    bars: tuple[str, ...] = ()
    is_log: bool = False
    is_dots: bool = False


class DataFinding(BaseModel):
    """One thing that the user should know.

    Attributes:
        severity: an `error` forbids training, a `warning` makes its result doubtful, a `note` is worth
            knowing.
        text: what was found.
        remedy: what to do about it.
        kind: short name of the sign, such as `gaps`; empty for findings without one.
        channels: that it is about.
        places: where it stands; of many, the first `MAX_PLACES`.
        chart: a figure that shows it; not part of the JSON.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity
    text: str
    remedy: str
    kind: str = ""
    channels: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    chart: Chart | None = Field(default=None, exclude=True, repr=False)
