"""The command line: which commands there are."""

import sys

import typer

from mbrl.cli import (
    auto,
    bags,
    bench,
    catalogue,
    compare,
    datasets,
    deploy,
    finetune,
    ope,
    ope_bench,
    plan,
    preferences,
    reports,
    runs,
)
from mbrl.cli.options import WeightedCommand

app = typer.Typer(
    name="mbrl",
    help="Model-based offline reinforcement learning: from logged episodes to an evaluated policy.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("list")(catalogue.list_entries)
app.command("inspect")(datasets.inspect)
app.command("import")(datasets.import_log)
app.command("topics")(bags.topics)
app.command("merge")(datasets.merge)
app.command("relabel")(datasets.relabel)
app.command("collect")(datasets.collect)
app.command("label")(preferences.label)
app.command("preferences")(preferences.preferences)
app.command("synthetic-preferences")(preferences.synthetic)
app.command("fit-reward")(preferences.fit_reward)
app.command("next-pairs")(preferences.next_pairs)
app.command("best-of")(preferences.best_of)
app.command("auto")(auto.auto)
app.command("fit")(runs.fit)
app.command("finetune")(finetune.finetune)
app.command("train", cls=WeightedCommand)(runs.train)
app.command("select")(runs.select)
app.command("evaluate")(runs.evaluate)
app.command("ope")(ope.ope)
app.command("ope-bench")(ope_bench.ope_bench)
app.command("plan")(plan.plan)
app.command("plan-audit")(plan.plan_audit)
app.command("export")(deploy.export)
app.command("deploy-check")(deploy.deploy_check)
app.command("compare")(compare.compare)
app.command("report")(reports.report)
app.command("status")(catalogue.status)
app.command("demo")(reports.demo)
app.command("bench")(bench.bench)


def main(command: str | None = None) -> None:
    """Runs the command line.

    Args:
        command: put before the arguments, for programs that stand for one command.
    """
    app(None if command is None else [command, *sys.argv[1:]])
