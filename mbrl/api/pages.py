"""Pages of runs, and the demo."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbrl.api.progress import Listener
from mbrl.api.result import PlainResult
from mbrl.api.run_page import write_run_page
from mbrl.api.session import open_workspace, torch_settings
from mbrl.run.documents import Override


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A page that was written.

    Attributes:
        result: what it is about, shows itself.
        path: the HTML file.
    """

    result: PlainResult
    path: Path


def report(run: str | Path, out: str | Path | None = None) -> Page:
    """Writes one self-contained HTML page about a run, with figures.

    Args:
        run: folder of a fit, a training or a planning.
        out: the page; None for `report.html` in the folder.

    Raises:
        ConfigError: there is nothing to report on.
    """
    path = write_run_page(Path(run), None if out is None else Path(out))
    return Page(PlainResult({"run": str(run), "path": str(path)}), path)


def demo(
    out: str | Path = "demo",
    *,
    dataset: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    progress: Listener = None,
    overrides: Sequence[Override] = (),
) -> Page:
    """From logged episodes to compared policies in some minutes; what is done is not done again.

    Args:
        out: folder of page, figures and runs.
        dataset: another one of the same kind.
        seed: of everything.
        threads: of torch.
        progress: see `mbrl.fit`.
        overrides: changes of the config of all methods.
    """
    from mbrl.report.run.comparison import comparison_table, conclude
    from mbrl.study.demo import run_demo

    target = Path(out)
    arguments: dict[str, Any] = {"dataset": dataset, "seed": seed, "threads": threads}
    with torch_settings(threads or 1):
        outcome = run_demo(
            open_workspace(target / "runs", progress), out=target, arguments=arguments, overrides=overrides
        )
    messages = [message.text for message in conclude(outcome.comparison)]
    values = {**outcome.values, "path": str(outcome.page)}
    return Page(PlainResult(values, [comparison_table(outcome.comparison)], messages), outcome.page)
