"""What a comparison of algorithms over datasets and seeds found: plain facts, no figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from mbrl.data.inspection.report import Inspection
from mbrl.dynamics.report import DynamicsReport

RunStatus: TypeAlias = Literal["done", "failed", "missing"]


@dataclasses.dataclass(frozen=True, slots=True)
class StudyRun:
    """One algorithm on one dataset with one seed.

    Attributes:
        dataset: label of the dataset in the study.
        algorithm: label of the algorithm in the study.
        seed: of every random stream, the model's included.
        status: `done`, `failed` (see `cause`), or `missing`: not run yet.
        cause: why it failed, one paragraph; None otherwise.
        returns: undiscounted returns of the evaluation episodes of the reported policy; empty if none.
        scores: the same, normalised by the task's references; None where the task has none.
        updates: learner updates made.
        train_seconds: wall time of the training, without the fit of the dynamics; of all trainings of a grid.
        fit_seconds: wall time of the dynamics fit that it used, shared with others; None for model-free.
        records: rows of `metrics.jsonl` without events.
        shift: summary of the diagnostics of distributional shift, or None.
        alarms: what was reported along the way, in plain words (divergence, shift).
        path: folder of the training run, or None.
        choice: what an offline rule chose from a grid, in words; None where there was nothing to choose.
        selected: updates, lower bound and judged value of the policy that was selected along the training.
        last_returns: of its last policy, where another one may have been selected.
        last_scores: likewise.
    """

    dataset: str
    algorithm: str
    seed: int
    status: RunStatus
    cause: str | None = None
    returns: tuple[float, ...] = ()
    scores: tuple[float, ...] | None = None
    updates: int | None = None
    train_seconds: float | None = None
    fit_seconds: float | None = None
    records: Sequence[Mapping[str, Any]] = ()
    shift: Mapping[str, Any] | None = None
    alarms: tuple[str, ...] = ()
    path: str | None = None
    choice: str | None = None
    selected: Mapping[str, Any] | None = None
    last_returns: tuple[float, ...] = ()
    last_scores: tuple[float, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class StudyDataset:
    """One dataset of a study.

    Attributes:
        label: its name in the study.
        content_hash: of its content.
        report: what the doctor found.
        returns: undiscounted returns of the logged episodes.
        scores: the same, normalised; None where the task has no references.
        dynamics: reports of the fits, by seed; empty if no algorithm needed a model.
    """

    label: str
    content_hash: str
    report: Inspection
    returns: tuple[float, ...]
    scores: tuple[float, ...] | None
    dynamics: Mapping[int, DynamicsReport]


@dataclasses.dataclass(frozen=True, slots=True)
class Study:
    """A comparison: datasets x algorithms x seeds.

    Attributes:
        name: of the study.
        datasets: in the order of the config.
        algorithms: labels in the order of the config, with the recipe's id and whether it uses a model.
        seeds: in order.
        runs: one for each combination, in any order.
        selection: which policy of a run is reported: `last`, or the name of an offline rule.
        plannings: what planners found and cost, means over seeds, plain values; empty without planners.
        provenance: command, versions, machine.
    """

    name: str
    datasets: tuple[StudyDataset, ...]
    algorithms: Mapping[str, "StudyAlgorithm"]
    seeds: tuple[int, ...]
    runs: tuple[StudyRun, ...]
    selection: str = "last"
    plannings: Sequence[Mapping[str, Any]] = ()
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    def of(self, dataset: str, algorithm: str) -> tuple[StudyRun, ...]:
        """The runs of an algorithm on a dataset, by seed."""
        found = [run for run in self.runs if (run.dataset, run.algorithm) == (dataset, algorithm)]
        return tuple(sorted(found, key=lambda run: run.seed))


@dataclasses.dataclass(frozen=True, slots=True)
class StudyAlgorithm:
    """One algorithm of a study.

    Attributes:
        label: its name in the study.
        recipe: id of the recipe.
        learner: id of the learner.
        needs_dynamics: whether it learns from a fitted model.
        config: the algorithm section of its config, plain values.
    """

    label: str
    recipe: str
    learner: str
    needs_dynamics: bool
    config: Mapping[str, Any]
