"""Offline to online by batches: a training that goes on with trials of its own policies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mbrl.api.data import load
from mbrl.api.finetuning.result import FinetuneResult
from mbrl.api.importing import import_log
from mbrl.api.progress import Listener
from mbrl.api.session import open_workspace, torch_settings
from mbrl.api.training import Run
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.importing.schema import ImportSchema
from mbrl.run.documents import Override
from mbrl.run.finetune.rounds import FinetuneConfig, Finetuning, plan_next
from mbrl.run.validation import validate

_SAY_WHERE: Final = (
    "Say where trials are run, since nothing is run unasked: in the simulator (--simulator), or on the "
    "machine, whose log you name (--trials FILE)."
)


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

    Each batch becomes a new version of the log, which names the one before by its hash; then networks and
    optimisers learn on, half on the old log and half on the trials. A later call finds what is done.

    Args:
        run: a finished training on a log, or the last round of an earlier call.
        simulator: run the trials in the simulator of the task: the whole budget, in `batches` parts.
        trials: or what was logged on the machine: logs, what `mbrl.load` takes, or raw files; one a batch.
        schema: that describes raw files, such as the one of a bundle.
        budget: episodes that may be run in all, earlier calls included; None: as stated before.
        batches: parts of the budget in a simulator.
        plan: fit a model of the last version, and say what the next trials should show.
        dynamics: name or path of a yaml for that fit; None takes the run's.
        store: root of the run folders; None takes that of the training.
        progress: see `mbrl.fit`.
        overrides: changes of the runs' config, `key=value` or path and value.
        changes: of `FinetuneConfig`: `updates=10_000`, `old_share=0.5`, `exploration=0.2`.

    Raises:
        MbrlError: nobody said where trials run, the budget is exceeded, or trials and training do not fit.

    Example:
        >>> import mbrl
        >>> from mbrl.api.finetuning import finetune
        >>> run = mbrl.train("pendulum-mixed", "td3_bc", updates=20, diagnostics=False, progress=False)
        >>> found = finetune(run, simulator=True, budget=2, batches=2, updates=10, plan=False, progress=False)
        >>> found.lineage.version, found.left
        (3, 0)
    """
    if simulator == (trials is not None):
        raise ConfigError(_SAY_WHERE)
    config = validate(FinetuneConfig, changes, where="The finetuning")
    path = run.path if isinstance(run, Run) else Path(run)
    workspace = open_workspace(path.parents[1] if store is None else store, progress)
    asked = Finetuning(path, config, budget, overrides)
    with torch_settings(Run.load(path).config.run.threads):
        if trials is None:
            rounds = asked.in_simulator(batches, workspace)
        else:
            rounds = asked.on_trials([_open(one, schema) for one in _listed(trials)], workspace)
        return FinetuneResult(rounds, plan_next(rounds[-1], workspace, dynamics=dynamics) if plan else None)


def _listed(trials: "Dataset | str | Path | Sequence[Dataset | str | Path]") -> list[Dataset | str | Path]:
    return [trials] if isinstance(trials, (Dataset, str, Path)) else list(trials)


def _open(
    trials: Dataset | str | Path, schema: "str | Path | Mapping[str, Any] | ImportSchema | None"
) -> Dataset:
    if isinstance(trials, Dataset):
        return trials
    return load(trials) if schema is None else import_log(schema, trials).log
