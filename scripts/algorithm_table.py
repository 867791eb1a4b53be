"""Writes the tables of learners and recipes, as they are registered, between the marks in the documents.

`python scripts/algorithm_table.py` writes; `--check` only tells which documents are out of date, and its
exit status is 1 if one is. Nothing in the tables is kept by hand: names and lines come from the registries,
settings from `configs/algorithms`.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mbrl.algorithms.base import RECIPES
from mbrl.core.registry import Registry
from mbrl.learners.base import LEARNERS
from mbrl.run.config import find_part, part_names
from mbrl.run.documents import read_yaml

ROOT: Final = Path(__file__).resolve().parents[1]
PAGES: Final = ROOT / "docs" / "algorithms"
DOCUMENTS: Final = {ROOT / "README.md": "docs/algorithms/", PAGES / "README.md": ""}
"""Documents that hold the tables, and the way from each to the pages."""

BEGIN: Final = "<!-- algorithms: written by scripts/algorithm_table.py -->"
END: Final = "<!-- end of algorithms -->"
_PUBLISHED: Final = "-published"


def settings_by_entry() -> tuple[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]]:
    """Names of files in `configs/algorithms` by learner and by recipe.

    A learner has the files in which it learns from the log alone, or those of the recipe that is made for it.
    """
    by_learner, by_recipe = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    elsewhere = defaultdict[str, list[str]](list)
    names = part_names("algorithms")
    for name in names:
        if name.endswith(_PUBLISHED):
            continue
        tree = read_yaml(find_part("algorithms", name))
        shown = f"`{name}`" + (" †" if f"{name}{_PUBLISHED}" in names else "")
        by_recipe[tree["recipe"]].append(shown)
        (by_learner if tree["recipe"] == "model_free" else elsewhere)[tree["learner"]["name"]].append(shown)
    return {**elsewhere, **by_learner}, {**by_recipe, "model_free": ["every learner above"]}


def make_table(
    heading: str, registry: Registry[Any], settings: Mapping[str, Sequence[str]], to_pages: str
) -> list[str]:
    """Rows of name, line and settings; the name leads to its page where there is one."""
    rows = [f"| {heading} | what it does | settings |", "|---|---|---|"]
    for name, line in registry.describe().items():
        if registry.origin(name) is not None:
            continue
        has_page = (PAGES / f"{name}.md").is_file()
        shown = f"[{name}]({to_pages}{name}.md)" if has_page else name
        rows.append(f"| {shown} | {line.rstrip('.')} | {', '.join(settings.get(name, ()))} |")
    return rows


def write_section(to_pages: str) -> str:
    """Everything between the marks."""
    by_learner, by_recipe = settings_by_entry()
    lines = [
        BEGIN,
        "",
        *make_table("learner", LEARNERS, by_learner, to_pages),
        "",
        *make_table("recipe", RECIPES, by_recipe, to_pages),
        "",
        "Settings are names for `--algorithm`, files in `configs/algorithms`; † also as `<name>-published`,",
        "with the values of the paper or of its authors' code.",
        "",
        END,
    ]
    return "\n".join(lines)


def renew(text: str, to_pages: str, *, where: str) -> str:
    """The document with a fresh section between its marks.

    Raises:
        SystemExit: it has no marks.
    """
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not marked.search(text):
        raise SystemExit(f"algorithm_table: {where} has no lines {BEGIN} and {END}")
    section = write_section(to_pages)
    return marked.sub(lambda _: section, text, count=1)


def main(*, is_check: bool) -> int:
    """Writes the documents, or tells which are out of date."""
    stale: list[str] = []
    for document, to_pages in DOCUMENTS.items():
        where = document.relative_to(ROOT).as_posix()
        text = document.read_text(encoding="utf-8")
        fresh = renew(text, to_pages, where=where)
        if fresh != text:
            stale.append(where)
            if not is_check:
                document.write_text(fresh, encoding="utf-8")
    verb = "out of date, run python scripts/algorithm_table.py:" if is_check else "written:"
    if stale:
        print("algorithm_table:", verb, ", ".join(stale), file=sys.stderr)  # noqa: T201 - this is a program
    return 1 if is_check and stale else 0


if __name__ == "__main__":
    sys.exit(main(is_check="--check" in sys.argv[1:]))
