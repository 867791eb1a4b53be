"""`mbrl label`, `preferences`, `synthetic-preferences`, `fit-reward`, `next-pairs`, `best-of`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mbrl.cli.datasets import Source
from mbrl.cli.options import DebugFlag, JsonFlag, Overrides, Runs, Seed, Threads, guarded, listener
from mbrl.cli.output import emit

if TYPE_CHECKING:
    from mbrl.preferences.queries import Query

Length = Annotated[int, typer.Option(min=1, help="Steps of a segment.")]


@guarded
def label(
    dataset: Source,
    *,
    out: Annotated[Path, typer.Option("--out", help="File of answers, .jsonl; made, or continued.")],
    pairs: Annotated[
        Path | None, typer.Option(help="Pairs to ask, of mbrl next-pairs [random ones].")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Random pairs that are asked.")] = 50,
    length: Length = 25,
    annotator: Annotated[str, typer.Option(help="Who answers.")] = "",
    channels: Annotated[
        list[str] | None,
        typer.Option("--channel", help="A channel that is shown; repeatable [the first dozen]."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    seed: Seed = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Answer which of two segments is better, on a page that this machine alone can open."""
    del debug
    from mbrl.api.preferences import label as ask

    answers = ask(
        dataset,
        out,
        pairs=pairs,
        count=count,
        length=length,
        annotator=annotator,
        channels=channels,
        seed=seed or 0,
        port=port,
        browser=browser,
        tell=lambda text: typer.echo(text, err=True),
    )
    emit(answers, is_json=json, path=answers.path)


@guarded
def preferences(
    dataset: Source,
    files: Annotated[list[Path], typer.Argument(help="Preference files, .jsonl or .parquet.")],
    *,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check preference files against their log, and measure how far annotators agree."""
    del debug
    from mbrl.api.preferences import inspect_preferences

    emit(inspect_preferences(dataset, files), is_json=json)


@guarded
def synthetic(
    dataset: Source,
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write, .jsonl or .parquet; must not exist.")],
    pairs: Annotated[int, typer.Option(min=1, help="How many.")] = 200,
    length: Length = 25,
    reward: Annotated[
        str | None, typer.Option(help="Expression that the annotator has in mind [the log's reward].")
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0, max=0.5, help="Probability that an answer is turned around.")
    ] = 0.0,
    myopia: Annotated[
        float,
        typer.Option(max=1, help="Discount towards the start of a segment: below 1 its end counts most."),
    ] = 1.0,
    rationality: Annotated[
        float | None,
        typer.Option(help="Beta of answers by chance, in 1 / reward units [always the larger sum]."),
    ] = None,
    equal_margin: Annotated[
        float, typer.Option(min=0, help="Sums that differ by less are equal, reward units.")
    ] = 0.0,
    seed: Seed = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make up an annotator who knows the reward: for tests, and to learn how many pairs a task takes."""
    del debug
    from mbrl.api.preferences import synthetic_preferences

    made = synthetic_preferences(
        dataset,
        pairs=pairs,
        length=length,
        reward=reward,
        seed=seed or 0,
        out=out,
        noise=noise,
        myopia=myopia,
        rationality=rationality,
        equal_margin=equal_margin,
    )
    emit(made, is_json=json, path=out)


@guarded
def fit_reward(
    dataset: Source,
    *,
    files: Annotated[
        list[Path] | None,
        typer.Option("--preferences", metavar="FILE", help="Answers, .jsonl or .parquet; repeatable."),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Or labels of success and failure, .jsonl or .parquet; repeatable."
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Or a column of the log that says so, such as next.success."),
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Fit a reward model to preferences, or a success classifier to labels, and report how it judges."""
    del debug
    if sum(bool(given) for given in (files, labels, column)) != 1:
        raise typer.BadParameter("name --preferences, --labels or --column, one of them")
    from mbrl.api.preferences import fit_reward, fit_success

    settings: dict[str, Any] = {
        "seed": seed or 0,
        "threads": threads or 1,
        "store": runs,
        "progress": listener(is_json=json),
        "overrides": overrides or [],
    }
    if files:
        model = fit_reward(dataset, files, **settings)
    else:
        model = fit_success(dataset, labels or None, column=column, **settings)
    emit(model, is_json=json, path=model.path)


@guarded
def next_pairs(
    dataset: Source,
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write, .jsonl; must not exist.")],
    reward_model: Annotated[
        Path | None, typer.Option(help="Reward model of mbrl fit-reward: its folder or file.")
    ] = None,
    query: Annotated[
        str, typer.Option(metavar="disagreement|random", help="What makes a pair worth asking.")
    ] = "disagreement",
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    length: Length = 25,
    known: Annotated[
        list[Path] | None,
        typer.Option("--preferences", metavar="FILE", help="Answers that are there: not asked again."),
    ] = None,
    seed: Seed = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Say which pairs to ask next: those that the members of a reward model dispute."""
    del debug
    from mbrl.api.preferences import next_pairs as choose

    kind: Query = "random" if query == "random" else "disagreement"
    if kind != query:
        raise typer.BadParameter(f"{query!r}: disagreement or random", param_hint="--query")
    queue = choose(
        dataset,
        reward_model,
        count=count,
        length=length,
        query=kind,
        known=known,
        seed=seed or 0,
        out=out,
    )
    emit(queue, is_json=json, path=out)


@guarded
def best_of(
    policy: Annotated[Path, typer.Argument(help="Who draws: a training, or a policy file, with a density.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write, .safetensors.")],
    reward_model: Annotated[
        Path | None, typer.Option(help="What ranks: a reward model of mbrl fit-reward.")
    ] = None,
    critic: Annotated[
        Path | None, typer.Option(help="Or a training whose critics rank, those of its last update.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, max=10_000, help="Draws among which it chooses.")] = 16,
    pessimism: Annotated[
        float,
        typer.Option(min=0, help="Deviations over members that are taken off; 1 of two critics: the least."),
    ] = 0.0,
    runs: Runs = Path("runs"),
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Make a policy that takes the best of N draws of another one, by a reward model or by critics."""
    del debug
    from mbrl.api.preferences import best_of as make
    from mbrl.api.result import PlainResult
    from mbrl.report.kit.table import Table

    made = make(
        policy,
        reward_model=reward_model,
        critic=critic,
        candidates=candidates,
        pessimism=pessimism,
        store=runs,
    )
    written = made.save(out)
    facts = {name: made.stored.facts[name] for name in ("algorithm", "behaviour", "ranked_by")}
    table = Table("best of N", ("", "value"), list(facts.items()))
    emit(
        PlainResult({**facts, "path": str(written)}, [table], title=str(written)), is_json=json, path=written
    )
