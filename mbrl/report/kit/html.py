"""Pages of text, tables and figures in one self-contained HTML file: no network, no script but a viewer's."""

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from mbrl.report.kit.message import Message
from mbrl.report.kit.palette import DARK, LIGHT, css_name
from mbrl.report.kit.style import to_svg
from mbrl.report.kit.table import Table, format_cell, is_missing, to_text
from mbrl.report.kit.viewer import Viewer


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
    """One part of a page: a heading, then messages, pictures side by side, tables, and a viewer of episodes.

    One section of a page may have a viewer; pieces for notebooks leave it out, as it needs a script.
    """

    title: str
    text: str = ""
    messages: Sequence[Message] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    viewer: Viewer | None = None


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
    _check_names(sections)
    return _template("page.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        facts=facts,
        messages=messages,
        provenance=dict(provenance or {}),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        draw=_draw,
        script=_script(),
    )


def fragment(sections: Sequence[Section], *, plain: str = "") -> str:
    """Sections as a piece of HTML for notebooks: self-contained, folded without script, the first one open.

    Where a viewer strips the style, as it does for a notebook that is not trusted, the plain text is seen in
    place of the sections.

    Args:
        sections: from the top.
        plain: the same as plain text; empty for what the sections say without their figures.

    Raises:
        ValueError: two pictures share a name.
    """
    _check_names(sections)
    text = plain or _plain_text(sections)
    # Ids of drawings hold for the whole notebook, so they carry a digest of what is shown.
    prefix = f"mbrl-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
    named = [
        dataclasses.replace(
            section,
            pictures=[dataclasses.replace(p, name=f"{prefix}-{p.name}") for p in section.pictures],
        )
        for section in sections
    ]
    return _template("fragment.html").render(
        sections=named,
        plain=text,
        parts=Markup(_scoped(_environment().get_template("parts.css").render(), ".mbrl-fragment")),
        light=_variables(LIGHT),
        dark=_variables(DARK),
        draw=_draw,
    )


def _check_names(sections: Sequence[Section]) -> None:
    names = [picture.name for section in sections for picture in section.pictures]
    if len(set(names)) != len(names):
        raise ValueError(f"names of pictures must differ: {names}")


def _plain_text(sections: Sequence[Section]) -> str:
    """Titles, words and tables, without figures."""
    texts: list[str] = []
    for section in sections:
        parts = [section.title, section.text, *(message.text for message in section.messages)]
        parts.append(to_text(section.tables).rstrip("\n"))
        texts.append("\n".join(part for part in parts if part))
    return "\n\n".join(texts)


def _scoped(css: str, scope: str) -> str:
    """Rules that hold below `scope` alone; for rules without nesting."""

    def narrow(rule: re.Match[str]) -> str:
        selectors = (f"{scope} {selector.strip()}" for selector in rule[1].split(","))
        return f"{', '.join(selectors)} {{{rule[2]}}}"

    return re.sub(r"([^{}]+)\{([^{}]*)\}", narrow, css)


def _draw(picture: Picture) -> Markup:
    svg = to_svg(picture.figure, name=picture.name)
    # A drawing's own style would hold for the whole document.
    return Markup(svg.replace('<style type="text/css">*', '<style type="text/css">.drawing *'))


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mbrl.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _unbroken
    environment.tests["missing"] = is_missing
    return environment


def _script() -> Markup:
    """Of the viewer; a file of the package, which is not escaped."""
    return Markup(_environment().loader.get_source(_environment(), "viewer.js")[0])  # type: ignore[union-attr]


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def _unbroken(value: Any) -> str:
    """A cell whose interval, if it is one, is not broken over two lines."""
    text = format_cell(value)
    return text.replace(" ", "\N{NO-BREAK SPACE}") if text.endswith("]") else text


def _variables(colours: Mapping[str, str]) -> str:
    return " ".join(f"{css_name(role)}: {colour};" for role, colour in colours.items())
