"""Training a policy, and the run that it leaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.algorithms.base import RECIPES, RecipeConfig
from mbrl.api.model import Dynamics
from mbrl.api.policy import Policy
from mbrl.api.progress import Listener
from mbrl.api.result import Result, jsonable
from mbrl.api.session import (
    Log,
    at_work,
    is_temporary,
    log_arguments,
    named_overrides,
    open_log,
    open_workspace,
)
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.documents import Override
from mbrl.run.metrics import read_metrics
from mbrl.run.records import TrainingSummary
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, find_run
from mbrl.run.train import train_policy_stage

if TYPE_CHECKING:
    from mbrl.api.deploying import Export
    from mbrl.api.evaluation import EvaluationResult
    from mbrl.report.kit.html import Section
    from mbrl.report.kit.table import Table


class Run(Result):
    """A finished training.

    Attributes:
        path: folder of the run.
        policy: what came out: the policy that was selected along the training, or the last one.
        last_policy: of the last update, whatever was selected.
        log: the log that it learned from, if it is open.

    Example:
        >>> run = mbrl.train("pendulum-mixed", "bc", updates=50, progress=False)
        >>> mbrl.Run.load(run.path).name
        'bc'
    """

    def __init__(self, folder: RunFolder, log: Dataset | None = None) -> None:
        self._folder = folder
        self.path = folder.path
        self.policy = Policy.load(folder.path)
        self.last_policy = Policy.load(folder.path, "last")
        self.log = log

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """The finished training in a folder, whatever made it.

        Raises:
            ConfigError: there is none.
        """
        return cls(find_run(Path(path), stage="train_policy"))

    def __fspath__(self) -> str:
        """The folder, so that the training stands for it wherever a path is taken."""
        return str(self.path)

    @property
    def name(self) -> str:
        """What was trained."""
        return self.policy.name

    @property
    def config(self) -> ResolvedConfig:
        """The whole config, with the origin of every value."""
        return resolve(self.path / "config.yaml")

    @property
    def summary(self) -> Mapping[str, Any]:
        """What the training found: last metrics, alarms, seconds."""
        return self._folder.summary(TrainingSummary)

    @property
    def dataset_hash(self) -> str | None:
        """Content hash of the log that it learned from; None for an online training."""
        found = self._folder.manifest().get("dataset_hash")
        return None if found is None else str(found)

    @property
    def selection(self) -> Mapping[str, Any] | None:
        """Which policy was taken, by whom and why, plain values; None where the last one is the result."""
        return self.summary.get("selection")

    def metrics(self) -> dict[str, list[tuple[int, float]]]:
        """Averages along the training: (update, value) by name."""
        series: dict[str, list[tuple[int, float]]] = {}
        for row in read_metrics(self.path):
            if "event" not in row:
                for name, value in row.items():
                    if name != "step":
                        series.setdefault(name, []).append((int(row["step"]), float(value)))
        return series

    def evaluate(
        self, episodes: int | None = None, *, seed: int | None = None, task: str | None = None, **how: Any
    ) -> "EvaluationResult":
        """Evaluates the policy in its simulator, beside the run; see `mbrl.evaluate`."""
        from mbrl.api.evaluation import evaluate  # no training loads a simulator

        how.setdefault("store", self.path.parents[1])
        return evaluate(self, episodes=episodes, seed=seed, task=task, **how)

    def export(self, path: str | Path, **how: Any) -> "Export":
        """Writes the policy: a bundle for a robot, its graph (`.onnx`), or a file for torch (`.safetensors`).

        See `mbrl.export`; the result stands for its path wherever one is taken.
        """
        from mbrl.api.deploying import export

        return export(self, path, **how)

    def to_html(self, path: str | Path | None = None) -> Path:
        """Writes the page of the run; `report.html` in its folder when None."""
        from mbrl.api.run_page import write_run_page

        return write_run_page(self.path, None if path is None else Path(path))

    def to_dict(self) -> dict[str, Any]:
        """The summary, and the path."""
        return jsonable({**self.summary, "path": str(self.path)})

    def tables(self) -> "Sequence[Table]":
        """What was trained, and the last row of its metrics."""
        from mbrl.report.run.training_tables import training_table

        if self.selection is None:
            return [training_table(self.summary)]
        from mbrl.report.run.selection_sections import selection_table

        chosen = selection_table(self.selection, self.summary.get("exploitation"))
        return [training_table(self.summary), chosen]

    def messages(self) -> Sequence[str]:
        """What was selected and why, and what the diagnostics of the policy warn of."""
        from mbrl.report.run.training_tables import recovered_reward, shift_alarms

        alarms, selection = [*recovered_reward(self.summary), *shift_alarms(self.summary)], self.selection
        if selection is None:
            return alarms
        from mbrl.report.run.selection_sections import selection_lines, selection_warnings

        warnings = selection_warnings(selection, self.summary.get("exploitation"))
        return [*selection_lines(selection), *warnings, *alarms]

    def sections(self) -> "Sequence[Section]":
        """The choice among its policies, and curves of the training."""
        from mbrl.report.run.selection_sections import selection_section
        from mbrl.report.run.training_sections import training_section

        bounds = self.summary["value_bounds"]
        rows = [row for row in read_metrics(self.path) if "event" not in row]
        known = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        chosen = selection_section(self.selection, self.summary.get("exploitation"))
        return [*super().sections(), chosen, training_section({self.name: rows}, value_bounds=known)]

    def _headline(self) -> str:
        facts = self.summary
        place = " (temporary)" if is_temporary(self.path) else ""
        return (
            f"{facts['algorithm']!r} on {facts['dataset'] or facts['task']!r}, seed {facts['seed']}, "
            f"{facts['updates']} updates, {str(self.path)!r}{place}"
        )


def train(
    log: Log | None,
    algorithm: str | Path | Mapping[str, Any] | RecipeConfig | None = None,
    *,
    weights: Sequence[float] | None = None,
    dynamics: "Dynamics | str | Path | Mapping[str, Any] | None" = None,
    expert: Dataset | str | Path | None = None,
    config: str | Path | None = None,
    task: str | None = None,
    online: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> Run:
    """Trains a policy on a log; continues where an interrupted run of the same settings stopped.

    Args:
        log: an open log, what `load` takes, or a list of these; None for `config`'s, or `online`.
        weights: shares of the logs of a list, or of `merge`, in a batch; None draws all rows alike.
        algorithm: name in `mbrl list algorithms`, a yaml's path or content, or a recipe's config object.
        dynamics: a fitted model to learn from, or the name, path or content of a yaml for the fit.
        expert: second log, of an expert, for algorithms that imitate (`airl`, `smodice`).
        config: experiment: a name in `configs/experiments` or a yaml.
        task: replaces the one that the log names.
        online: a task in whose simulator to train, to make behaviour policies; recipes for logs refuse it.
        seed: of every random stream [0].
        threads: of torch while it trains [1].
        device: `cpu`, `cuda` or `cuda:N` [cpu].
        store: root of the run folders; None for a temporary one of this process.
        progress: see `fit`.
        overrides: changes of the run's config, `dotted.key=value` or path and value.
        changes: the same by name, or of the algorithm: `updates=10_000`, `select="last"`, `warm_start=run`.

    Raises:
        MbrlError: a name or value is wrong, the log cannot be used, or the training met a NaN.

    Example:
        >>> run = mbrl.train("pendulum-mixed", "bc", updates=200, progress=False)
        >>> run.policy.act([1.0, 0.0, 0.0]).shape
        (1,)
    """
    _refuse_two_sources(online, log, task)
    workspace = open_workspace(store, progress)
    arguments: dict[str, Any] = {
        **log_arguments(log, workspace),
        "expert": log_arguments(expert, workspace)["dataset"],
        "weights": None if weights is None else list(weights),
        "algorithm": _algorithm_section(algorithm),
        "dynamics": _section(dynamics),
        "task": online or task,
        "seed": seed,
        "threads": threads,
        "device": device,
    }
    resolved = resolve(config, arguments=arguments, overrides=[*overrides, *named_overrides(changes)])
    return _run(_checked(resolved, online), workspace, open_log(log), dynamics)


def _run(resolved: ResolvedConfig, workspace: Workspace, log: Dataset | None, dynamics: Any) -> Run:
    with at_work(workspace, resolved.run) as work:
        model = (dynamics.fitted, dynamics.digest) if isinstance(dynamics, Dynamics) else None
        return Run(train_policy_stage(resolved, work, dataset=log, fitted=model), log)


def _algorithm_section(algorithm: str | Path | Mapping[str, Any] | RecipeConfig | None) -> Any:
    """A name, or the section as it stands in a yaml."""
    if not isinstance(algorithm, RecipeConfig):
        return _section(algorithm)
    for name in RECIPES.names():
        if RECIPES.get(name).Config is type(algorithm):
            fields = algorithm.model_dump(mode="json", exclude={"learner"})
            learner = algorithm.learner
            choice = {"name": learner.name, **learner.config.model_dump(mode="json")}
            return {"recipe": name, **fields, "learner": choice}
    raise ConfigError(f"No registered recipe has a config of class {type(algorithm).__name__}.")


def _section(value: "str | Path | Mapping[str, Any] | Dynamics | None") -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Dynamics):
        return value.config.model_dump(mode="json")
    return dict(value) if isinstance(value, Mapping) else value


def _refuse_two_sources(online: str | None, log: Log | None, task: str | None) -> None:
    if online is not None and (log is not None or task is not None):
        raise ConfigError("online=TASK (--online) trains in the simulator: leave the dataset and task away.")


def _checked(resolved: ResolvedConfig, online: str | None) -> ResolvedConfig:
    """Nobody meets a simulator by accident, or a log where a simulator was meant."""
    name = resolved.run.recipe
    if RECIPES.get(name).is_online != (online is not None):
        problem = "learns from logs, not online" if online else "meets a simulator: say --online TASK"
        raise ConfigError(f"The recipe {name!r} {problem}.")
    return resolved
