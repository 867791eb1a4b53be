"""Pages of text, tables and figures in one self-contained HTML file: no network, no script."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from mbrl.report.kit.message import Message
from mbrl.report.kit.palette import DARK, LIGHT, css_name
from mbrl.report.kit.style import to_svg
from mbrl.report.kit.table import Table, format_cell, is_missing


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """A figure with the words and numbers that go with it.

    Attributes:
        name: unique within the page, of letters, digits and hyphens.
        title: a few words above the figure.
        figure: the drawing.
        alt: what it shows, for those who cannot see it.
        note: how to read it, or what follows from it.
        table: the same numbers to read, folded away.
    """

    name: str
    title: str
    figure: Figure
    alt: str
    note: str = ""
    table: Table | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """One part of a page: a heading, then messages, pictures side by side, and tables."""

    title: str
    text: str = ""
    messages: Sequence[Message] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


def render_page(
    title: str,
    sections: Sequence[Section],
    *,
    subtitle: str = "",
    facts: Sequence[tuple[str, str]] = (),
    messages: Sequence[Message] = (),
    provenance: Mapping[str, str] | None = None,
) -> str:
    """The page as HTML text.

    Args:
        title: of the page.
        sections: from the top.
        subtitle: one line below the title.
        facts: name and value of the few figures that matter most.
        messages: the conclusion, before everything else.
        provenance: dataset hash, config hash, versions, and the command that makes this page again.

    Raises:
        ValueError: two pictures share a name.
    """
    names = [picture.name for section in sections for picture in section.pictures]
    if len(set(names)) != len(names):
        raise ValueError(f"names of pictures must differ: {names}")
    return _template().render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        facts=facts,
        messages=messages,
        provenance=dict(provenance or {}),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        draw=_draw,
    )


def _draw(picture: Picture) -> Markup:
    return Markup(to_svg(picture.figure, name=picture.name))


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mbrl.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _unbroken
    environment.tests["missing"] = is_missing
    return environment.get_template("page.html")


def _unbroken(value: Any) -> str:
    """A cell whose interval, if it is one, is not broken over two lines."""
    text = format_cell(value)
    return text.replace(" ", "\N{NO-BREAK SPACE}") if text.endswith("]") else text


def _variables(colours: Mapping[str, str]) -> str:
    return " ".join(f"{css_name(role)}: {colour};" for role, colour in colours.items())
