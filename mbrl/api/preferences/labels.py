"""The page on which a person answers."""

import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from mbrl.api.data import load
from mbrl.api.preferences.answers import PreferenceResult
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.preferences.pairs import PreferenceSet
from mbrl.preferences.queries import choose_pairs
from mbrl.run.files import locked, make_folder
from mbrl.run.preferences.label_server import HOST, LabelServer
from mbrl.run.preferences.labelling import LabelSession
from mbrl.run.preferences.queue import read_queue


def label(
    log: Dataset | str | Path,
    out: str | Path,
    *,
    pairs: str | Path | None = None,
    count: int = 50,
    length: int = 25,
    annotator: str = "",
    channels: Sequence[str] | None = None,
    seed: int = 0,
    port: int = 0,
    browser: bool = True,
    tell: Callable[[str], object] = print,
) -> PreferenceResult:
    """Serves a page to this machine, on which a person says which of two segments is better.

    Blocks until every pair is answered, or until Ctrl-C; each answer is in the file at once, and a later call
    with the same file goes on where this one stopped.

    Args:
        log: an open log, or what `mbrl.load` takes.
        out: file of the answers, `.jsonl`; made, or continued.
        pairs: file of `next_pairs`; None draws `count` random ones.
        count: pairs that are drawn.
        length: steps of their segments.
        annotator: who answers; best a name for each person, for their agreement.
        channels: names of what is shown; None for the first dozen.
        seed: of the draws: the same pairs for every annotator.
        port: 0 takes a free one.
        browser: opens the page.
        tell: told of the address.

    Raises:
        ConfigError: a channel is unknown, or the port is taken.
        DataError: the file holds answers about another log.
        BusyError: another process writes to the file.
    """
    dataset, target = log if isinstance(log, Dataset) else load(log), Path(out)
    if target.suffix != ".jsonl":
        raise ConfigError(f"{target}: answers are added to JSON lines. Remedy: --out FILE.jsonl.")
    if pairs is not None:
        asked = read_queue(Path(pairs), dataset)
    else:
        asked = choose_pairs(dataset, count=count, length=length, query="random", seed=seed)
    make_folder(target.parent)
    with locked(target.with_name(f".{target.name}.lock")):
        session = LabelSession(dataset, asked, target, annotator=annotator, channels=channels)
        if not session.is_done:
            _serve(session, port=port, browser=browser, tell=tell)
        given = session.result()
        if given is None:
            return PreferenceResult(PreferenceSet(dataset.content_hash, ()))
        return PreferenceResult(given, target)


def _serve(session: LabelSession, *, port: int, browser: bool, tell: Callable[[str], object]) -> None:
    try:
        server = LabelServer(session, port=port)
    except OSError as error:
        raise ConfigError(
            f"The page cannot be served at {HOST}:{port} ({error.strerror}). Remedy: another --port, or 0."
        ) from error
    with server:
        tell(f"{session.answered} of {session.total} pairs are answered. The page, good for one visit:")
        tell(server.url)
        tell("Ctrl-C ends; every answer is kept, and the same command goes on.")
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve()
        except KeyboardInterrupt:
            tell(f"Stopped: {session.answered} of {session.total} pairs are answered.")
