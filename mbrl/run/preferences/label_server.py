"""The page of labels, served to this machine alone.

The server listens on 127.0.0.1. The address that it prints holds a token that is good for one visit: it is
exchanged for a cookie, and a second visit with it is refused. Requests under another host name are refused,
so that no page of another site can reach the server by a name that it points here.
"""

import contextlib
import http.server
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from mbrl.core.assets import assets_dir
from mbrl.core.errors import MbrlError
from mbrl.preferences.pairs import LABELS, Label
from mbrl.run.preferences.labelling import LabelSession

HOST: Final = "127.0.0.1"
COOKIE: Final = "mbrl_label"

_FILES: Final[Mapping[str, tuple[str, str]]] = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_MAX_BODY: Final = 10_000
_TIMEOUT: Final = 30.0
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class LabelServer:
    """Serves a session until it is done or closed.

    Args:
        session: what is asked.
        port: 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, session: LabelSession, *, port: int = 0) -> None:
        self.session = session
        self._token: str | None = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer((HOST, port), _handler(self))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://{HOST}:{self.port}/?token={self._token}"
        """Where the page is; good for one visit."""

    def serve(self) -> None:
        """Answers requests until every pair is answered or `close` is called."""
        self._server.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Ends `serve`, from another thread, and frees the port."""
        self._server.shutdown()

    def __enter__(self) -> "LabelServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def close_soon(self) -> None:
        """Ends `serve` from within a request, once that is answered."""
        threading.Thread(target=self._server.shutdown, daemon=True).start()

    def exchange(self, token: str) -> str | None:
        """The cookie for the token; None for another token, or one that was used."""
        with self._lock:
            if self._token is None or not secrets.compare_digest(token.encode(), self._token.encode()):
                return None
            self._token = None
            return self._cookie

    def is_known(self, cookie: str) -> bool:
        """Whether a cookie is the one that was given out."""
        return secrets.compare_digest(cookie.encode(), self._cookie.encode())


def _handler(server: LabelServer) -> Callable[..., "_Handler"]:
    def make(*arguments: Any, **keywords: Any) -> _Handler:
        return _Handler(server, *arguments, **keywords)

    return make


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server_version = "mbrl"
    sys_version = ""
    timeout = _TIMEOUT

    def __init__(self, server: LabelServer, *arguments: Any, **keywords: Any) -> None:
        self._label = server  # the base class answers within its constructor
        super().__init__(*arguments, **keywords)

    def do_GET(self) -> None:
        """The page, its parts, and the pair that is asked."""
        if not self._is_local():
            return
        parts = urlsplit(self.path)
        token = parse_qs(parts.query).get("token")
        if parts.path == "/" and token:
            self._enter(token[0])
        elif not self._is_known():
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that mbrl label printed; it is good once.")
        elif parts.path in _FILES:
            name, kind = _FILES[parts.path]
            self._send((assets_dir() / "label" / name).read_bytes(), kind)
        elif parts.path == "/api/next":
            self._send_json(self._label.session.view())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def do_POST(self) -> None:
        """An answer."""
        if not self._is_local():
            return
        if not self._is_known() or self.headers.get("Origin") not in {None, *self._origins()}:
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that mbrl label printed; it is good once.")
            return
        if self.path != "/api/answer":
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
            return
        given = self._read_answer()
        if given is None:
            self._refuse(HTTPStatus.BAD_REQUEST, f"Send an index and a label: {', '.join(LABELS)}.")
            return
        try:
            view = self._label.session.answer(*given)
        except MbrlError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
            return
        self._send_json(view)
        if view["pair"] is None:
            self._label.close_soon()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal belongs to the command."""
        del format, args

    def _origins(self) -> set[str]:
        return {f"http://{name}:{self._label.port}" for name in (HOST, "localhost")}

    def _is_local(self) -> bool:
        # A site may point a name of its own to 127.0.0.1; its pages send that name.
        if f"http://{self.headers.get('Host', '')}" in self._origins():
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"The page is at {HOST} alone.")
        return False

    def _is_known(self) -> bool:
        cookies: SimpleCookie = SimpleCookie()
        with contextlib.suppress(CookieError):
            cookies.load(self.headers.get("Cookie", ""))
        return COOKIE in cookies and self._label.is_known(cookies[COOKIE].value)

    def _enter(self, token: str) -> None:
        cookie = self._label.exchange(token)
        if cookie is None and not self._is_known():
            self._refuse(HTTPStatus.FORBIDDEN, "The address was used already: run mbrl label again.")
            return
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        if cookie is not None:
            self.send_header("Set-Cookie", f"{COOKIE}={cookie}; HttpOnly; SameSite=Strict; Path=/")
        self._end(0)

    def _read_answer(self) -> tuple[int, Label] | None:
        try:
            size = int(self.headers.get("Content-Length", ""))
        except ValueError:
            return None
        if self.headers.get_content_type() != "application/json" or not 0 < size <= _MAX_BODY:
            return None
        try:
            values: Any = json.loads(self.rfile.read(size))
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, dict):
            return None
        fields = cast("dict[str, Any]", values)
        index, label = fields.get("index"), fields.get("label")
        if not isinstance(index, int) or isinstance(index, bool) or label not in LABELS:
            return None
        return index, label

    def _send_json(self, values: Mapping[str, Any]) -> None:
        self._send(json.dumps(values).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True
        self._send(json.dumps({"problem": text}).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self._end(len(content))
        with contextlib.suppress(ConnectionError):  # the browser went away
            self.wfile.write(content)

    def _end(self, size: int) -> None:
        self.send_header("Content-Length", str(size))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
