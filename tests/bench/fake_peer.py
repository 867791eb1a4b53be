"""A contender whose clock is a file of ticks, for tests of the protocol; run by path."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "mbrl" / "bench" / "peers"))

from worker import serve  # pyright: ignore


def build(options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    journal = Path(options["journal"])
    name = options["name"]
    print("a library talks to standard output")  # noqa: T201
    if name == "absent":
        import no_such_library  # noqa: F401  # pyright: ignore
    if name == "broken":
        raise ValueError("cannot be built")
    if name == "dying":
        sys.stderr.write("last words")
        sys.stderr.flush()
        sys.exit(3)

    def work() -> int:
        with journal.open("a") as file:
            file.write(name)
        return 5

    def fail() -> int:
        raise RuntimeError("out of luck")

    return {"work": work, "fail": fail}, "1.2.3"


if __name__ == "__main__":
    serve(build)
