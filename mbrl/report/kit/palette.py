"""Colours by role, for light and for dark paper.

The series colours follow Okabe & Ito (2008), darkened for white paper and lightened for dark, so that each
keeps a contrast of 3:1 or more; lines differ in dash as well, so that nothing hangs on colour alone.
"""

from typing import Any, Final

INK: Final = "ink"
MUTED: Final = "muted"
RULE: Final = "rule"
BLUE: Final = "blue"
ORANGE: Final = "orange"
GREEN: Final = "green"
PINK: Final = "pink"
OCHRE: Final = "ochre"
GREY: Final = "grey"
VIOLET: Final = "violet"
BRICK: Final = "brick"

SERIES: Final = (BLUE, ORANGE, GREEN, PINK, OCHRE, GREY, VIOLET, BRICK)
"""Roles in the order in which series take them."""

DASHES: Final[tuple[Any, ...]] = (
    "solid",
    (0, (5, 1.6)),
    (0, (1.2, 1.4)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1)),
    "solid",
    (0, (8, 2)),
    (0, (4, 1.2, 1.2, 1.2, 1.2, 1.2)),
)
"""Line styles that go with `SERIES`."""

LIGHT: Final = {
    INK: "#1c2430",
    MUTED: "#5a6473",
    RULE: "#dfe3e9",
    BLUE: "#1b6cad",
    ORANGE: "#c75400",
    GREEN: "#00825f",
    PINK: "#a84f87",
    OCHRE: "#8f6b00",
    GREY: "#737d8b",
    VIOLET: "#6a51b5",
    BRICK: "#b02a37",
}

DARK: Final = {
    INK: "#e7eaf0",
    MUTED: "#a3adba",
    RULE: "#323b48",
    BLUE: "#5fb0ee",
    ORANGE: "#f2905a",
    GREEN: "#36c49a",
    PINK: "#e09ac4",
    OCHRE: "#dcb548",
    GREY: "#98a2b0",
    VIOLET: "#a996f0",
    BRICK: "#f07a82",
}


def css_name(role: str) -> str:
    """CSS variable of a role, `--mbrl-<role>`."""
    return f"--mbrl-{role}"


def series_colour(index: int) -> str:
    """Light-paper colour of the series `index`; starts again after the last."""
    return LIGHT[SERIES[index % len(SERIES)]]
