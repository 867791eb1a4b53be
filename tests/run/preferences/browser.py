"""A headless Chromium, driven through two pipes: its own protocol, and nothing to install."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class Browser:
    """Messages are JSON that ends in a zero byte; the browser reads descriptor 3 and writes 4."""

    def __init__(self, program: str, profile: Path, *, width: int, height: int) -> None:
        read, self._write = os.pipe()
        self._read, write = os.pipe()
        options = (
            "--headless --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe "
            f"--window-size={width},{height} --user-data-dir={profile} about:blank"
        )
        self._process = subprocess.Popen(
            ["bash", "-c", f"exec {program} {options} 3<&{read} 4>&{write}"],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._buffer, self._number, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Until an expression is true in the page."""
        watch = (
            "new Promise((done) => { const look = () => { let now; try { now = %s } catch { now = false }"
            " now ? done(now) : setTimeout(look, 20) }; look() })"
        )
        found = self.call(
            "Runtime.evaluate",
            expression=watch % expression,
            awaitPromise=True,
            returnByValue=True,
            timeout=20_000,
        )
        return found["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)
