"""Which of two segments of a log somebody prefers; rankings are sets of such pairs."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset

Label: TypeAlias = Literal["left", "right", "equal", "skip"]
LABELS: Final[tuple[Label, ...]] = ("left", "right", "equal", "skip")

_HARD: Final[dict[Label, float | None]] = {"left": 1.0, "right": 0.0, "equal": 0.5, "skip": None}
_MIRRORED: Final[dict[Label, Label]] = {"left": "right", "right": "left", "equal": "equal", "skip": "skip"}


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Segment:
    """Steps `start` to `start + length - 1` of an episode: states and the actions taken in them.

    Attributes:
        episode: index in the dataset, from 0.
        start: first step, from 0.
        length: steps, at least 1.
    """

    episode: int
    start: int
    length: int

    @property
    def end(self) -> int:
        """The step after the last one."""
        return self.start + self.length


@dataclasses.dataclass(frozen=True, slots=True)
class Preference:
    """One answer.

    Attributes:
        left: a segment.
        right: the other.
        label: the preferred side, `equal`, or `skip` where the annotator could not tell.
        probability: that left is preferred, where somebody stated or knows it; it takes the place of the
            label in fits. None where the label is all.
        annotator: who answered; "" where nobody noted it.
        time: of the answer, seconds since 1970 (UTC); None likewise.
    """

    left: Segment
    right: Segment
    label: Label
    probability: float | None = None
    annotator: str = ""
    time: float | None = None

    @property
    def target(self) -> float | None:
        """Probability that left is preferred, as fits read it; None where the pair was skipped."""
        if self.label == "skip":
            return None
        return self.probability if self.probability is not None else _HARD[self.label]

    @property
    def mirrored(self) -> "Preference":
        """The same answer with the sides exchanged."""
        probability = None if self.probability is None else 1.0 - self.probability
        return dataclasses.replace(
            self,
            left=self.right,
            right=self.left,
            label=_MIRRORED[self.label],
            probability=probability,
        )


def answer_problem(answer: Preference) -> tuple[str, str, str] | None:
    """Field, problem and remedy of an answer that contradicts itself; None for a sound one."""
    for side in ("left", "right"):
        segment: Segment = getattr(answer, side)
        for name, value, least in (
            ("episode", segment.episode, 0),
            ("start", segment.start, 0),
            ("length", segment.length, 1),
        ):
            if value < least:
                return f"{side}_{name}", f"{value} is below {least}", "Count episodes and steps from 0."
    if answer.left == answer.right:
        return "right_start", "both sides are the same segment", "Leave the row out."
    return _probability_problem(answer)


def _probability_problem(answer: Preference) -> tuple[str, str, str] | None:
    probability = answer.probability
    if probability is None:
        return None
    if not 0 <= probability <= 1:
        return "probability", f"{probability} is no probability", "Give a number from 0 to 1, or null."
    # Who prefers left with a probability below one half does not prefer left.
    fits = {
        "left": probability > 0.5,
        "right": probability < 0.5,
        "equal": probability == 0.5,
        "skip": False,
    }[answer.label]
    if fits:
        return None
    remedy = "Give the probability that left is preferred, or null; none for a skipped pair."
    return "probability", f"{probability} contradicts the label {answer.label!r}", remedy


@dataclasses.dataclass(frozen=True, slots=True)
class PreferenceSet:
    """Answers about one log.

    Attributes:
        dataset: content hash of the log whose segments were shown.
        answers: in the order in which they were given.
    """

    dataset: str
    answers: tuple[Preference, ...]

    def __len__(self) -> int:
        return len(self.answers)

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {label}" for label, count in self.counts().items() if count)
        return f"PreferenceSet({len(self)} answers: {counts or 'none'}; log {self.dataset[:8]})"

    def counts(self) -> dict[Label, int]:
        """How often each label was given."""
        found = Counter(answer.label for answer in self.answers)
        return {label: found[label] for label in LABELS}

    def annotators(self) -> tuple[str, ...]:
        """Who answered, sorted."""
        return tuple(sorted({answer.annotator for answer in self.answers}))

    def require_log(self, dataset: Dataset) -> None:
        """Refuses a log that the answers are not about.

        A log that was relabelled or stacked from the one that was shown has the same episodes and steps, and
        is accepted.

        Raises:
            DataError: the log is another, or has no such episode or step.
        """
        require_log(self.dataset, dataset)
        for row, answer in enumerate(self.answers, start=1):
            for side, segment in (("left", answer.left), ("right", answer.right)):
                require_segment(segment, dataset, row=row, prefix=f"{side}_")


def require_log(named: str, dataset: Dataset) -> None:
    """Refuses a log that is neither the one that was shown nor made of it.

    Args:
        named: content hash of the log that was shown.
        dataset: the log.

    Raises:
        DataError: it is another one.
    """
    if named not in {dataset.content_hash, dataset.info.derived_from}:
        raise DataError(
            f"the answers are about the log {named[:16]}..., not about {dataset.info.name!r} "
            f"({dataset.content_hash[:16]}...)",
            field="dataset",
            remedy="Give the log that was shown, or one that was made of it by mbrl relabel.",
        )


def require_segment(segment: Segment, dataset: Dataset, *, row: int, prefix: str = "") -> None:
    """Refuses a segment that the log does not have.

    Args:
        segment: the segment.
        dataset: the log.
        row: of the answer, for the message.
        prefix: of the names of its fields.

    Raises:
        DataError: there is no such episode, or no such step.
    """
    remedy = "Check that the row was made for this log; episodes and steps count from 0."
    if segment.episode >= len(dataset):
        problem = f"there is no episode {segment.episode}; the log has {len(dataset)}"
        raise DataError(problem, field=f"{prefix}episode", row=row, remedy=remedy)
    steps = len(dataset.episodes[segment.episode])
    if segment.end > steps:
        problem = (
            f"steps {segment.start} to {segment.end - 1} of episode {segment.episode}, which has {steps}"
        )
        raise DataError(problem, field=f"{prefix}length", row=row, remedy=remedy)


def expand_ranking(
    tiers: Sequence[Sequence[Segment]], *, annotator: str = "", time: float | None = None
) -> Iterator[Preference]:
    """The pairs that a ranking says, k (k - 1) / 2 of k segments.

    Args:
        tiers: the best first; segments of one tier are equal.
        annotator: who ranked.
        time: when.

    Raises:
        ValueError: a segment stands in the ranking twice, or a tier is empty.
    """
    ranked = [(place, segment) for place, tier in enumerate(tiers) for segment in tier]
    if len({segment for _, segment in ranked}) != len(ranked):
        raise ValueError("a segment stands in the ranking twice")
    if any(not tier for tier in tiers):
        raise ValueError("a tier of the ranking is empty")
    for (first, left), (second, right) in itertools.combinations(ranked, 2):
        label: Label = "equal" if first == second else "left"
        yield Preference(left, right, label, annotator=annotator, time=time)
