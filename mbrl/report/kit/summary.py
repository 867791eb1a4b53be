"""`summary.json` and `summary.md` of an experiment: the record that is kept beside the figures."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mbrl.report.kit.message import Message
from mbrl.report.kit.table import Table, to_markdown

_MARKS = {"good": "", "plain": "", "caution": "**Caution.** ", "bad": "**Problem.** "}


def write_summary(
    folder: Path,
    *,
    title: str,
    values: Mapping[str, Any],
    messages: Sequence[Message] = (),
    tables: Sequence[Table] = (),
    figures: Mapping[str, str] | None = None,
    provenance: Mapping[str, str] | None = None,
) -> tuple[Path, Path]:
    """Writes both files and returns their paths; a number that is not finite becomes null.

    Args:
        folder: such as `results/<experiment>`; made if it does not exist.
        title: of the Markdown.
        values: everything that a program may want, as plain values.
        messages: the conclusions in words.
        tables: shown in the Markdown.
        figures: file names relative to `folder` by their alternative text.
        provenance: hashes, versions, and the command that makes this again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    markdown, document = folder / "summary.md", folder / "summary.json"
    record = {
        "title": title,
        **values,
        "conclusions": [{"tone": m.tone, "text": m.text} for m in messages],
        "provenance": dict(provenance or {}),
    }
    document.write_text(json.dumps(to_plain(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    parts = [f"# {title}\n", *(f"- {_MARKS[m.tone]}{m.text}" for m in messages), ""]
    parts += [to_markdown(table) for table in tables]
    parts += [f"![{alt}]({name})\n" for alt, name in (figures or {}).items()]
    parts += [f"- {name}: `{value}`" for name, value in (provenance or {}).items()]
    markdown.write_text("\n".join(parts).rstrip("\n") + "\n", encoding="utf-8")
    return document, markdown


def to_plain(value: Any) -> Any:
    """Nested mappings and sequences with every number that is not finite replaced by None."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in cast("Sequence[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
