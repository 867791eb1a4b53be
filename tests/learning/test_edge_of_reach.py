import pytest

from tests.learning.edge import DISCOUNT, HIGHEST_REWARD, SEEDS, learned_value


@pytest.mark.slow
def test_values_run_away_at_the_edge_unless_many_critics_guard_it() -> None:
    most = HIGHEST_REWARD / (1 - DISCOUNT)
    unguarded, guarded = ([learned_value(seed, critics) for seed in range(SEEDS)] for critics in (1, 10))
    assert sum(value > most for value in unguarded) >= 4, unguarded
    assert not any(value > most for value in guarded), guarded
