import re

import pytest

from mbrl.report.kit.html import Picture, Section, fragment, render_page
from mbrl.report.kit.message import Message
from mbrl.report.kit.plots import Line, draw_lines
from mbrl.report.kit.table import Table
from tests.report.run.test_pages import Page


def sections(value: float = 1.0) -> list[Section]:
    figure = draw_lines([Line("a", [0.0, 1.0], [1.0, value])], x_label="x", y_label="y")
    picture = Picture("curve", "A <curve>", figure, alt='a "quoted" line', table=Table("t", ("a",), [(1,)]))
    first = Section("First", text="Words & more", messages=[Message("look", "caution")], pictures=[picture])
    return [first, Section("Second", tables=[Table("Caption", ("name", "value"), [("<i>", value)])])]


def test_a_fragment_stands_alone_and_folds_without_script() -> None:
    text = fragment(sections())
    page = Page(text)
    assert not re.search(r"<script|<html|<link|(src|href)=.?https?:", text)
    folds = [attrs for tag, attrs in page.tags if tag == "details" and attrs.get("class") == "section"]
    assert ["open" in attrs for attrs in folds] == [True, False]
    assert "A <curve>" in page.text
    assert text.count("<svg") == 1


def test_its_style_touches_nothing_else_in_the_notebook() -> None:
    styles = re.findall(r"<style[^>]*>(.*?)</style>", fragment(sections()), flags=re.DOTALL)
    assert len(styles) == 2  # its own, and that of the drawing
    rules = [rule for style in styles for rule in re.findall(r"([^{}]+)\{[^{}]*\}", style)]
    selectors = [selector.strip() for rule in rules for selector in rule.split(",")]
    assert len(selectors) > 20
    assert all(re.search(r"\.(mbrl-|drawing )", selector) for selector in selectors)


def test_without_its_style_the_plain_text_is_seen() -> None:
    text = fragment(sections(), plain="a < b")
    assert '<pre class="mbrl-plain">a &lt; b</pre>' in text
    assert '<div class="mbrl-fragment" style="display:none">' in text  # the style shows it
    said = re.search(r"<pre[^>]*>(.*?)</pre>", fragment(sections()), flags=re.DOTALL)
    assert said is not None
    for words in ("First", "Words &amp; more", "look", "Caption", "&lt;i&gt;"):
        assert words in said[1]


def test_ids_of_two_fragments_differ_and_those_of_one_repeat_themselves() -> None:
    first, other = Page(fragment(sections(1.0))), Page(fragment(sections(2.0)))
    assert len(set(first.ids)) == len(first.ids) > 3
    assert not set(first.ids) & set(other.ids)
    assert fragment(sections(1.0)) == fragment(sections(1.0))
    with pytest.raises(ValueError, match="must differ"):
        fragment([*sections(), *sections()])


def test_a_page_has_the_style_of_its_parts() -> None:
    text = render_page("Title", sections())
    assert re.search(r"^\.message \{", text, flags=re.MULTILINE)
    assert text.index("figure {\n") < text.index("@media (max-width: 560px)")  # which narrows it
