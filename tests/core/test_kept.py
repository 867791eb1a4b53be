import pytest

from mbrl.core.kept import Kept


def test_what_is_asked_for_again_is_not_made_again_and_the_oldest_question_goes_first() -> None:
    kept, made = Kept[str, object](2), []

    def ask(key: str) -> object:
        def make() -> object:
            made.append(key)
            return object()

        return kept.get(key, make)

    first = ask("a")
    assert ask("b") is not first
    assert ask("a") is first
    ask("c")  # b was asked for the longest ago
    assert ask("a") is first
    assert made == ["a", "b", "c"]
    ask("b")
    assert made == ["a", "b", "c", "b"]
    kept.forget()
    assert ask("a") is not first


def test_none_is_an_answer_and_an_error_is_not() -> None:
    kept = Kept[int, None](1)
    with pytest.raises(ZeroDivisionError):
        kept.get(0, lambda: 1 / 0)  # pyright: ignore
    assert kept.get(0, lambda: None) is None
    assert kept.get(0, lambda: 1 / 0) is None  # pyright: ignore
