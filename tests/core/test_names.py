from mbrl.core.names import listed, shared_letters, suggest


def test_only_near_misses_are_suggested() -> None:
    assert suggest("horizn", ["horizon", "starts"]) == "Did you mean 'horizon'? "
    assert suggest("zzz", ["horizon", "starts"]) == ""


def test_lists_are_in_order_and_never_empty() -> None:
    assert listed(["b", "a"]) == "a, b"
    assert listed([]) == "none"


def test_letters_that_all_begin_with():
    assert shared_letters(["run_pos", "run_cmd"]) == 4
    assert shared_letters(["run", "run_cmd"]) == 3
    assert shared_letters(["a", "b"]) == 0
