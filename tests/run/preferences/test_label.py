"""The page of labels: what it shows, whom it refuses, what it writes; in a browser where there is one."""

import http.client
import json
import shutil
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mbrl.api.preferences import label
from mbrl.core.errors import ConfigError, DataError
from mbrl.preferences.files import read_preferences
from mbrl.preferences.queries import choose_pairs
from mbrl.run.preferences.label_server import LabelServer
from mbrl.run.preferences.labelling import MAX_CHANNELS, LabelSession
from mbrl.testing.samples import make_dataset
from tests.run.preferences.browser import Browser

LOG = make_dataset()
PAIRS = choose_pairs(LOG, count=4, length=6, query="random")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    session = LabelSession(LOG, PAIRS, tmp_path / "answers.jsonl", annotator="anna", now=lambda: 12.5)
    with LabelServer(session) as made:
        thread = threading.Thread(target=made.serve, daemon=True)
        thread.start()
        yield made
        made.close()
        thread.join()


class Client:
    """A visitor that keeps its cookie."""

    def __init__(self, server: Any) -> None:
        self.port, self.cookie = server.port, ""

    def ask(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        known = {"Cookie": self.cookie, "Content-Type": "application/json", **headers}
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, known)
        response = connection.getresponse()
        content = response.read()
        cookie = response.getheader("Set-Cookie")
        if cookie:
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            self.cookie = cookie.partition(";")[0]
        connection.close()
        is_json = response.getheader("Content-Type") == "application/json"
        return response.status, json.loads(content) if is_json else content.decode()

    def enter(self, server: Any) -> "Client":
        assert self.ask("/?" + server.url.partition("?")[2])[0] == 303
        return self


def test_answers_are_written_one_by_one_until_all_are_there(server: LabelServer, tmp_path: Path) -> None:
    client = Client(server).enter(server)
    page = client.ask("/")[1]
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched from elsewhere
    for path in ("/page.js", "/page.css"):
        assert client.ask(path)[0] == 200
    view = client.ask("/api/next")[1]
    assert (view["answered"], view["total"]) == (0, 4)
    assert [c["name"] for c in view["channels"]] == ["obs_0", "obs_1", "obs_2", "act_0", "act_1"]
    left = PAIRS[0][0]
    shown = LOG.episodes[left.episode].observations[left.start : left.end, 1]
    assert view["pair"]["left"]["series"][1] == pytest.approx(shown.tolist(), rel=1e-5)
    assert "reward" not in json.dumps(view)
    for k, label_ in enumerate(("left", "equal", "skip", "right")):
        status, view = client.ask("/api/answer", {"index": k, "label": label_})
        assert (status, view["answered"]) == (200, k + 1)
        answers = read_preferences(tmp_path / "answers.jsonl").answers
        assert [(a.left, a.right) for a in answers] == list(PAIRS[: k + 1])
        assert (answers[-1].label, answers[-1].annotator, answers[-1].time) == (label_, "anna", 12.5)
    assert view["pair"] is None


def test_the_address_is_good_for_one_visit_on_this_machine(server: LabelServer) -> None:
    stranger, client = Client(server), Client(server)
    assert stranger.ask("/api/next")[0] == stranger.ask("/")[0] == 403
    assert stranger.ask("/?token=wrong")[0] == 403
    client.enter(server)
    assert stranger.ask("/?" + server.url.partition("?")[2])[0] == 403
    assert client.ask("/api/next")[0] == 200
    assert client.ask("/api/next", Host=f"evil.example:{server.port}")[0] == 403
    answer = {"index": 0, "label": "left"}
    assert client.ask("/api/answer", answer, Origin="http://evil.example")[0] == 403
    assert stranger.ask("/api/answer", answer)[0] == 403
    assert server.session.answered == 0


@pytest.mark.parametrize(
    "body",
    [{}, [], {"index": "0", "label": "left"}, {"index": 0, "label": "up"}, {"index": True, "label": "left"}],
)
def test_what_is_no_answer_is_refused(server: LabelServer, body: object) -> None:
    assert Client(server).enter(server).ask("/api/answer", body)[0] == 400


def test_an_answer_that_comes_twice_counts_once(server: LabelServer) -> None:
    client = Client(server).enter(server)
    assert client.ask("/api/answer", {"index": 0, "label": "left"})[0] == 200
    status, told = client.ask("/api/answer", {"index": 0, "label": "right"})
    assert status == 409
    assert "reload" in told["problem"]
    assert client.ask("/no-such-page")[0] == 404
    assert (
        client.ask("/api/answer", {"index": 1, "label": "left"}, **{"Content-Type": "text/plain"})[0] == 400
    )


def test_a_later_session_goes_on_and_another_annotator_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    LabelSession(LOG, PAIRS, out, annotator="anna").answer(0, "left")
    again = LabelSession(LOG, PAIRS, out, annotator="anna")
    assert (again.answered, again.view()["pair"]["index"]) == (1, 1)
    assert LabelSession(LOG, PAIRS, out, annotator="bo").answered == 0
    with pytest.raises(DataError, match="are about the log"):
        LabelSession(make_dataset(seed=3), PAIRS, out)


def test_channels_are_chosen_by_name_and_a_dozen_at_most(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    chosen = LabelSession(LOG, PAIRS, out, channels=["act_1", "obs_0"]).channels
    assert [(c.name, c.is_action, c.index) for c in chosen] == [("act_1", True, 1), ("obs_0", False, 0)]
    with pytest.raises(ConfigError, match="no channel 'speed'"):
        LabelSession(LOG, PAIRS, out, channels=["speed"])
    with pytest.raises(ConfigError, match="fit the page"):
        LabelSession(LOG, PAIRS, out, channels=["obs_0"] * (MAX_CHANNELS + 1))


def test_the_function_serves_until_all_is_answered(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if not text.startswith("http"):
            return

        def visit() -> None:
            server = types.SimpleNamespace(port=urlsplit(text).port, url=text)
            client = Client(server).enter(server)
            client.ask("/api/answer", {"index": 0, "label": "left"})
            client.ask("/api/answer", {"index": 1, "label": "skip"})

        threading.Thread(target=visit, daemon=True).start()

    def run() -> Any:
        return label(LOG, tmp_path / "a.jsonl", count=2, length=6, annotator="anna", browser=False, tell=tell)

    assert run().preferences.counts() == {"left": 1, "right": 0, "equal": 0, "skip": 1}
    assert len(told) == 3
    assert len(run().preferences) == 2  # nothing is left to ask, so nothing is served
    assert len(told) == 3
    with pytest.raises(ConfigError, match="JSON lines"):
        label(LOG, tmp_path / "a.parquet")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_keys_answer_in_a_real_browser(server: LabelServer, tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None
    browser = Browser(CHROMIUM, tmp_path / "profile", width=width, height=800)
    try:
        browser.open(server.url)
        browser.wait("document.querySelectorAll('svg.plot').length === 10")
        assert browser.value("location.search") == ""  # the token is gone from the address
        assert browser.value("document.documentElement.scrollWidth <= innerWidth")
        before = browser.value("document.querySelector('#step').textContent")
        browser.wait(f"document.querySelector('#step').textContent !== '{before}'")  # the cursor runs
        for k, key in enumerate(("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"), start=1):
            browser.press(key)
            browser.wait(f"document.querySelector('#progress').textContent === '{k} of 4 answered'")
        browser.wait("!document.querySelector('#done').hidden")
    finally:
        browser.close()
    labels = [answer.label for answer in read_preferences(tmp_path / "answers.jsonl").answers]
    assert labels == ["left", "right", "equal", "skip"]
