"""Offline choice among policies, of one training or of several: it reads the log and never a simulator."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mbrl.core.estimates import finite_or_none
from mbrl.core.progress import Progress
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.off_policy.log.policies import as_deployed
from mbrl.off_policy.value.judged import JudgedValue, choose_best, honest_value
from mbrl.run.files import read_record, write_json
from mbrl.run.judge.judges import Judges
from mbrl.run.judge.question import asked_estimand
from mbrl.run.judge.rule import SelectRule
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.records import SelectionRecord


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that may be chosen.

    Attributes:
        changes: what tells it from the others: values of a grid, or the updates of a training so far.
        path: folder of the training, or a policy file.
        policy: acts.
    """

    changes: Mapping[str, Any]
    path: Path
    policy: Policy


@dataclasses.dataclass(frozen=True, slots=True)
class Contestant:
    """A candidate with what the rule says of it.

    Attributes:
        changes: see `Candidate`.
        path: likewise.
        low: lower bound of its value; NaN if it has none.
        point: estimate of its value; NaN likewise.
        problem: why the estimate is not to be trusted, or None.
        judged: what judges say in detail, plain values; None under other rules.
    """

    changes: dict[str, Any]
    path: str
    low: float
    point: float
    problem: str | None = None
    judged: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        values = dataclasses.asdict(self)
        return {**values, "low": finite_or_none(self.low), "point": finite_or_none(self.point)}


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Who was chosen.

    Attributes:
        rule: name of the rule.
        contestants: in the order in which they were given.
        chosen: index of one.
        honest: value of the chosen one by evidence that did not choose it (`HonestValue`), plain values; None
            where there is no such evidence.
        facts: who was asked what (`Judges.facts`); None under other rules.
    """

    rule: str
    contestants: tuple[Contestant, ...]
    chosen: int
    honest: dict[str, Any] | None = None
    facts: dict[str, Any] | None = None

    @property
    def winner(self) -> Contestant:
        """The chosen one."""
        return self.contestants[self.chosen]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rule": self.rule,
            "chosen": self.chosen,
            "contestants": [contestant.to_json() for contestant in self.contestants],
            "honest": self.honest,
            "facts": self.facts,
        }

    def save(self, path: Path) -> Path:
        """Writes it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.to_json())
        return path

    @classmethod
    def load(cls, path: Path) -> "Selection":
        """Inverse of `save`.

        Raises:
            FileError: the file is damaged.
        """
        stored = read_record(path, SelectionRecord)
        contestants = [
            Contestant(
                one.changes, one.path, _number(one.low), _number(one.point), one.problem,
                None if one.judged is None else one.judged.model_dump(mode="json"),
            )
            for one in stored.contestants
        ]  # fmt: skip
        facts = None if stored.facts is None else stored.facts.model_dump(mode="json")
        honest = None if stored.honest is None else stored.honest.model_dump(mode="json")
        return cls(stored.rule, tuple(contestants), stored.chosen, honest, facts)


def select_by_judges(
    candidates: Sequence[Candidate], judges: Judges, progress: Progress, *, otherwise: int = -1
) -> tuple[Selection, list[JudgedValue]]:
    """The candidate with the best lower bound over members and judges, and all that was said.

    Args:
        candidates: at least one; the first wins among equals.
        judges: are asked.
        progress: told of their steps.
        otherwise: index of the one that is taken where no bound is finite.
    """
    config = judges.config
    judged = judges.judge([candidate.policy for candidate in candidates], progress=progress)
    lows = [value.lower(config.rule, config.pessimism) for value in judged]
    contestants = [
        Contestant(
            dict(candidate.changes), str(candidate.path), low, value.mean,
            None if math.isfinite(value.mean) else "a model broke down under it",
            value.to_json(),
        )
        for candidate, value, low in zip(candidates, judged, lows, strict=True)
    ]  # fmt: skip
    honest = honest_value(judged, config.rule, config.pessimism)
    chosen = choose_best(lows, otherwise=otherwise)
    plain = None if honest is None else honest.to_json()
    return Selection("judge", tuple(contestants), chosen, plain, judges.facts()), judged


def select_by_values(
    candidates: Sequence[Candidate], dataset: Dataset, rule: SelectRule, *, rng: RngStreams, kept: KeptFits
) -> Selection:
    """The candidate with the best lower bound of a fitted value; the first wins among equals.

    All fits see the same batches, so that policies differ by what they do alone.

    Args:
        candidates: at least one.
        dataset: the log.
        rule: discount, horizon and fit.
        rng: streams of value fits.
        kept: makes value fits, each in a folder of its own, and tells progress.
    """
    dataset.require_rewards("A selection by value")
    estimand = asked_estimand(dataset, discount=rule.discount, steps=rule.horizon)
    contestants: list[Contestant] = []
    for index, candidate in enumerate(candidates):
        label = f"select: fit values {index + 1} of {len(candidates)}"
        fit = dataclasses.replace(kept, folder=kept.folder / str(index), label=label)(
            dataset,
            as_deployed(candidate.policy),
            estimand=estimand,
            config=rule.fqe,
            generator=rng.at("select"),
        )
        estimate = fit.estimate()
        contestants.append(
            Contestant(
                dict(candidate.changes), str(candidate.path),
                estimate.ci95[0], estimate.point, estimate.why_not,
            )
        )  # fmt: skip
    return Selection("fqe", tuple(contestants), choose(contestants))


def choose(contestants: Sequence[Contestant]) -> int:
    """Index of the highest lower bound, among those whose estimate is to be trusted if there are any."""
    keys = [(item.problem is None, -math.inf if math.isnan(item.low) else item.low) for item in contestants]
    return keys.index(max(keys))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
