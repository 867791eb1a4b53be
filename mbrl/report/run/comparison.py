"""Methods on one task side by side, and what may be concluded from them in plain words."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mbrl.evaluation.statistics import Interval
from mbrl.report.kit.message import Message
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_interval, has_ends, read_interval

FEW_SEEDS: Final = 3
"""Seeds below which a comparison carries a caution."""


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """What one method reached.

    Attributes:
        name: for people, such as `MOPO`.
        values: mean return (or score) of each seed, in the comparison's unit.
        interval: of the mean: over seeds, or over the episodes of the single seed.
        seconds: of training and evaluation, or None.
    """

    name: str
    values: tuple[float, ...]
    interval: Interval
    seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Methods on one task and dataset.

    Attributes:
        dataset: name of the dataset.
        unit: such as `episode return` or `normalised score`; larger is better.
        methods: the one of interest first, then what it is compared with.
        behaviour: mean of the logged episodes with its interval, or None.
        best_tenth: mean of the best tenth of the logged episodes, or None.
    """

    dataset: str
    unit: str
    methods: tuple[Method, ...]
    behaviour: Interval | None = None
    best_tenth: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Comparison":
        """Inverse of `to_json`."""
        methods = tuple(
            Method(m["name"], tuple(m["values"]), read_interval(m["interval"]), m.get("seconds"))
            for m in value["methods"]
        )
        behaviour = value.get("behaviour")
        return cls(
            dataset=value["dataset"],
            unit=value["unit"],
            methods=methods,
            behaviour=None if behaviour is None else read_interval(behaviour),
            best_tenth=value.get("best_tenth"),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON, intervals as objects."""
        return {
            "dataset": self.dataset,
            "unit": self.unit,
            "methods": [
                {
                    "name": m.name,
                    "values": list(m.values),
                    "interval": m.interval.to_json(),
                    "seconds": m.seconds,
                }
                for m in self.methods
            ],
            "behaviour": None if self.behaviour is None else self.behaviour.to_json(),
            "best_tenth": self.best_tenth,
        }


def comparison_table(comparison: Comparison) -> Table:
    """One row a method, and what the logged data itself reached."""
    rows: list[tuple[str, str, int | str, float | str]] = [
        (
            m.name,
            format_interval(m.interval),
            len(m.values),
            "-" if m.seconds is None else round(m.seconds, 1),
        )
        for m in comparison.methods
    ]
    if comparison.behaviour is not None:
        rows.append(("logged behaviour", format_interval(comparison.behaviour), "-", "-"))
    if comparison.best_tenth is not None:
        rows.append(("best tenth of the log", f"{comparison.best_tenth:,.4g}", "-", "-"))
    caption = f"{comparison.unit} on {comparison.dataset}, mean and {_level(comparison)} interval"
    return Table(caption[:1].upper() + caption[1:], ("method", comparison.unit, "seeds", "seconds"), rows)


def conclude(comparison: Comparison, *, trusted_horizon: int | None = None) -> tuple[Message, ...]:
    """What the figures permit to say of the first method, and the cautions that go with it.

    Two means are told apart only if their intervals do not overlap: a strict rule, which never calls chance a
    difference more often than the intervals' level says.

    Args:
        comparison: the figures.
        trusted_horizon: of the dynamics model that was used, steps; None if there was none.
    """
    first, *others = comparison.methods
    rivals = [(other.name, other.interval) for other in others]
    if comparison.behaviour is not None:
        rivals.append(("the logged behaviour", comparison.behaviour))
    messages = [contrast(first, name, interval) for name, interval in rivals]
    if comparison.best_tenth is not None:
        messages.append(_compare_best_tenth(first, comparison.best_tenth))
    return (*messages, *_cautions(comparison, trusted_horizon))


def contrast(method: Method, rival: str, other: Interval) -> Message:
    """A win, a loss, or neither: only intervals that do not overlap are told apart.

    Args:
        method: the one of interest.
        rival: what it is compared with, in words.
        other: interval of the rival's average.
    """
    figures = f"{format_interval(method.interval)} against {format_interval(other)}"
    own = method.interval
    if not (has_ends(own) and has_ends(other)):
        text = f"{method.name} and {rival}: {figures}. Without both intervals nothing is concluded."
        return Message(text, "caution")
    if own.low > other.high:
        return Message(f"{method.name} beats {rival}: {figures}. The intervals do not overlap.", "good")
    if own.high < other.low:
        return Message(f"{method.name} falls short of {rival}: {figures}.", "bad")
    return Message(
        f"{method.name} cannot be told apart from {rival}: {figures}; the intervals overlap.", "caution"
    )


def _compare_best_tenth(method: Method, best_tenth: float) -> Message:
    own, level = method.interval, f"{best_tenth:,.4g}"
    text = f"The best tenth of the logged episodes averages {level}"
    if has_ends(own) and own.low > best_tenth:
        return Message(f"{text}; {method.name} is above it.", "good")
    if has_ends(own) and own.high < best_tenth:
        return Message(f"{text}; {method.name} is below it.", "plain")
    return Message(f"{text}; {method.name} is level with it, as far as the figures tell.", "plain")


def _cautions(comparison: Comparison, trusted_horizon: int | None) -> Sequence[Message]:
    cautions: list[Message] = []
    seeds = min(len(method.values) for method in comparison.methods)
    if seeds == 1:
        text = "One seed of each method: the intervals are over its episodes and tell nothing of other seeds."
        cautions.append(Message(text, "caution"))
    elif seeds < FEW_SEEDS:
        cautions.append(Message(f"Only {seeds} seeds: the intervals are themselves uncertain.", "caution"))
    if trusted_horizon == 0:
        text = "The dynamics model is trusted for no step: do not roll it out; use a model-free learner."
        cautions.append(Message(text, "bad"))
    return cautions


def _level(comparison: Comparison) -> str:
    return f"{100 * comparison.methods[0].interval.level:.0f} %"
