"""`mbrl ope`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mbrl.cli.options import DebugFlag, Device, JsonFlag, Runs, Threads, guarded, listener
from mbrl.cli.output import emit

Candidates: TypeAlias = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Trainings, or policy files.")
]
Log: TypeAlias = Annotated[str, typer.Option(help="The log to judge by.")]
Baseline: TypeAlias = Annotated[
    str, typer.Option(metavar="behaviour|RUN", help="What they are compared with.")
]
Risk: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="termination:LIMIT|below:RETURN:LIMIT",
        help="Largest probability permitted of an early end, or of a return below a value.",
    ),
]
Discount: TypeAlias = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Discount of the value; 1 asks for the return of an episode.")
]
Horizon: TypeAlias = Annotated[
    int | None, typer.Option(min=1, max=1_000_000, help="Steps that count [the whole task].")
]
Stochastic: TypeAlias = Annotated[
    bool, typer.Option("--stochastic", help="Judge the policy's draws, not its evaluation action.")
]
Updates: TypeAlias = Annotated[int, typer.Option(min=1, help="Gradient steps of a value fit.")]
Model: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Dynamics model: folder of a fit, or its file [judges]."),
]
JudgeCount: TypeAlias = Annotated[
    int,
    typer.Option("--judges", min=0, max=20, help="Models that trained no policy and value them; 0: none."),
]
OwnModel: TypeAlias = Annotated[
    bool, typer.Option("--own-model", help="Roll the run's own model out, flagged, in place of judges.")
]
Termination: TypeAlias = Annotated[
    str, typer.Option(help="End of roll-outs: learned, task (its known rule), never or auto.")
]
Crossfit: TypeAlias = Annotated[
    int, typer.Option(min=0, max=5, help="Folds of the values under dr, wdr and magic; 0 for none.")
]
Backtest: TypeAlias = Annotated[
    bool,
    typer.Option(help="First ask for the known value of the policy that acted: fits on halves of the log."),
]
Weights: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAME=NUMBER,...",
        help="Changes of importance weights: clip_log_ratio=LOW:HIGH, cap, switch, shrinkage.",
    ),
]
Tested: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="CSV of returns on the machine: candidate,return. Informs what to test next."),
]
TestEpisodes: TypeAlias = Annotated[
    int, typer.Option("--test-episodes", min=1, max=10_000, help="Episodes that may be tested next.")
]
DrawSeed: TypeAlias = Annotated[int, typer.Option(min=0, help="Of all draws.")]


@guarded
def ope(
    runs_of: Candidates,
    *,
    dataset: Log,
    baseline: Baseline = "behaviour",
    risk: Risk = None,
    discount: Discount = 1.0,
    horizon: Horizon = None,
    stochastic: Stochastic = False,
    updates: Updates = 100_000,
    dynamics: Model = None,
    judges: JudgeCount = 2,
    own_model: OwnModel = False,
    termination: Termination = "auto",
    crossfit: Crossfit = 0,
    backtest: Backtest = False,
    weights: Weights = "",
    tested: Tested = None,
    test_episodes: TestEpisodes = 10,
    seed: DrawSeed = 0,
    threads: Threads = None,
    device: Device = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Judge policies by a log alone, and propose what to do: a table, JSON and a page.

    Exit status 0 go, 10 go with guard, 20 no-go, 30 cannot tell, 1 error: of the proposed candidate.
    """
    from mbrl.api.judging import ope as judge

    del debug
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
        judges=judges,
        own_model=own_model,
        termination=termination,
        crossfit=crossfit,
        backtest=backtest,
        weights=weights,
        tested=tested,
        test_episodes=test_episodes,
        seed=seed,
        threads=threads or 1,
        device=device or "cpu",
        store=runs,
        progress=listener(is_json=json),
        command=shlex.join(["mbrl", *sys.argv[1:]]),
    )
    emit(result, is_json=json, path=result.path)
    raise typer.Exit(result.exit_code)
