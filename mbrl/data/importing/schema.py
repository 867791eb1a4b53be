"""What a user says of raw files: which columns are time, observations and actions, and how to read them.

A schema is a yaml file; every key is explained here. The one with every default and every name written out
travels in the dataset that it made.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mbrl.core.history import LAG
from mbrl.core.types import MAX_DIM
from mbrl.data.expressions.parse import ExpressionError, parse_expression
from mbrl.data.expressions.steps import COSINE, NEXT, SINE
from mbrl.data.importing.vocabulary import ChoiceColumn
from mbrl.data.info import MAX_NAME

Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Finite: TypeAlias = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]
Label: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
Glob: TypeAlias = Annotated[str, Field(min_length=1, max_length=1000)]

ALL: Final = "[*]"
"""Ends the name of a column that is a list: all its entries, `state[0]`, `state[1]`, ..."""


def _check_expression(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = repr(value)
    if isinstance(value, str):
        try:
            parse_expression(value)
        except ExpressionError as error:
            raise ValueError(str(error)) from error
    return value


Formula: TypeAlias = Annotated[str, BeforeValidator(_check_expression)]
"""An expression in the language of `mbrl.data.expressions`, checked for its form."""


class Part(BaseModel):
    """A part of a schema: read-only, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CsvConfig(Part):
    """How csv files are written.

    Attributes:
        delimiter: between two values: one character.
        decimal: the decimal point.
        encoding: of the text.
        skip_rows: lines before the header.
        header: whether a line of names comes before the rows; without it they are `column_0`, `column_1`, ...
        missing_values: texts that stand for no value.
    """

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    decimal: Literal[".", ","] = "."
    encoding: Annotated[str, Field(min_length=1, max_length=40)] = "utf-8"
    skip_rows: Annotated[int, Field(ge=0, le=100_000)] = 0
    header: bool = True
    missing_values: tuple[Annotated[str, Field(max_length=40)], ...] = ("", "nan", "NaN", "NAN", "null", "NA")

    @model_validator(mode="after")
    def _differ(self) -> "CsvConfig":
        if self.delimiter == self.decimal:
            raise ValueError(f"delimiter and decimal are both {self.decimal!r}")
        return self


class TimeConfig(Part):
    """The clock of the rows.

    Attributes:
        column: of the time stamps; None where rows are `step` apart.
        step: seconds between rows, for files without a clock.
        unit: of the stamps; `datetime` for dates such as 2024-05-01T12:00:00.
        epoch: stamps count from 1970 or another far day: the first one of each file becomes 0.
        restarts: a stamp before the one above it is an `error`, or begins a `new_episode`.
        repeated: a stamp equal to the one above it is an `error`, or the row is left out (`drop`).
    """

    column: Label | None = None
    step: Positive | None = None
    unit: Literal["s", "ms", "us", "ns", "datetime"] = "s"
    epoch: bool = False
    restarts: Literal["error", "new_episode"] = "error"
    repeated: Literal["error", "drop"] = "error"

    @model_validator(mode="after")
    def _one_clock(self) -> "TimeConfig":
        if (self.column is None) == (self.step is None):
            raise ValueError("give either column (of the time stamps) or step (seconds between rows)")
        return self


class SourceConfig(Part):
    """One of several kinds of files that together make a run: one file per signal, or per rate.

    Attributes:
        files: which files these are: a pattern that the end of their path matches. What its stars stand for
            says which files belong together: `*_pos.csv` and `*_cmd.csv` join `run1_pos.csv` with
            `run1_cmd.csv`.
        columns: new names of columns, where two kinds of files use the same one: `{position: value}`.
        time: their clock, where it is not that of the schema.
        csv: their way of writing, likewise.
    """

    files: Glob
    columns: dict[Label, Label] = Field(default_factory=dict)
    time: TimeConfig | None = None
    csv: CsvConfig | None = None


def _from_text(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class Channel(Part):
    """What observations and actions share.

    Attributes:
        column: that it is read from; `name[*]` for every entry of a column of lists.
        expression: or what it is computed from: an expression over columns.
        name: in the dataset; that of the column by default.
        scale: the value is multiplied by it (radians per tick, 1 per 10 V).
        offset: and this is added afterwards.
        unit: of the result, for people.
    """

    column: Label | None = None
    expression: Formula | None = None
    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    scale: Finite | None = None
    offset: Finite = 0.0
    unit: Annotated[str, Field(max_length=40)] | None = None

    @property
    def label(self) -> str:
        """What it is called: its name, else its column."""
        return self.name or self.column or ""

    def columns(self) -> tuple[str, ...]:
        """The columns that it is made of."""
        if self.expression is not None:
            return parse_expression(self.expression).names
        return () if self.column is None else (self.column,)

    def check_sources(self, *sources: Any) -> None:
        """Refuses a channel of two origins, or of none, or without a name."""
        kinds = ", ".join(type(self).model_fields.keys() & {"column", "expression", "derivative"})
        if sum(source is not None for source in sources) != 1:
            raise ValueError(f"give exactly one of {kinds}")
        if not self.label:
            raise ValueError("a channel that is computed needs a name")
        if self.scale == 0:
            raise ValueError("a scale of 0 leaves nothing")


class Observation(Channel):
    """A channel of the observation: linear between rows.

    Attributes:
        derivative: column whose rate of change it is: `(x(t) - x(t - window)) / window`, the mean over the
            last `window` seconds. Scale and wrap are those of the observation of that column unless given.
        window: seconds; a tick of an encoder leaves steps of tick / window in the rate.
        wrap: `cossin` turns an angle into its cosine and sine, `unwrap` takes out jumps of a turn (after
            `scale`, in radians); `none` leaves it.
    """

    derivative: Label | None = None
    window: Positive | None = None
    wrap: Literal["none", "cossin", "unwrap"] = "none"

    @model_validator(mode="after")
    def _is_sound(self) -> "Observation":
        self.check_sources(self.column, self.expression, self.derivative)
        if (self.derivative is None) != (self.window is None):
            raise ValueError("derivative and window (seconds) go together")
        if self.derivative is not None and self.wrap == "cossin":
            raise ValueError("a rate of change has no cosine: wrap: unwrap unwraps the angle below it")
        if self.expression is not None and self.wrap == "unwrap":
            raise ValueError("an expression cannot be unwrapped; unwrap a column, or use wrap: cossin")
        return self

    def columns(self) -> tuple[str, ...]:
        """The columns that it is made of."""
        return (self.derivative,) if self.derivative is not None else Channel.columns(self)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its dimensions."""
        return (self.label + COSINE, self.label + SINE) if self.wrap == "cossin" else (self.label,)


class Action(Channel, ChoiceColumn):
    """A channel of the action; with `choices` (`ChoiceColumn`) a column of labels or ids, the only channel.

    Attributes:
        kind: `commanded` to the machine, or `measured` on it. Said in the dataset; a measured one may depend
            on the state that follows.
        resample: the action of a step is its `mean` over the step, every value being held until the next row;
            or the value at the start of the step (`hold`).
        low: bound of the machine, after `scale` and `offset`; without bounds, the range of the log.
        high: likewise.
        clip: whether values beyond the bounds are moved to them.
    """

    kind: Literal["commanded", "measured"] = "commanded"
    resample: Literal["mean", "hold"] = "mean"
    low: Finite | None = None
    high: Finite | None = None
    clip: bool = False

    @model_validator(mode="after")
    def _is_sound(self) -> "Action":
        self.check_sources(self.column, self.expression)
        has_numbers = (self.scale or 1.0, self.offset, self.low) != (1.0, 0.0, None)
        self.check_choices(self.column, has_numbers=has_numbers)
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high go together")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low:g} must lie below high {self.high:g}")
        if self.clip and self.low is None:
            raise ValueError("clip needs low and high")
        return self


class EpisodeConfig(Part):
    """Where episodes begin and end. A gap in time, or a clock that restarts, ends one in any case.

    Attributes:
        by: `file`; `gap` (`max_gap` says what one is); `column` (a change of its value); `time` (every
            `seconds`).
        column: of episode numbers or names.
        seconds: length of an episode.
        min_steps: shorter episodes are left out, and counted.
    """

    by: Literal["file", "gap", "column", "time"] = "file"
    column: Label | None = None
    seconds: Positive | None = None
    min_steps: Annotated[int, Field(ge=1, le=10**9)] = 1

    @model_validator(mode="after")
    def _is_sound(self) -> "EpisodeConfig":
        for key in ("column", "seconds"):
            wanted = {"column": "column", "seconds": "time"}[key]
            if (getattr(self, key) is not None) != (self.by == wanted):
                raise ValueError(f"{key} goes with by: {wanted}")
        return self


class FailureConfig(Part):
    """Failures that nothing in the files marks: such an episode is terminated, every other one truncated.

    Attributes:
        ends_before: an episode whose log ends within so many seconds of its start was stopped by a failure.
        limit: condition on the end of an episode: where it holds, a failure stopped it.
    """

    ends_before: Positive | None = None
    limit: Formula | None = None


class TagConfig(Part):
    """Episodes that are kept for tests: they are held out by every fit, and tagged in the dataset.

    Attributes:
        test: patterns of files, which the end of a path matches.
        every: every so many-th episode.
    """

    test: tuple[Glob, ...] = ()
    every: Annotated[int, Field(ge=2, le=10**6)] | None = None


class ImportSchema(Part):
    """How raw files become a dataset.

    Attributes:
        version: of this layout.
        name: of the dataset.
        source: where the files come from, for people.
        files: which files of a folder are read: a pattern that the end of their path matches.
        csv: how csv files are written.
        time: the clock of the rows.
        sources: several kinds of files that are joined by time; empty where every file has all columns.
        columns: further columns, by name: expressions over those of the files.
        rate: steps per second that everything is resampled to; None takes the rows as they are.
        max_gap: seconds between rows beyond which nothing is known of the time between: no step crosses it.
            None is ten times the usual interval, at least a step.
        missing: a row without a value is an `error`; or it is left out for that column alone (`skip`), as in
            files where every sensor fills rows of its own.
        observations: channels; a name alone stands for its column.
        actions: likewise.
        history: frames that an observation is made of, the latest first.
        reward: expression over channels, columns, and channels after the step (`next_<name>`). A wrapped
            angle has its own name too: the angle in [-pi, pi]. A column that is no channel has its latest
            value. None makes a dataset without rewards.
        termination: condition under which a step ends the task, likewise; a column of 0 and 1 counts as 1
            where it is so anywhere within the step.
        episodes: where they begin and end.
        failures: that nothing marks.
        tags: episodes kept for tests.
    """

    version: Literal[1] = 1
    name: Label
    source: Annotated[str, Field(max_length=2000)] = ""
    files: Glob = "*"
    csv: CsvConfig = CsvConfig()
    time: TimeConfig
    sources: tuple[SourceConfig, ...] = ()
    columns: dict[Label, Formula] = Field(default_factory=dict)
    rate: Positive | None = None
    max_gap: Positive | None = None
    missing: Literal["error", "skip"] = "error"
    observations: Annotated[
        tuple[Annotated[Observation, BeforeValidator(_from_text)], ...],
        Field(min_length=1, max_length=MAX_DIM),
    ]
    actions: Annotated[
        tuple[Annotated[Action, BeforeValidator(_from_text)], ...], Field(min_length=1, max_length=MAX_DIM)
    ]
    history: Annotated[int, Field(ge=1, le=1000)] = 1
    reward: Formula | None = None
    termination: Formula | None = None
    episodes: EpisodeConfig = EpisodeConfig()
    failures: FailureConfig = FailureConfig()
    tags: TagConfig = TagConfig()

    @model_validator(mode="after")
    def _names_are_unique(self) -> "ImportSchema":
        seen: set[str] = set()
        for name in (*self.frame_names, *self.action_names):
            if name in seen:
                raise ValueError(f"two channels are called {name!r}; give one of them another name")
            if name.startswith(NEXT):
                raise ValueError(f"{name!r}: names that begin with {NEXT} stand for what follows a step")
            seen.add(name)
        if self.episodes.by == "gap" and self.max_gap is None:
            raise ValueError("episodes.by = gap needs max_gap, seconds")
        if len(self.actions) > 1 and any(channel.choices is not None for channel in self.actions):
            raise ValueError("an action of choices is the only action channel")
        if self.sources and self.rate is None:
            raise ValueError("sources are joined by time, which needs a rate (steps per second)")
        return self

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Names of the dimensions of one frame."""
        return tuple(name for channel in self.observations for name in channel.names)

    @property
    def angles(self) -> tuple[str, ...]:
        """Names of the angles that became cosine and sine."""
        return tuple(channel.label for channel in self.observations if channel.wrap == "cossin")

    @property
    def obs_names(self) -> tuple[str, ...]:
        """Names of the dimensions of an observation, history included."""
        frames = [self.frame_names]
        frames += [tuple(f"{name}{LAG}{k}" for name in frames[0]) for k in range(1, self.history)]
        return tuple(name for frame in frames for name in frame)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the dimensions of an action."""
        return tuple(channel.label for channel in self.actions)

    def read_columns(self) -> Iterator[tuple[str, str]]:
        """Yields where the schema names columns, and their names."""
        for kind in ("observations", "actions"):
            for index, channel in enumerate(cast("tuple[Channel, ...]", getattr(self, kind))):
                yield from ((f"{kind}.{index}", name) for name in channel.columns())
        for name, text in self.columns.items():
            yield from ((f"columns.{name}", inner) for inner in parse_expression(text).names)
        if self.episodes.column is not None:
            yield "episodes.column", self.episodes.column

    def formulas(self) -> Mapping[str, str]:
        """The expressions over channels, by their place."""
        found = {
            "reward": self.reward,
            "termination": self.termination,
            "failures.limit": self.failures.limit,
        }
        return {place: text for place, text in found.items() if text is not None}
