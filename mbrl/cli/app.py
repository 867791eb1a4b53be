"""The command line: which commands there are."""

import typer

from mbrl.cli import catalogue, datasets, runs

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
app.command("collect")(datasets.collect)
app.command("fit")(runs.fit)
app.command("train")(runs.train)
app.command("evaluate")(runs.evaluate)
app.command("export")(runs.export)
app.command("status")(catalogue.status)


def main() -> None:
    """Runs the command line."""
    app()
