"""Offline choice among trainings of one algorithm: a rule that reads the log and never a simulator."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mbrl.core.estimates import finite_or_none
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.off_policy.log.policies import DeterministicMode
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.run.files import read_record, write_json
from mbrl.run.judge.question import RETURN_DISCOUNT, asked_estimand
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.policies import open_policy


class SelectRule(BaseModel):
    """How one of several trainings is chosen.

    Attributes:
        rule: `last`, nothing is chosen; or `fqe_lower_bound`, the largest lower end of the 95 % interval of
            fitted Q evaluation of the evaluation action, on the log that the policies were trained on.
        discount: of the value; 1 is the return.
        horizon: steps that count; null takes the whole task, as `mbrl ope` does.
        fqe: of the value fits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["last", "fqe_lower_bound"] = "last"
    discount: Annotated[float, Field(ge=0, le=1)] = RETURN_DISCOUNT
    horizon: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    fqe: FQEConfig = FQEConfig()


@dataclasses.dataclass(frozen=True, slots=True)
class Contestant:
    """A training that may be chosen.

    Attributes:
        changes: what tells it from the others, as in the yaml's grid.
        path: folder of the training.
        low: lower bound of its value; NaN if its values diverged.
        point: estimate of its value; NaN likewise.
        problem: why the estimate is not to be trusted, or None.
    """

    changes: dict[str, Any]
    path: str
    low: float
    point: float
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; NaN becomes None."""
        values = dataclasses.asdict(self)
        return {**values, "low": finite_or_none(self.low), "point": finite_or_none(self.point)}


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """Who was chosen.

    Attributes:
        rule: name of the rule.
        contestants: in the order of the grid.
        chosen: index of one.
    """

    rule: str
    contestants: tuple[Contestant, ...]
    chosen: int

    @property
    def winner(self) -> Contestant:
        """The chosen training."""
        return self.contestants[self.chosen]

    def save(self, path: Path) -> Path:
        """Writes it as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        contestants = [contestant.to_json() for contestant in self.contestants]
        write_json(path, {"rule": self.rule, "chosen": self.chosen, "contestants": contestants})
        return path

    @classmethod
    def load(cls, path: Path) -> "Selection":
        """Inverse of `save`.

        Raises:
            FileError: the file is damaged.
        """
        stored = read_record(path, _StoredSelection)
        contestants = [
            Contestant(one.changes, one.path, _number(one.low), _number(one.point), one.problem)
            for one in stored.contestants
        ]
        return cls(stored.rule, tuple(contestants), stored.chosen)


class _StoredContestant(BaseModel):
    """See `Contestant`; NaN is None."""

    changes: dict[str, Any]
    path: str
    low: float | None
    point: float | None
    problem: str | None


class _StoredSelection(BaseModel):
    """See `Selection`."""

    rule: str
    contestants: tuple[_StoredContestant, ...]
    chosen: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _one_is_chosen(self) -> "_StoredSelection":
        if self.chosen >= len(self.contestants):
            raise ValueError(f"number {self.chosen} of {len(self.contestants)} is chosen")
        return self


def select_training(
    trainings: list[tuple[dict[str, Any], Path]],
    dataset: Dataset,
    rule: SelectRule,
    *,
    rng: RngStreams,
    kept: KeptFits,
) -> Selection:
    """Judges every training by the rule; the first wins among equals.

    All fits see the same batches, so that the policies differ by what they do alone.

    Args:
        trainings: changes and folder of each.
        dataset: the log.
        rule: how they are judged.
        rng: streams of the fits.
        kept: makes the fits, each in a folder of its own.
    """
    estimand = asked_estimand(dataset, discount=rule.discount, steps=rule.horizon)
    contestants: list[Contestant] = []
    for index, (changes, path) in enumerate(trainings):
        label = f"select: fit values {index + 1} of {len(trainings)}"
        fit = dataclasses.replace(kept, folder=kept.folder / str(index), label=label)(
            dataset,
            DeterministicMode(open_policy(path).policy),
            estimand=estimand,
            config=rule.fqe,
            generator=rng.at("select"),
        )
        estimate = fit.estimate()
        contestants.append(Contestant(changes, str(path), estimate.ci95[0], estimate.point, estimate.why_not))
    return Selection(rule.rule, tuple(contestants), choose(contestants))


def choose(contestants: Sequence[Contestant]) -> int:
    """Index of the highest lower bound, among those whose estimate is to be trusted if there are any."""
    keys = [(item.problem is None, -math.inf if math.isnan(item.low) else item.low) for item in contestants]
    return keys.index(max(keys))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
