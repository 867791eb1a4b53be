"""A benchmark of off-policy evaluation as its yaml tells it: tasks x datasets x policies of known value."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.run.config import EvaluationConfig, ResolvedConfig, find_part
from mbrl.run.documents import Override, read_overrides, read_yaml, set_at
from mbrl.run.validation import validate
from mbrl.study.config import DatasetEntry, Label, Part, StudyConfig, StudySource, open_parts

FOLDER: Final = "ope-bench"
"""Of shipped benchmarks in `configs/`, and of benchmarks in the root of runs."""

_NO_CHECKPOINT: Final = 100_000_000
"""Updates between two checkpoints, more than any training makes: what is short is done again as a whole."""


class PeerConfig(BaseModel):
    """d3rlpy's fitted Q evaluation; what is not named here has that library's defaults.

    Attributes:
        updates: gradient steps.
        learning_rate: of Adam.
        batch_size: rows of an update.
        hidden: widths of the hidden layers.
        target_update_interval: updates between two copies of the networks into the target networks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    updates: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 100
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=12)] = (256, 256)
    target_update_interval: Annotated[int, Field(ge=1, le=1_000_000)] = 100


class BenchTaskConfig(BaseModel):
    """One task: what is estimated, from which logs, of which policies.

    Attributes:
        task: name of a shipped task or path of a task's yaml; it must have a simulator.
        discount: of the estimand.
        horizon: steps that count; logged episodes that were cut sooner are censored.
        datasets: by label; policies are trained on each, and evaluated on each.
        dynamics: the ensemble, fitted once to each log; for `model_value` and algorithms that need one.
        algorithms: by label; none takes shipped policies only.
        updates: every algorithm is trained once for each of these, so that there are bad policies as well.
        seeds: of the trainings.
        stochastic: labels of algorithms whose draws are judged, not their evaluation action.
        shipped: behaviour checkpoints of the task, judged by evaluation action and by draws; or `random`.
        fqe: of the value fits.
        backtest: ask every family for the behaviour's known value first, as `mbrl ope` does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    discount: Annotated[float, Field(ge=0, le=1)] = 0.99
    horizon: Annotated[int, Field(ge=1, le=1_000_000)]
    datasets: Annotated[dict[Label, DatasetEntry], Field(min_length=1, max_length=100)]
    dynamics: Part = Field(default_factory=dict[str, Any])
    algorithms: Annotated[dict[Label, Part], Field(max_length=100)] = Field(default_factory=dict[str, Part])
    updates: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...], Field(min_length=1)] = (5000,)
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], Field(min_length=1)] = (0,)
    stochastic: tuple[Label, ...] = ()
    shipped: tuple[str, ...] = ()
    fqe: FQEConfig = FQEConfig()
    backtest: bool = True

    @model_validator(mode="after")
    def _has_policies(self) -> "BenchTaskConfig":
        if not self.algorithms and not self.shipped:
            raise ValueError("there are no policies: name algorithms, shipped ones, or both")
        unknown = [label for label in self.stochastic if label not in self.algorithms]
        if unknown:
            raise ValueError(f"stochastic names {', '.join(unknown)}, which algorithms does not have")
        if any("grid" in part for part in self.algorithms.values()):
            raise ValueError("a grid belongs to a comparison; give each of its values a label here")
        for name, values in (("updates", self.updates), ("seeds", self.seeds), ("shipped", self.shipped)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} names something twice")
        return self

    @property
    def estimand(self) -> Estimand:
        """What is estimated."""
        return Estimand(self.discount, self.horizon)

    def study(self, where: str) -> StudySource:
        """The trainings as a comparison: every algorithm once for each number of updates."""
        parts = {
            trained_label(label, updates): {**part, "updates": updates}
            for label, part in self.algorithms.items()
            for updates in self.updates
        }
        return self._study(parts, where)

    def resolve_fit(self, where: str, dataset: str) -> ResolvedConfig:
        """The config of the ensemble's fit to a log; a fit reads no algorithm."""
        return self._study({"fit": {"file": "bc"}}, where).resolve("fit", seed=self.seeds[0], dataset=dataset)

    def _study(self, algorithms: dict[str, Part], where: str) -> StudySource:
        config = StudyConfig(
            datasets=self.datasets,
            task=self.task,
            dynamics=self.dynamics,
            algorithms=algorithms,
            seeds=self.seeds,
            checkpoint_interval=_NO_CHECKPOINT,
        )
        return StudySource(self.task, config, where)


class OPEBenchConfig(BaseModel):
    """A benchmark of estimators.

    Attributes:
        description: one line for people.
        tasks: by label.
        truth: episodes in the simulator that establish the true value of each policy.
        peer: another library's estimator, asked if its interpreter is given.
        seed: of all draws of the estimators.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    tasks: Annotated[dict[Label, BenchTaskConfig], Field(min_length=1, max_length=100)]
    truth: EvaluationConfig = EvaluationConfig(episodes=200, seed=1_000_000)
    peer: PeerConfig = PeerConfig()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


@dataclasses.dataclass(frozen=True, slots=True)
class OPEBenchSource:
    """A validated benchmark and where it was read.

    Attributes:
        name: of the file, without suffix.
        config: the values.
        where: the file, for messages and origins.
    """

    name: str
    config: OPEBenchConfig
    where: str

    def to_yaml(self) -> str:
        """The benchmark as it was validated; readable by `load_ope_bench`."""
        values = self.config.model_dump(mode="json", exclude_none=True)
        return f"# OPE benchmark {self.name}.\n" + yaml.safe_dump(values, sort_keys=False)


def trained_label(algorithm: str, updates: int) -> str:
    """Name of an algorithm that was trained for so long."""
    return f"{algorithm}-{updates}"


def load_ope_bench(name: str, *, overrides: Sequence[Override] = ()) -> OPEBenchSource:
    """Reads and validates a benchmark, with the config of each of its trainings.

    Args:
        name: in `configs/ope-bench`, or the path of a yaml.
        overrides: `dotted.key=value`, in order.

    Raises:
        ConfigError: an unknown key or name, or a value that is out of range.
    """
    path = find_part(FOLDER, name)
    tree = read_yaml(path)
    for keys, value in read_overrides(overrides):
        set_at(tree, keys, value)
    where = f"OPE benchmark {path}"
    tasks: Any = tree.get("tasks")
    for part in tasks.values() if isinstance(tasks, dict) else ():  # pyright: ignore[reportUnknownVariableType]
        if isinstance(part, dict):
            open_parts(part)  # pyright: ignore[reportUnknownArgumentType]
    source = OPEBenchSource(path.stem, validate(OPEBenchConfig, tree, where=where), str(path))
    for label, task in source.config.tasks.items():
        _check_trainings(label, task, source)
    return source


def _check_trainings(label: str, task: BenchTaskConfig, source: OPEBenchSource) -> None:
    try:
        task.resolve_fit(source.where, "")
        if task.algorithms:
            study = task.study(source.where)
            for algorithm in study.config.algorithms:
                study.resolve(algorithm, seed=task.seeds[0])
    except ConfigError as error:
        raise ConfigError(f"Task {label} of {Path(source.where).name}: {error}") from None
