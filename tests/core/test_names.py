from mbrl.core.names import listed, suggest


def test_only_near_misses_are_suggested() -> None:
    assert suggest("horizn", ["horizon", "starts"]) == "Did you mean 'horizon'? "
    assert suggest("zzz", ["horizon", "starts"]) == ""


def test_lists_are_in_order_and_never_empty() -> None:
    assert listed(["b", "a"]) == "a, b"
    assert listed([]) == "none"
