"""One log in, one policy out, or the word that there is none."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.deploying import export
from mbrl.api.policy import Policy
from mbrl.api.progress import Listener, make_board
from mbrl.api.result import Result, jsonable
from mbrl.api.session import (
    minari_root,
    named_overrides,
    open_workspace,
    origin_of,
    store_log,
    torch_settings,
)
from mbrl.api.training import Run
from mbrl.core.errors import ConfigError, DataError, MissingExtraError
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.report.auto.facts import AutoReport
from mbrl.run.config import stable_hash
from mbrl.run.documents import Override
from mbrl.run.files import locked, write_text
from mbrl.run.stage import Workspace
from mbrl.study.auto.config import DEFAULT, DISCRETE, AutoSource, load_auto, load_options
from mbrl.study.auto.run import AutoJob, run_auto
from mbrl.study.engines import open_engine
from mbrl.study.folder import StudyFolder
from mbrl.study.sweep import run_sweep
from mbrl.study.tasks import Site, Task

if TYPE_CHECKING:
    from mbrl.report.kit.html import Section
    from mbrl.report.kit.table import Table

BUNDLE = "bundle"
"""Folder of the pick's bundle, beside the page."""

CLONE = "bc"
"""Label of the candidate that acts in a bundle where its guard lets the pick not."""

EXIT_NONE = 10
"""Exit status of the command line where no candidate is taken."""


class AutoResult(Result):
    """What was tried on a log, and what is taken.

    Attributes:
        report: everything, typed.
        path: the page; the numbers and the policy lie beside it.
    """

    def __init__(self, report: AutoReport, page: Path) -> None:
        self.report, self.path = report, page

    @property
    def policy(self) -> Policy | None:
        """The policy that is taken; None where none is better than the behaviour."""
        return None if self.report.policy is None else Policy.load(self.report.policy)

    @property
    def run(self) -> Run | None:
        """Its training; None likewise."""
        taken = self.report.taken
        return None if taken is None else Run.load(self.report.candidates[taken].path)

    @property
    def runs(self) -> list[Run]:
        """All trainings, the simplest first."""
        return [Run.load(candidate.path) for candidate in self.report.candidates]

    @property
    def bundle(self) -> Path | None:
        """Folder of the pick as `mbrl export` writes it; None without a pick or the extra `deploy`."""
        folder = self.path.parent / BUNDLE
        return folder if folder.exists() else None

    @property
    def exit_code(self) -> int:
        """Of the command line: 0 if a policy is taken, 10 if none."""
        return EXIT_NONE if self.report.taken is None else 0

    def to_dict(self) -> dict[str, Any]:
        """The report, and the path of the page."""
        return jsonable({**self.report.model_dump(mode="json"), "path": str(self.path)})

    def opening(self) -> Sequence[str]:
        """What was asked."""
        return [self.report.question]

    def tables(self) -> "Sequence[Table]":
        """What each candidate is believed to be worth."""
        from mbrl.report.auto.tables import candidate_table

        return [candidate_table(self.report)]

    def messages(self) -> Sequence[str]:
        """What is taken and why, what estimates say, warnings."""
        from mbrl.report.auto.tables import result_lines

        return result_lines(self.report)

    def sections(self) -> "Sequence[Section]":
        """Those of the page."""
        from mbrl.report.auto.page import auto_sections

        return auto_sections(self.report)

    def _headline(self) -> str:
        taken = self.report.taken
        label = "none taken" if taken is None else f"{self.report.candidates[taken].label} taken"
        return f"{label}, {len(self.report.candidates)} candidates, {str(self.path)!r}"


def auto(
    log: Dataset | str | Path,
    *,
    minutes: float = 30.0,
    portfolio: str | Path | None = None,
    jobs: int | None = None,
    store: str | Path | None = None,
    progress: Listener = None,
    command: str = "mbrl.auto",
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> AutoResult:
    r"""The best policy that a log permits within a given time, or the word that it permits none.

    Models are fitted, every candidate of a portfolio is trained for a part of the time, and models that
    trained none of them judge what each training passes through. The simplest candidate that is as good as
    the best is taken, if it is better than the behaviour by a lower bound and in the eyes of every judge; its
    value is reported by evidence that did not take it, and estimated from the log besides. No simulator has
    a say. What is done is not done again: an interrupted call continues.

    In a script, call it below `if __name__ == "__main__":`, since trainings are processes of their own.

    Args:
        log: an open log, or what `load` takes.
        minutes: of wall time; model fits and trainings are cut to it, a little more may be needed.
        portfolio: name in `configs/auto`, or a yaml; None for `discrete` on a log of choices, else `default`.
        jobs: trainings side by side; None for all cores.
        store: root of the run folders; None for a temporary one of this process.
        progress: False for no live table.
        command: that makes the page again, for its footer.
        overrides: `dotted.key=value` of the portfolio, or paths and values.
        changes: the same by name, `seed=1`, `judges={"count": 3}`.

    Raises:
        ConfigError: a name, key or value is wrong, or the time is too short for one candidate.
        DataError: the log may not be trained on, or has no rewards.

    Example:
        >>> from pathlib import Path
        >>> small = "algorithms: {bc: {file: bc, updates: 50}}\nkept: 2\ndynamics: {members: 2, elites: 1}"
        >>> _ = Path("small.yaml").write_text(small)
        >>> log = mbrl.load("pendulum-mixed").select(range(0, 70, 6))
        >>> judges = {"max_updates": 20, "horizon": 5, "draws": "mean"}
        >>> found = mbrl.auto(log, minutes=2.0, portfolio="small.yaml", judges=judges, jobs=1, progress=False)
        >>> found.report.candidates[0].label
        'bc'
    """
    asked = [*overrides, *named_overrides(changes, home=None)]
    named = None if portfolio is None else load_auto(str(portfolio), overrides=asked)
    options = load_options(asked) if named is None else named.config.dataset_options
    data = log if isinstance(log, Dataset) else open_dataset(str(log), options, minari_root=minari_root())
    source = named or load_auto(DISCRETE if data.spec.is_discrete else DEFAULT, overrides=asked)
    where = open_workspace(store, progress)
    job = _prepare(source, data, where, minutes=minutes, jobs=jobs, progress=progress, command=command)
    with torch_settings(1), locked(job.folder / ".lock"):
        report = run_auto(job)
    return _hand_over(report, job)


def _hand_over(report: AutoReport, job: AutoJob) -> AutoResult:
    """Writes the page, and the bundle of a pick."""
    from mbrl.report.auto.page import auto_page

    page = job.folder / "index.html"
    write_text(page, auto_page(report, command=job.command))
    result = AutoResult(report, page)
    _export(result, job)
    return result


def _export(result: AutoResult, job: AutoJob) -> None:
    """Puts the pick into a bundle that runs without torch, its clone beside it as the fallback."""
    folder, policy = job.folder / BUNDLE, result.policy
    if policy is None or folder.exists():
        return
    others = [one for index, one in enumerate(result.report.candidates) if index != result.report.taken]
    clones = [Path(one.path) / one.policy for one in others if one.label == CLONE]
    verdict = None if result.report.estimate is None else Path(result.report.estimate.page).parent
    try:
        export(policy, folder, log=job.dataset, fallback=clones[0] if clones else None, verdict=verdict)
        job.tell(f"Wrote {folder}: the policy with its guard, for a robot.")
    except (MissingExtraError, DataError) as error:
        job.tell(f"No bundle for a robot: {error}")


def _prepare(
    source: AutoSource,
    data: Dataset,
    workspace: Workspace,
    *,
    minutes: float,
    jobs: int | None,
    progress: Listener,
    command: str,
) -> AutoJob:
    """The folder made."""
    if not 0 < minutes < 1e6:
        raise ConfigError(f"minutes={minutes:g} is no time. Remedy: a positive number.")
    source_of_log = origin_of(data, workspace).source
    if not isinstance(source_of_log, str):  # its jobs open one dataset by its name
        source_of_log = str(store_log(data, workspace).source)
    path = Path(source_of_log).expanduser()
    opened = str(path.resolve()) if path.exists() else source_of_log
    count = jobs or os.cpu_count() or 1
    root = workspace.store.root.resolve()
    mark = stable_hash([source.config.model_dump(mode="json"), data.content_hash, minutes, count])[:8]
    site = Site(StudyFolder(root / "auto" / f"{data.info.name}-{source.name}-{mark}"), root, minari_root())

    def sweep(tasks: Sequence[Task]) -> None:
        with open_engine("local", site, jobs=count) as workers, make_board(progress) as board:
            run_sweep(tasks, site.folder, workers, board)

    site.folder.path.mkdir(parents=True, exist_ok=True)
    return AutoJob(source, data, opened, site, workspace, minutes, count, sweep, command)
