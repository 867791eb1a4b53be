"""Offline to online by batches: a training that goes on with trials of its own policies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.data import load
from mbrl.api.importing import import_log
from mbrl.api.progress import Listener
from mbrl.api.result import Result, jsonable
from mbrl.api.session import open_workspace, torch_settings
from mbrl.api.training import Run
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.importing.schema import ImportSchema
from mbrl.data.open import open_dataset
from mbrl.run.documents import Override
from mbrl.run.finetune.rounds import FinetuneConfig, Finetuning, Round, plan_next
from mbrl.run.finetune.versions import lineage_of
from mbrl.run.validation import validate

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class FinetuneResult(Result):
    """Rounds of trials and trainings.

    Attributes:
        rounds: in order; at least one.
        run: the training after the last batch, whose policy is the result.
        plan: what the next trials should show, sentences; None where nobody asked.
    """

    def __init__(self, rounds: Sequence[Round], plan: Sequence[str] | None) -> None:
        self.rounds = tuple(rounds)
        self.version = open_dataset(rounds[-1].version)
        self.run = Run(rounds[-1].run, self.version)
        self.plan = None if plan is None else tuple(plan)
        lineage = lineage_of(self.version)
        assert lineage is not None
        self.lineage = lineage

    @property
    def left(self) -> int:
        """Trials of the budget that are not used."""
        return self.lineage.budget - self.lineage.episodes

    def to_dict(self) -> dict[str, Any]:
        """Rounds with the hashes of their versions, the budget, and the plan."""
        rounds = [
            {**one.batch.model_dump(mode="json"), "log": str(one.version), "run": str(one.run.path)}
            for one in self.rounds
        ]
        used = {"budget": self.lineage.budget, "used": self.lineage.episodes}
        return jsonable({"rounds": rounds, **used, "plan": self.plan, "path": str(self.run.path)})

    def tables(self) -> "Sequence[Table]":
        """A row for each round."""
        from mbrl.report.kit.table import Table

        rows = [
            (
                one.batch.version,
                one.batch.episodes,
                one.batch.steps,
                one.batch.mean_return,
                one.batch.appended_to[:8],
                one.batch.content_hash[:8],
                one.run.path.name,
            )
            for one in self.rounds
        ]
        heads = ("version", "trials", "steps", "their mean return", "made of", "hash", "training after")
        return [Table("rounds", heads, rows)]

    def messages(self) -> Sequence[str]:
        """The budget, the plan, and how to go on."""
        found = [f"{self.lineage.episodes} of {self.lineage.budget} trials are used."]
        if self.plan is not None:
            found += self.plan or ["No range stands out in which a model of this log is unsure."]
        if not self.rounds[-1].batch.in_simulator and self.left:
            found.append(
                f"Next: mbrl export {self.run.path} --out BUNDLE, run it on the machine, then mbrl finetune "
                f"{self.run.path} --trials ITS_LOG --schema BUNDLE/log-schema.yaml."
            )
        return found

    def _headline(self) -> str:
        return f"version {self.lineage.version}, {len(self.rounds)} rounds, {str(self.run.path)!r}"


def finetune(
    run: "Run | str | Path",
    *,
    simulator: bool = False,
    trials: "Dataset | str | Path | Sequence[Dataset | str | Path] | None" = None,
    schema: "str | Path | Mapping[str, Any] | ImportSchema | None" = None,
    budget: int | None = None,
    batches: int = 3,
    plan: bool = True,
    dynamics: str | None = None,
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> FinetuneResult:
    """Goes on with a training by batches of trials of its policies; nothing is run unless it is asked for.

    Each batch becomes a new version of the log, which names the one before by its hash; then the networks and
    optimisers learn on, half on the old log and half on the trials. A later call finds what is done.

    Args:
        run: a finished training on a log, or the last round of an earlier call.
        simulator: run the trials in the simulator of the task: the whole budget, in `batches` parts.
        trials: or what was logged on the machine: open logs, or what `mbrl.load` takes, one for each batch;
            with a `schema`, raw files.
        schema: that describes raw files, such as the one of a bundle.
        budget: episodes that may be run in all, earlier calls included; None keeps what was stated before.
        batches: parts of the budget in a simulator.
        plan: fit a model of the last version, and say what the next trials should show.
        dynamics: name or path of a yaml for that fit; None takes the run's.
        store: root of the run folders; None takes that of the training.
        progress: see `mbrl.fit`.
        overrides: changes of the runs' config, `key=value` or path and value.
        changes: of `FinetuneConfig`: `updates=10_000`, `old_share=0.5`, `exploration=0.2`.

    Raises:
        ConfigError: nobody said where trials are run, the budget is not stated or exceeded, or the training
            cannot go on.
        DataError: the trials are those of another machine.

    Example:
        >>> import mbrl
        >>> from mbrl.api.finetuning import finetune
        >>> run = mbrl.train("pendulum-mixed", "td3_bc", updates=20, diagnostics=False, progress=False)
        >>> found = finetune(
        ...     run, simulator=True, budget=2, batches=2, updates=10, plan=False, progress=False
        ... )
        >>> found.lineage.version, found.left
        (3, 0)
    """
    if simulator == (trials is not None):
        raise ConfigError(
            "Say where trials are run, since nothing is run unasked: in the simulator (--simulator), or on "
            "the machine, whose log you name (--trials FILE)."
        )
    config = validate(FinetuneConfig, changes, where="The finetuning")
    path = run.path if isinstance(run, Run) else Path(run)
    workspace = open_workspace(path.parents[1] if store is None else store, progress)
    asked = Finetuning(path, config, budget, overrides)
    with torch_settings(Run.load(path).config.run.threads):
        if trials is None:
            rounds = asked.in_simulator(batches, workspace)
        else:
            rounds = asked.on_trials([_open(one, schema) for one in _listed(trials)], workspace)
        found = None
        if plan:
            version = open_dataset(rounds[-1].version)
            found = plan_next(rounds[-1].run, version, workspace, dynamics=dynamics)
    return FinetuneResult(rounds, found)


def _listed(trials: "Dataset | str | Path | Sequence[Dataset | str | Path]") -> list[Dataset | str | Path]:
    return [trials] if isinstance(trials, (Dataset, str, Path)) else list(trials)


def _open(
    trials: Dataset | str | Path, schema: "str | Path | Mapping[str, Any] | ImportSchema | None"
) -> Dataset:
    if isinstance(trials, Dataset):
        return trials
    return load(trials) if schema is None else import_log(schema, trials).log
