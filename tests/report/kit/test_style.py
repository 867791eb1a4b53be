import matplotlib as mpl
import pytest

from mbrl.report.kit.palette import DARK, LIGHT, SERIES
from mbrl.report.kit.plots import Line, draw_lines
from mbrl.report.kit.style import save_png, to_svg


def figure():
    return draw_lines([Line("a", [0.0, 1.0], [1.0, 2.0], [0.5, 1.5], [1.5, 2.5])], x_label="x", y_label="y")


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("role", SERIES)
def test_series_stand_out_on_light_and_on_dark_paper(role):
    assert contrast(LIGHT[role], "#ffffff") >= 3.0
    assert contrast(DARK[role], "#181d25") >= 3.0


def test_text_is_readable_on_both_papers():
    assert min(contrast(LIGHT[role], "#ffffff") for role in ("ink", "muted")) >= 4.5
    assert min(contrast(DARK[role], "#181d25") for role in ("ink", "muted")) >= 4.5


def test_svg_colours_are_variables_and_ids_belong_to_the_figure():
    svg = to_svg(figure(), name="one")
    assert f"var(--mbrl-blue, {LIGHT['blue']})" in svg
    assert f" {LIGHT['blue']}" not in svg.replace(f", {LIGHT['blue']}", "")
    assert 'id="figure_1"' not in svg
    assert 'id="one-figure_1"' in svg
    assert "<metadata" not in svg


def test_the_same_figure_gives_the_same_text():
    assert to_svg(figure(), name="one") == to_svg(figure(), name="one")


def test_drawing_leaves_the_global_style_alone(tmp_path):
    before = dict(mpl.rcParams)
    save_png(figure(), tmp_path / "deep" / "a.png")
    assert dict(mpl.rcParams) == before
    assert (tmp_path / "deep" / "a.png").read_bytes().startswith(b"\x89PNG")
