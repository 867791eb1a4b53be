import itertools
import time

import pytest
import yaml

from mbrl.core.errors import ConfigError
from mbrl.envs.documents import MAX_DEPTH, MAX_TEXT, MAX_VALUES, parse_yaml

LINES = [f"{after}: &{after} [*{name}, *{name}]" for name, after in itertools.pairwise("abcdefghijklmn")]
BOMB = "\n".join(["a: &a [x, x]", *LINES])


def test_plain_documents_are_read():
    assert parse_yaml("a: 3e-4\nb: [1, x, null]\nc: {d: true}", where="w") == {
        "a": 3e-4, "b": [1, "x", None], "c": {"d": True},
    }  # fmt: skip
    nested = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_yaml(nested, where="w") == yaml.safe_load(nested)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases"),
        ("a: &a [*a]", "aliases"),
        ("[" * 100_000, "nested more than 50"),
        ("a: {" * 60 + "}" * 60, "nested more than 50"),
        ("- " * 60 + "x", "nested more than 50"),
        ("x" * (MAX_TEXT + 1), "1,000,001 characters"),
        ("a: 2020-13-45", "month must be"),
        ("{[1]: 2}", "unhashable"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ("a: !!binary x", "binary"),
        ("a: 1\na: 2", "given twice"),
        ("a: [", "flow"),
        ("\x00", "special characters"),
    ],
)
def test_what_is_no_document_is_refused_at_once(text: str, words: str):
    start = time.process_time()
    with pytest.raises(ConfigError, match=words) as caught:
        parse_yaml(text, where="File x.yaml")
    assert time.process_time() - start < 5.0
    assert str(caught.value).startswith("File x.yaml")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"[{'1,' * MAX_VALUES}]", "more than 10,000 values"),
        ("\n".join(" " * k + "a:" for k in range(300)), "nested more than 50"),
        (f"0x{'f' * 5000}", "too large"),
        ("1" * 20, "too large"),
        ('a: "\\0"', "NUL"),
        ("!!set {a, b}", "could not determine a constructor"),
        ("!!timestamp x", "NoneType"),
        ("!!int abc", "invalid literal"),
        ("!!float abc", "could not convert"),
        ("!!bool abc", "abc"),
        ("a: 1\n---\nb: 2", "single document"),
    ],
)
def test_values_that_no_config_holds_are_refused(text: str, words: str):
    with pytest.raises(ConfigError, match=words) as caught:
        parse_yaml(text, where="File x.yaml")
    assert "Remedy: " in str(caught.value)
    assert len(str(caught.value)) < 700


def test_many_values_are_read_up_to_the_limit():
    assert len(parse_yaml(f"[{'1,' * (MAX_VALUES - 1)}]", where="w")) == MAX_VALUES - 1
