"""`mbrl ope`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, Runs, Threads, guarded, listener
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
    from mbrl.api.judging import ope as judge

    result = judge(
        runs_of,
        dataset,
        baseline=baseline,
        risk=risk,
        discount=discount,
        horizon=horizon,
        stochastic=stochastic,
        updates=updates,
        dynamics=dynamics,
        fit_dynamics=fit_dynamics,
        termination=termination,
        crossfit=crossfit,
        backtest=backtest,
        tested=tested,
        test_episodes=test_episodes,
        seed=seed,
        threads=threads or 1,
        store=runs,
        progress=listener(is_json=json),
        command=shlex.join(["mbrl", *sys.argv[1:]]),
    )
    emit(result, is_json=json, path=result.path)
    raise typer.Exit(result.exit_code)
