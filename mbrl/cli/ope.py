"""`mbrl ope`."""

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Runs, Threads, guarded, make_workspace, minari_root
from mbrl.cli.output import emit


@guarded
def ope(
    runs_of: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Trainings, or policy files.")],
    *,
    dataset: Annotated[str, typer.Option(help="The log to judge by.")],
    baseline: Annotated[
        str, typer.Option(metavar="behaviour|RUN", help="What they are compared with.")
    ] = "behaviour",
    risk: Annotated[
        str | None,
        typer.Option(
            metavar="termination:LIMIT|below:RETURN:LIMIT",
            help="Largest probability permitted of an early end, or of a discounted return below a value.",
        ),
    ] = None,
    discount: Annotated[float, typer.Option(min=0.0, max=1.0, help="Discount of the value.")] = 0.99,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Steps that count [the shortest time-out of the log].")
    ] = None,
    stochastic: Annotated[
        bool, typer.Option("--stochastic", help="Judge the policy's draws, not its evaluation action.")
    ] = False,
    updates: Annotated[int, typer.Option(min=1, help="Gradient steps of a value fit.")] = 100_000,
    dynamics: Annotated[
        Path | None,
        typer.Option(help="Dynamics model: folder of a fit, or its file [the fit of the run, where made]."),
    ] = None,
    fit_dynamics: Annotated[
        bool, typer.Option("--fit-dynamics", help="Fit the dynamics where no fit is found.")
    ] = False,
    termination: Annotated[
        str, typer.Option(help="End of roll-outs: learned, task (its known rule) or never.")
    ] = "learned",
    crossfit: Annotated[
        int, typer.Option(min=0, max=5, help="Folds of the values under dr, wdr and magic; 0 for none.")
    ] = 0,
    backtest: Annotated[
        bool, typer.Option(help="First ask for the known value of the policy that acted.")
    ] = True,
    tested: Annotated[
        Path | None,
        typer.Option(help="CSV of returns on the machine: candidate,return. Informs what to test next."),
    ] = None,
    test_episodes: Annotated[
        int, typer.Option("--test-episodes", min=1, max=10_000, help="Episodes that may be tested next.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.")] = 0,
    threads: Threads = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Judge policies by a log alone, and propose what to do: a table, JSON and a page.

    Exit status 0 go, 10 go with guard, 20 no-go, 30 cannot tell, 1 error. Of several candidates it is that of
    the proposed one: the best verdict at a level that holds for all of them at once.
    """
    del debug
    from mbrl.data.open import open_dataset
    from mbrl.data.options import LoadOptions
    from mbrl.ope.judgement.families import BEHAVIOUR
    from mbrl.ope.judgement.risk import RiskQuestion
    from mbrl.ope.value.fqe import FQEConfig
    from mbrl.run.judge.deployment import Trials, deployment_stage, unique_names
    from mbrl.run.judge.model import ModelRequest, choose_model
    from mbrl.run.judge.ope import OPESettings, candidate_label, ope_stage
    from mbrl.run.judge.tested import read_tested
    from mbrl.run.stages import open_policy, set_up_torch
    from mbrl.run.store import RunFolder

    set_up_torch(threads or 1)
    names = unique_names([candidate_label(open_policy(path)) for path in runs_of])
    trials = Trials({} if tested is None else read_tested(tested, names), test_episodes)
    log = open_dataset(dataset, LoadOptions(), minari_root=minari_root())
    request = ModelRequest.parse(dynamics, fit=fit_dynamics, termination=termination)
    settings = OPESettings(
        discount,
        horizon,
        stochastic,
        FQEConfig(updates=updates),
        seed,
        risk=RiskQuestion() if risk is None else RiskQuestion.parse(risk),
        model=request,
        crossfit=crossfit,
        backtest=backtest,
    )
    workspace = make_workspace(runs, is_json=json)

    def judged(path: Path) -> RunFolder:
        chosen = choose_model(path, log, request, source=dataset, workspace=workspace)
        return ope_stage(open_policy(path), log, settings, workspace, chosen=chosen)

    folders = [judged(path) for path in runs_of]
    other = None if baseline == BEHAVIOUR else judged(Path(baseline))
    command = shlex.join(["mbrl", *sys.argv[1:]])
    folder = deployment_stage(folders, other, log, workspace, trials=trials, command=command)
    raise typer.Exit(_show(folder.path, folder.summary(), is_json=json))


def _show(folder: Path, found: Mapping[str, Any], *, is_json: bool) -> int:
    """Prints a comparison of candidates; the exit status that goes with its verdict."""
    from mbrl.ope.judgement.report.documents import DeploymentReport
    from mbrl.ope.judgement.verdict import EXIT_CODES
    from mbrl.report.deployment.flags import flag_table
    from mbrl.report.deployment.sentences import verdict_lines
    from mbrl.report.deployment.tables import candidate_table, estimate_table, trial_table
    from mbrl.run.judge.deployment import DEPLOYMENT_FILE, PAGE

    whole = DeploymentReport.load(folder / DEPLOYMENT_FILE)
    tables = [candidate_table(whole), trial_table(whole)] if len(whole.reports) > 1 else []
    for report in whole.reports:
        tables += [estimate_table(report), flag_table(report)]
    emit(
        found,
        [table for table in tables if table.rows],
        messages=[line for report in whole.reports for line in verdict_lines(report)],
        is_json=is_json,
        path=folder if is_json else folder / PAGE,
    )
    return EXIT_CODES[whole.proposed_report.verdict.final.verdict]
