import itertools

import pytest

from mbrl.core.errors import ConfigError
from mbrl.envs.documents import MAX_DEPTH, MAX_TEXT, MAX_VALUES, parse_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{name}'] * 10)}]\n" for name, after in itertools.pairwise("abcdefghi")
)
"""Ten to the ninth values in 400 characters."""


def test_a_date_is_text() -> None:
    assert parse_yaml("2001-99-99", where="x") == "2001-99-99"


def test_limits_hold_at_the_limit() -> None:
    parse_yaml("[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1), where="x")
    assert len(parse_yaml(f"[{'1,' * (MAX_VALUES - 1)}]", where="x")) == MAX_VALUES - 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "aliases"),
        ("&a [*a]", "aliases"),
        ("a: &x {b: *x}", "aliases"),
        ("[" * 100_000, "32 deep"),
        ("\n".join(" " * k + "a:" for k in range(300)), "32 deep"),
        (f"[{'1,' * MAX_VALUES}]", "more than 10,000"),
        ("#" * (MAX_TEXT + 1), "characters"),
        ("9" * 5000, "digits"),
        (f"0x{'f' * 5000}", "too large"),
        ("1" * 20, "too large"),
        ('a: "\\0"', "NUL"),
        ("a\0b", "not allowed"),
        ("? [a]\n: b", "unhashable"),
        ("!!binary x", "could not determine a constructor"),
        ("!!set {a, b}", "could not determine a constructor"),
        ("!!timestamp x", "could not determine a constructor"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("!!int abc", "invalid literal"),
        ("!!float abc", "could not convert"),
        ("!!bool abc", "abc"),
        ("a: 1\n---\nb: 2", "single document"),
    ],
)
def test_what_is_no_config_is_refused_at_once(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_yaml(text, where="Config file c.yaml")
    assert str(caught.value).startswith("Config file c.yaml ")
    assert "Remedy: " in str(caught.value)
    assert len(str(caught.value)) < 1000
