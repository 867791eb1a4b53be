"""`mbrl topics`."""

from pathlib import Path
from typing import Annotated

import typer

from mbrl.cli.options import DebugFlag, JsonFlag, guarded
from mbrl.cli.output import emit


@guarded
def topics(
    bag: Annotated[str, typer.Argument(help="A .bag, .mcap or .db3 file, or the folder of a ROS 2 bag.")],
    *,
    topic: Annotated[list[str] | None, typer.Option(help="Topic to write; repeatable [all].")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for one table per topic; must not exist.")] = None,
    log_time: Annotated[
        bool, typer.Option("--log-time", help="Stamps of the recorder, not of the messages' headers.")
    ] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List the topics of a ROS bag or MCAP file; with --out, write their numbers as tables."""
    del debug
    from mbrl.api.bags import topics as read_topics

    found = read_topics(bag, topic, out=out, clock="log" if log_time else "header")
    emit(found, is_json=json, path=out)
