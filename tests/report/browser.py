"""Chromium without a screen: how wide a page comes out, and whether anything goes wrong on it."""

import html
import json
import os
import re
import shutil
import subprocess

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

_WATCH = """<script>
window.problems = [];
addEventListener("error", (event) => problems.push(event.message));
addEventListener("load", () => {
  const root = document.documentElement, width = root.clientWidth;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const box = (node) => node.getBoundingClientRect();
  const scrolls = ".scroll, .drawing, details:not([open])";
  const wide = all("main *").filter((node) => !node.closest(scrolls) && box(node).right > width + 1);
  const outside = all(".drawing svg text").filter((node) => {
    const text = box(node), card = box(node.closest("figure"));
    return text.width > 0 && (text.left < card.left || text.right > card.right);
  });
  const facts = {
    width, scroll: root.scrollWidth, problems,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    paper: getComputedStyle(document.body).backgroundColor,
    wide: wide.map((node) => node.tagName),
    outside: outside.map((node) => node.textContent),
    drawings: all(".drawing svg").filter((node) => box(node).height > 50).length,
  };
  parent.postMessage(JSON.stringify(facts), "*");
});
</script>"""


# A frame, because a window is never narrower than 500 pixels.
_FRAME = """<!DOCTYPE html><html><head><meta name="color-scheme" content="light dark"><script>
addEventListener("message", (event) => document.documentElement.setAttribute("data-facts", event.data));
</script></head><body><iframe src="watched.html" style="width: {width}px; height: 900px; border: 0"></iframe>
</body></html>"""


def find_browser():
    """Path of a Chromium; skips the test where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium on this machine")
    return found


def open_page(page, folder, *, width, is_dark=False):
    """What a browser says of a page at a width: sizes, colour scheme, errors, and what sticks out."""
    (folder / "watched.html").write_text(page.read_text().replace("<head>", f"<head>{_WATCH}", 1))
    frame = folder / "frame.html"
    frame.write_text(_FRAME.replace("{width}", str(width)))
    command = [
        *(find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *(f"--user-data-dir={folder / 'profile'}", "--window-size=1600,1000", "--hide-scrollbars"),
        *(f"--blink-settings=preferredColorScheme={int(not is_dark)}", "--virtual-time-budget=3000"),
        *("--dump-dom", frame.as_uri()),
    ]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=True)
    facts = re.search(r'data-facts="([^"]+)"', done.stdout)
    assert facts, done.stderr[-2000:]
    return json.loads(html.unescape(facts[1]))
