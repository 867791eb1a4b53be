import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.core.errors import ConfigError
from mbrl.envs.documents import parse_yaml
from mbrl.run.documents import annotate, parse_override, set_at

texts = st.characters(exclude_characters="\0", codec="utf-8")  # no config holds a NUL
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(texts, max_size=8),
    st.lists(st.floats(allow_nan=False), max_size=3),
)
trees = st.dictionaries(
    st.text(texts, min_size=1, max_size=6),
    st.recursive(leaves, lambda inner: st.dictionaries(st.text(texts, max_size=5), inner, max_size=3)),
    max_size=4,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        ("-2.5E+2", -250.0),
        ("3", 3),
        (".5", 0.5),
        ("[1e-2, 2]", [0.01, 2]),
        ("true", True),
        ("null", None),
        ("e3", "e3"),
        ("1e", "1e"),
        ("hopper/medium-v0", "hopper/medium-v0"),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_are_numbers(text: str, value: object) -> None:
    parsed = parse_yaml(text, where="test")
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_key_given_twice_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"file x is not valid YAML.*'a' is given twice.*line 3"):
        parse_yaml("a: 1\nb: 2\na: 3\n", where="file x")


def test_override_splits_at_the_first_equals_sign() -> None:
    assert parse_override("a.b_c.d=x=3") == (("a", "b_c", "d"), "x=3")
    assert parse_override("a=[1e-3]") == (("a",), [0.001])


@pytest.mark.parametrize("text", ["a.b", "=3", "a..b=1", "."])
def test_a_malformed_override_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_override(text)


def test_set_at_makes_mappings_but_does_not_replace_values() -> None:
    tree: dict[str, object] = {"a": {"b": 1}, "c": 2}
    set_at(tree, ("a", "x", "y"), 3)
    assert tree == {"a": {"b": 1, "x": {"y": 3}}, "c": 2}
    with pytest.raises(ConfigError, match=r"--set c\.d: c is 2, which has no keys"):
        set_at(tree, ("c", "d"), 1)


@settings(deadline=None)  # loaded machines are no failure
@given(trees)
def test_annotated_yaml_reads_back_as_it_was(tree: dict[str, object]) -> None:
    assert parse_yaml(annotate(tree, {}), where="test") == (tree or None)


def test_annotations_name_the_origin() -> None:
    text = annotate({"a": {"b": 1, "c": 2.5}, "d": []}, {("a", "b"): "--set", ("d",): "x.yaml"})
    assert text == "a:\n  b: 1  # --set\n  c: 2.5  # default\nd: []  # x.yaml\n"
