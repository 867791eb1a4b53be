"""Algorithms compared over datasets and seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mbrl.api.policy import Policy
from mbrl.api.progress import Listener, choose_progress, make_board
from mbrl.api.result import Result, jsonable
from mbrl.api.session import minari_root, named_overrides, open_workspace, torch_settings
from mbrl.core.device import CPU, find_device
from mbrl.core.errors import ConfigError
from mbrl.core.progress import SilentProgress
from mbrl.report.study.facts import Study, StudyAlgorithm, StudyRun
from mbrl.run.documents import Override
from mbrl.run.evaluate import evaluate_stage
from mbrl.run.inputs import find_run_task, load_run_dataset
from mbrl.run.records import EvaluationSummary
from mbrl.run.stage import Workspace
from mbrl.study.config import load_study
from mbrl.study.engines import EngineName, open_engine
from mbrl.study.facts import gather_study, summarise_means, summarise_run
from mbrl.study.folder import StudyFolder
from mbrl.study.layout import StudyPlan, begin_study, plan_study
from mbrl.study.sweep import run_sweep
from mbrl.study.tasks import Site

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table


class ComparisonResult(Result):
    """What algorithms reached on datasets, over seeds.

    Attributes:
        study: all facts, typed.
        path: the page; Markdown, JSON and figures lie beside it.
    """

    def __init__(self, study: Study, page: Path) -> None:
        self.study, self.path = study, page

    @property
    def is_complete(self) -> bool:
        """Whether every run is done; call `compare` again to try those that are missing."""
        return all(run.status == "done" for run in self.study.runs)

    def to_dict(self) -> dict[str, Any]:
        """Runs, means over seeds, plannings, and the path of the page."""
        return jsonable(
            {
                "study": self.study.name,
                "selection": self.study.selection,
                "runs": [summarise_run(run) for run in self.study.runs],
                "means": summarise_means(self.study),
                "plannings": self.study.plannings,
                "path": str(self.path),
            }
        )

    def tables(self) -> "Sequence[Table]":
        """Scores by dataset and over all of them, and what to use."""
        from mbrl.report.study.tables import study_table

        return study_table(self.study)

    def messages(self) -> Sequence[str]:
        """What is missing, and why."""
        missing = [run for run in self.study.runs if run.status != "done"]
        lines = [
            f"{run.status}: {run.algorithm} on {run.dataset}, seed {run.seed}: {run.cause or 'not run'}"
            for run in missing
        ]
        if missing:
            lines.append(
                f"{len(missing)} of {len(self.study.runs)} runs are missing: run it again to try them."
            )
        return lines

    def _headline(self) -> str:
        done = sum(run.status == "done" for run in self.study.runs)
        return f"{self.study.name!r}, {done} of {len(self.study.runs)} runs, {str(self.path)!r}"


def compare(
    config: str | Path,
    *,
    policies: Mapping[str, Policy] | None = None,
    jobs: int | None = None,
    engine: EngineName = "local",
    address: str | None = None,
    out: str | Path | None = None,
    store: str | Path | None = None,
    progress: Listener = None,
    command: str = "mbrl.compare",
    overrides: Sequence[Override] = (),
    **changes: Any,
) -> ComparisonResult:
    """Trains algorithms on datasets with several seeds, evaluates them, and writes one page.

    What is done is not done again: an interrupted comparison continues. In a script, call it below
    `if __name__ == "__main__":`, since its runs are processes of their own.

    Args:
        config: name in `configs/experiments`, or a yaml.
        policies: further policies by name, evaluated from the same starts. They have no seeds of training,
            so their figures are the same for every seed.
        jobs: runs side by side; None for all cores.
        engine: processes of this machine, or Ray.
        address: of a running Ray cluster.
        out: folder of page, tables and figures; None for one in the run store.
        store: root of the run folders; None for a temporary one of this process.
        progress: False for no live table.
        command: that makes the page again, for its footer.
        overrides: `dotted.key=value`, or paths and values.
        changes: values of the comparison's config, `seeds=[0, 1]`, `device="cuda"`.

    Raises:
        ConfigError: a name, key or value is wrong.

    Example:
        >>> study = mbrl.compare("smoke", jobs=1, progress=False)
        >>> study.is_complete
        True
    """
    if address is not None and engine != "ray":
        raise ConfigError("address belongs to the engine ray (--address, --engine ray).")
    settings = [*overrides, *named_overrides(changes, home=None)]
    source = load_study(str(config), overrides=settings)
    workspace = open_workspace(store, SilentProgress() if store is not None else choose_progress(progress))
    root = workspace.store.root.resolve()
    site = Site(StudyFolder(root / "studies" / source.name), root, minari_root())
    # Nodes of Ray have devices of their own.
    with torch_settings(1, find_device(source.config.device) if engine == "local" else CPU):
        plan = plan_study(source, site)
        begin_study(plan, site)
        with open_engine(engine, site, jobs=jobs, address=address) as workers, make_board(progress) as board:
            run_sweep(plan.tasks, site.folder, workers, board)
        study = gather_study(plan, site, command=command)
        if policies:
            study = _with_policies(study, policies, plan, workspace)
    from mbrl.report.study.page import write_study

    return ComparisonResult(study, write_study(study, site.folder.path if out is None else Path(out)))


def _with_policies(
    study: Study, policies: Mapping[str, Policy], plan: StudyPlan, workspace: Workspace
) -> Study:
    """The study with policies that were not trained in it, evaluated as its own are."""
    clash = sorted(set(policies) & set(study.algorithms))
    if clash:
        raise ConfigError(
            f"The comparison has an algorithm {clash[0]!r} already. Remedy: name the policy otherwise."
        )
    runs: list[StudyRun] = []
    for dataset in study.datasets:
        first = next(iter(plan.source.config.algorithms))
        where = str(plan.sources[dataset.label])
        config = plan.source.resolve(first, seed=study.seeds[0], dataset=where).run
        log = load_run_dataset(config, workspace)
        task, judge = find_run_task(config, log), config.evaluation
        if task is None:
            continue
        for name, policy in policies.items():
            stored = policy.for_space(log.spec)
            found = evaluate_stage(
                stored, workspace, task=task, episodes=judge.episodes, seed=judge.seed
            ).summary(EvaluationSummary)
            scores = found["normalised_scores"]
            runs += [
                StudyRun(
                    dataset.label,
                    name,
                    seed,
                    "done",
                    returns=tuple(map(float, found["episode_returns"])),
                    scores=None if scores is None else tuple(map(float, scores)),
                )
                for seed in study.seeds
            ]
    algorithms = {
        name: StudyAlgorithm(label=name, recipe="given", learner="none", needs_dynamics=False, config={})
        for name in policies
    }
    return dataclasses.replace(
        study, algorithms={**study.algorithms, **algorithms}, runs=(*study.runs, *runs)
    )
