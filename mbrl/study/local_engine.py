"""Worker processes on this machine, one thread each; one that dies takes one task with it."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from mbrl.study.sweep import Ended
from mbrl.study.tasks import Site, Task, execute

_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_GRACE_SECONDS: Final = 5.0


class LocalEngine:
    """A pool of fresh processes that live as long as the pool, and no longer than their parent.

    Args:
        site: where tasks work.
        jobs: how many run at once.
    """

    def __init__(self, site: Site, *, jobs: int) -> None:
        self._site, self._jobs = site, jobs
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    @property
    def slots(self) -> int:
        """How many tasks run at once."""
        return self._jobs

    def submit(self, task: Task) -> None:
        """Hands a task to an idle worker, or to a new one."""
        self._idle = [worker for worker in self._idle if worker.is_alive()]
        worker = self._idle.pop() if self._idle else _Worker(self._site)
        worker.begin(task)
        self._busy.append(worker)

    def wait(self, seconds: float) -> list[Ended]:
        """Tasks that ended; a worker that died is replaced when it is needed."""
        wait([worker.pipe for worker in self._busy], seconds)
        ended: list[Ended] = []
        for worker in list(self._busy):
            result = worker.result()
            if result is None:
                continue
            ended.append(result)
            self._busy.remove(worker)
            if result.death is None:
                self._idle.append(worker)
        return ended

    def close(self) -> None:
        """Stops all workers at once."""
        for worker in [*self._idle, *self._busy]:
            worker.stop()
        self._idle, self._busy = [], []


class _Worker:
    def __init__(self, site: Site) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        log = site.folder.path / "workers.log"
        self._process = context.Process(target=_serve, args=(theirs, site, str(log)), daemon=True)
        with _single_threaded():
            self._process.start()
        theirs.close()  # so that the worker's death is an end of file here
        self._task: Task | None = None

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def begin(self, task: Task) -> None:
        self._task = task
        with contextlib.suppress(BrokenPipeError):  # it died just now: `result` tells
            self.pipe.send(task)

    def result(self) -> Ended | None:
        """How its task ended, or None while it goes on."""
        assert self._task is not None
        if not self.pipe.poll():
            return None
        try:
            self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(_GRACE_SECONDS)
            return Ended(self._task, _explain_death(self._process.exitcode))
        return Ended(self._task)

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(_GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self.pipe.close()


def _explain_death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"Its worker process ended with exit status {code}; see workers.log."
    name = signal.Signals(-code).name
    likely = " Likely cause: out of memory. Remedy: fewer --jobs." if -code == signal.SIGKILL else ""
    return f"Its worker process was ended by the signal {name}; see workers.log.{likely}"


@contextlib.contextmanager
def _single_threaded() -> Generator[None]:
    """The environment that a worker inherits: numerical libraries read these when they are loaded."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: "Connection[Any, Any]", site: Site, log: str) -> None:
    """Life of a worker: tasks until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_follow_parent, daemon=True).start()
    with open(log, "a", encoding="utf-8", buffering=1) as file:
        for stream in (sys.stdout, sys.stderr):  # what libraries print must not tear the table apart
            os.dup2(file.fileno(), stream.fileno())
        while True:
            try:
                task = pipe.recv()
            except EOFError:
                return
            execute(task, site)
            pipe.send(None)


def _follow_parent() -> None:
    """Ends this process when its parent is gone, in the middle of whatever it does: checkpoints are whole."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
