"""The best of several trainings, by a log alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.policy import Policy
from mbrl.api.progress import Listener
from mbrl.api.result import Result, jsonable
from mbrl.api.session import at_work, log_arguments, named_overrides, open_workspace
from mbrl.api.training import Run
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.documents import Override
from mbrl.run.inputs import load_run_dataset
from mbrl.run.judge.judges import open_judges
from mbrl.run.judge.selection import Candidate, Selection, select_by_judges
from mbrl.run.policies import Which, open_policy
from mbrl.run.stage import Workspace

if TYPE_CHECKING:
    from mbrl.report.kit.html import Section
    from mbrl.report.kit.table import Table


class SelectionResult(Result):
    """Which of several trainings a log speaks for.

    Attributes:
        selection: what judges say of each, typed.
        runs: the trainings, in the order in which they were given.
    """

    def __init__(self, selection: Selection, runs: Sequence[Run]) -> None:
        self.selection, self.runs = selection, tuple(runs)

    @property
    def run(self) -> Run:
        """The training that was chosen."""
        return self.runs[self.selection.chosen]

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.run.path

    @property
    def policy(self) -> Policy:
        """Its policy that was judged."""
        which = self.selection.winner.changes["policy"]
        return self.run.last_policy if which == "last" else self.run.policy

    def to_dict(self) -> dict[str, Any]:
        """The selection, and the folder of what was chosen."""
        return jsonable({**self.selection.to_json(), "path": str(self.path)})

    def tables(self) -> "Sequence[Table]":
        """Every training with its judged value."""
        from mbrl.report.run.selection_sections import selection_table

        return [selection_table(self.selection.to_json())]

    def messages(self) -> Sequence[str]:
        """What was asked, what was taken and why."""
        from mbrl.report.run.selection_sections import selection_lines, selection_warnings

        values = self.selection.to_json()
        return [*selection_lines(values), *selection_warnings(values, None)]

    def sections(self) -> "Sequence[Section]":
        """The same; there is no curve to draw."""
        from mbrl.report.kit.html import Section

        return [Section("Selection", text="\n".join(self.messages()), tables=self.tables())]

    def _headline(self) -> str:
        winner = self.selection.winner
        return f"{str(self.path)!r} of {len(self.runs)}, lower bound {winner.low:.4g}"


def select(
    runs: "Sequence[Run | str | Path]",
    log: Dataset | str | Path | None = None,
    *,
    which: Which = "selected",
    store: str | Path | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> SelectionResult:
    """The best of several trainings over seeds, methods and pessimism: the best lower bound of judges.

    All are judged by the same models, which trained none of them, from the same logged first states; no
    simulator is met. What is reported of the chosen one comes from evidence that did not choose it.

    Args:
        runs: trainings on one log, or their folders.
        log: that log; None opens the one that the first training names.
        which: of each training its `selected` policy, or the `last`.
        store: root of the run folders, where judges are found or made; None for that of the first training.
        progress: see `fit`.
        overrides: changes of the config of the judges, `judges.count=3`.
        changes: the same by name, `judges={"count": 3}`, `dynamics={"members": 5}`.

    Raises:
        ConfigError: there is no training, they learned from different logs, or a value is wrong.

    Example:
        >>> log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
        >>> runs = [mbrl.train(log, "bc", updates=50, seed=seed, progress=False) for seed in (0, 1)]
        >>> tiny = {"max_updates": 20, "members": 2, "elites": 1, "hidden": [16]}
        >>> judges = {"max_updates": 20, "horizon": 5, "draws": "mean"}
        >>> best = mbrl.select(runs, dynamics=tiny, judges=judges, progress=False)
        >>> best.run.name
        'bc'
    """
    trained = [run if isinstance(run, Run) else Run.load(run) for run in runs]
    if not trained:
        raise ConfigError("There is no training to select. Remedy: name at least one.")
    hashes = {str(run.path): run.dataset_hash for run in trained}
    if len(set(hashes.values())) > 1:
        other = next(path for path in hashes if hashes[path] != hashes[str(trained[0].path)])
        raise ConfigError(
            f"{other} learned from another log than {trained[0].path}: one log does not tell what both are "
            "worth. Remedy: select among the trainings of each log."
        )
    workspace = open_workspace(store or trained[0].path.parents[1], progress)
    resolved = _config(trained[0], log, workspace, [*overrides, *named_overrides(changes, home=None)])
    with at_work(workspace, resolved.run) as workspace:
        data = log if isinstance(log, Dataset) else load_run_dataset(resolved.run, workspace)
        _check_log(trained[0], data)
        stored = [open_policy(run.path, which) for run in trained]
        judges = open_judges(resolved, data, workspace)
        candidates = [
            Candidate({"training": run.path.name, "policy": which}, run.path, one.policy)
            for run, one in zip(trained, stored, strict=True)
        ]
        selection, _ = select_by_judges(candidates, judges, workspace.progress)
    return SelectionResult(selection, trained)


def _config(
    run: Run, log: Dataset | str | Path | None, workspace: Workspace, changes: Sequence[Override]
) -> ResolvedConfig:
    """That of the first training, whose judges the others share, with another place of the log if given."""
    given = {key: value for key, value in log_arguments(log, workspace).items() if value is not None}
    return resolve(run.path / "config.yaml", arguments=given, overrides=list(changes))


def _check_log(run: Run, data: Dataset) -> None:
    if run.dataset_hash not in {None, data.content_hash}:
        raise ConfigError(
            f"The log {data.info.name!r} is not the one that {run.path} learned from. Remedy: name that one."
        )
