"""The part of a page that compares methods."""

from mbrl.report.kit.html import Picture, Section
from mbrl.report.kit.message import Message
from mbrl.report.kit.plots import Dots
from mbrl.report.kit.score_plots import scores
from mbrl.report.kit.table import Table
from mbrl.report.kit.wording import format_interval, has_ends
from mbrl.report.run.comparison import Comparison, comparison_table


def score_section(comparison: Comparison, messages: tuple[Message, ...] = ()) -> Section:
    """Scores of every method with every seed, and the table of them.

    Args:
        comparison: the figures.
        messages: what is concluded from them.
    """
    methods = comparison.methods
    behaviour = None if comparison.behaviour is None else comparison.behaviour.estimate
    bare = [method.name for method in methods if not has_ends(method.interval)]
    note = "Dots are seeds; the larger mark is the mean with its interval."
    if bare:
        note += f" No interval: {', '.join(bare)}."
    picture = Picture(
        "scores",
        f"Scores on {comparison.dataset}",
        scores(
            [Dots(method.name, method.values, method.interval) for method in methods],
            unit=comparison.unit,
            behaviour=behaviour,
            best_tenth=comparison.best_tenth,
        ),
        alt="; ".join(f"{method.name} {format_interval(method.interval)}" for method in methods),
        note=note,
        table=_seed_table(comparison),
    )
    return Section("Scores", messages=messages, pictures=[picture], tables=[comparison_table(comparison)])


def _seed_table(comparison: Comparison) -> Table:
    rows = [(m.name, index, value) for m in comparison.methods for index, value in enumerate(m.values)]
    return Table("Every seed", ("method", "seed", comparison.unit), rows)
