"""The protocol between the benchmark and a contender, with a contender made for the purpose."""

import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mbrl.bench.contest import measure_rounds
from mbrl.bench.peers.worker import resident_bytes, run_window
from mbrl.bench.processes import MissingLibraryError, Window, WorkerError, WorkerProcess, open_worker

FAKE = (sys.executable, str(Path(__file__).with_name("fake_peer.py")))


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    with open_worker(FAKE, "fake") as process:
        yield process


def test_a_window_ends_with_the_first_call_beyond_its_length() -> None:
    ticks = iter([100.0, 100.4, 100.8, 101.2, 999.0])
    window = run_window(lambda: 7, 1.0, clock=lambda: next(ticks))
    assert (window["units"], window["seconds"]) == (21, pytest.approx(1.2))


def test_a_window_holds_one_call_at_least() -> None:
    ticks = iter([0.0, 50.0])
    assert run_window(lambda: 2, 0.0, clock=lambda: next(ticks))["units"] == 2


def test_rates_are_units_a_second() -> None:
    assert Window(units=30, seconds=1.5, resident=None).rate == 20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_memory_in_use_is_that_of_this_process() -> None:
    before = resident_bytes()
    # Pages of their own: memory that an earlier test gave back may count already.
    with mmap.mmap(-1, 64_000_000) as block:
        for first in range(0, len(block), mmap.PAGESIZE):
            block[first] = 1
        after = resident_bytes()
    assert before is not None
    assert after is not None
    assert after - before > 50_000_000


def test_windows_are_interleaved_after_a_round_that_warms_up(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with open_worker(FAKE, "a") as first, open_worker(FAKE, "b") as second:
        for worker, name in ((first, "A"), (second, "B")):
            worker.build({"name": name, "journal": str(journal)})
        assert (first.modes, first.version) == (("work", "fail"), "1.2.3")
        entrants = [(first, "work"), (second, "work")]
        rounds = measure_rounds(entrants, windows=3, seconds=[0.0, 0.0])
    assert journal.read_text() == "AB" + "ABABAB"
    assert [[window.units for window in windows] for windows in rounds] == [[5] * 3, [5] * 3]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("absent", MissingLibraryError, "no_such_library is not installed"),
        ("broken", WorkerError, "ValueError: cannot be built"),
        ("dying", WorkerError, "the process ended. .*last words"),
    ],
)
def test_what_cannot_be_built_says_why(
    worker: WorkerProcess, tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"(?s)fake: .*{message}"):
        worker.build({"name": name, "journal": str(tmp_path / "journal")})


def test_a_window_that_fails_says_why_and_the_worker_lives_on(worker: WorkerProcess, tmp_path: Path) -> None:
    worker.build({"name": "A", "journal": str(tmp_path / "journal")})
    with pytest.raises(WorkerError, match="RuntimeError: out of luck"):
        worker.window("fail", 0.0)
    assert worker.window("work", 0.0).units == 5


def test_a_program_that_does_not_exist_is_an_error_for_people() -> None:
    with (
        pytest.raises(WorkerError, match="cannot be started"),
        open_worker(("/no/such/python",), "fake"),
    ):
        pass
