"""The language of rewards and terminations: what it computes, what it refuses, and that nothing gets out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mbrl.data.expressions.functions import NUMPY, SIGNATURES, TORCH
from mbrl.data.expressions.parse import MAX_LENGTH, ExpressionError, parse_expression
from mbrl.data.expressions.tree import Name, Number, Operation, substitute, write

COLUMNS = {
    "x": np.array([-2.0, -0.5, 0.0, 0.5, 3.0]),
    "y": np.array([1.0, 0.0, -1.0, 2.0, 4.0]),
    "next_x": np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
}


def value(text: str) -> np.ndarray:
    return parse_expression(text).evaluate(COLUMNS, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3 - 4 / 8", 6.5),
        ("2 ** 3 ** 2", 512.0),
        ("-2 ** 2", -4.0),
        ("7 % 4 + -7 % 4", 4.0),
        ("1 < 2 < 3", 1.0),
        ("1 < 2 < 2", 0.0),
        ("(1 > 2) + (2 >= 2) + (1 <= 0) + (1 == 1) + (1 != 1)", 2.0),
        ("not 0 and (0 or 2)", 1.0),
        ("sin(pi / 6) + cos(pi / 3) + tan(pi / 4)", 2.0),
        ("atan2(1, -1)", 3 * math.pi / 4),
        ("abs(-3) + min(4, 1, 2) + max(4, 1, 9)", 13.0),
        ("sqrt(9) + exp(0) + log(exp(2))", 6.0),
        ("clip(5, -1, 1) + clip(-5, -1, 1) + clip(0.5, -1, 1)", 0.5),
        ("where(1 > 0, 3, 4) + where(0, 3, 4)", 7.0),
        ("sign(-2) + sign(0) + sign(5)", 0.0),
        ("hypot(3, 4)", 5.0),
        ("wrap(3 * pi / 2)", -math.pi / 2),
        ("wrap(pi)", -math.pi),
        ("  \n 1 +\n 2", 3.0),
    ],
)
def test_known_values(text: str, expected: float) -> None:
    expression = parse_expression(text)
    np.testing.assert_allclose(expression.evaluate({}, 3), [expected] * 3, atol=1e-14)
    found = expression.evaluate_torch({}, torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), [expected] * 3, atol=1e-14)


def test_columns_and_successors() -> None:
    np.testing.assert_array_equal(value("next_x - x"), COLUMNS["next_x"] - COLUMNS["x"])
    np.testing.assert_array_equal(value("x > 0 and y > 2"), [0, 0, 0, 0, 1])
    found = parse_expression("-(x - y)**2 - 0.1 * x")
    assert found.names == ("x", "y")


def test_names_in_backticks() -> None:
    found = parse_expression(
        "2 * `motor speed (rpm)` + `observation.state[3]`",
        known={"motor speed (rpm)", "observation.state[3]"},
    )
    assert found.names == ("motor speed (rpm)", "observation.state[3]")
    columns = {"motor speed (rpm)": np.array([1.0]), "observation.state[3]": np.array([5.0])}
    assert found.evaluate(columns, 1).tolist() == [7.0]


@pytest.mark.parametrize(
    ("text", "words", "position"),
    [
        ("x + thta", r"unknown name 'thta'\. Did you mean 'theta'\?", 5),
        ("x + sni(x)", r"unknown function\. Did you mean 'sin'\?", 5),
        ("x.real", "a dot", 1),
        ("1 + x[0]", "brackets", 5),
        ("x if x else 1", r"write where\(condition, x, y\)", 1),
        ("sin(x, x)", r"sin is written sin\(x\)", 1),
        ("clip(x)", r"clip\(x, low, high\)", 1),
        ("max(*x)", "max is written", 1),
        ("min(x, default=1)", "min is written", 1),
        ("x + sin", "the function sin without arguments", 5),
        ("x + 'a'", "no number", 5),
        ("x + 1j", "no number", 5),
        ("lambda: x", "function definition", 1),
        ("(x := 1)", "an assignment", 2),
        ("[x for x in x]", "not allowed", 1),
        ("x is x", "a comparison other than", 1),
        ("~x", "write not", 1),
        ("x // 2", "not allowed", 1),
        ("x @ x", "not allowed", 1),
        ("__import__('os')", "unknown function", 1),
        ("1e999", "too large", 1),
        ("x +", "no expression", None),
        ("", "no expression", None),
        ("x; x", "no expression", None),
        ("`x", "backtick without its partner", 1),
        ("äö + thta", "unknown name", 1),
        ("ä + thta", "unknown name", 5),
        ("+".join(["x"] * 300), "inside each other", None),
        (" and ".join(["x"] * 300), "in a row", 1),
        ("x" * (MAX_LENGTH + 1), "are the most", None),
    ],
)
def test_refusals_name_the_position(text: str, words: str, position: int | None) -> None:
    with pytest.raises(ExpressionError, match=words) as caught:
        parse_expression(text, known={"x", "theta", "ä"})
    assert len(str(caught.value)) < 1500
    if position is not None:
        assert caught.value.position == position


def test_a_tower_of_powers_costs_nothing() -> None:
    assert np.isinf(parse_expression("9**9**9**9").evaluate({}, 1)).all()


def test_substitution() -> None:
    angle = Operation("atan2", (Name("q_sin", 1), Name("q_cos", 1)))
    root = substitute(parse_expression("q - 1").root, {"q": angle})
    assert write(root) == "(atan2(q_sin, q_cos) - 1.0)"


@given(st.text(max_size=60))
@example("\x00")
@example("(" * 500)
@example("-" * 3000 + "1")
@example("x" + "[" * 1000)
@example("0x" + "f" * 3000)
@example("1_0 1and 2")
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        expression = parse_expression(text, known={"x", "y"})
    except ExpressionError:
        return
    assert expression.evaluate(COLUMNS, 5).shape == (5,)


@given(st.text(alphabet="xy01.+-*/%<>=()andort sqmilch,`_", max_size=40))
def test_text_of_its_own_letters(text: str) -> None:
    test_no_text_does_anything_but_parse_or_be_refused.hypothesis.inner_test(text)  # type: ignore[attr-defined]


def nodes() -> st.SearchStrategy[Number | Name | Operation]:
    numbers = st.floats(-10, 10, allow_subnormal=False).map(lambda v: Number(abs(v)))
    base = numbers | st.sampled_from(["x", "y", "next_x"]).map(lambda name: Name(name, 1))
    binary = st.sampled_from(["+", "-", "*", "<", ">=", "and", "or", "atan2", "hypot", "min", "max"])
    unary = st.sampled_from(["negative", "not", "sin", "cos", "abs", "sign", "wrap"])

    def extend(inner: st.SearchStrategy[Number | Name | Operation]) -> st.SearchStrategy[Operation]:
        return (
            st.tuples(binary, inner, inner).map(lambda t: Operation(t[0], t[1:]))
            | st.tuples(unary, inner).map(lambda t: Operation(t[0], t[1:]))
            | st.tuples(inner, inner, inner).map(lambda t: Operation("where", t))
        )

    return st.recursive(base, extend, max_leaves=12)


@given(nodes())
def test_what_is_written_parses_to_the_same_tree_and_both_backends_agree(
    node: Number | Name | Operation,
) -> None:
    expression = parse_expression(write(node))
    assert write(expression.root) == write(node)
    by_numpy = expression.evaluate(COLUMNS, 5)
    tensors = {name: torch.tensor(values) for name, values in COLUMNS.items()}
    by_torch = expression.evaluate_torch(tensors, tensors["x"]).numpy()
    np.testing.assert_allclose(by_torch, by_numpy, rtol=1e-9, atol=1e-9)


def test_every_function_has_both_backends() -> None:
    assert set(SIGNATURES) <= set(NUMPY)
    assert set(NUMPY) == set(TORCH)
