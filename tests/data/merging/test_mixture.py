import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.data.merging.merge import merge_datasets
from mbrl.data.merging.mixture import MixedDraws, SourceMixture
from mbrl.data.sources import DatasetSource
from tests.data.merging.test_merge import log
from tests.run.toy import assert_same


def mixture(source: list[int], *shares: float) -> SourceMixture:
    return SourceMixture(torch.tensor(source), shares, tuple("abc"[: len(shares)]))


def test_a_batch_holds_each_source_in_its_share():
    draws = MixedDraws(mixture([0] * 10 + [1] * 1000, 0.75, 0.25))
    rows = draws.draw(8000, torch.Generator().manual_seed(0))
    of_first = rows[:6000]
    assert draws.counts(8000) == [6000, 2000]
    assert int(of_first.max()) < 10 <= int(rows[6000:].min())
    # Uniform within a source: 600 of each, deviation sqrt(6000 * 0.1 * 0.9) = 23.
    assert int((torch.bincount(of_first, minlength=10) - 600).abs().max()) < 120


def test_rows_of_a_source_need_not_lie_together():
    source = [1, 0, 1, 0, 0]
    rows = MixedDraws(mixture(source, 0.5, 0.5)).draw(100, torch.Generator().manual_seed(0))
    assert [source[row] for row in rows.tolist()] == [0] * 50 + [1] * 50
    assert set(rows.tolist()) == set(range(5))


def test_a_source_of_batches_draws_by_weights():
    a, b = log("a", 1), log("b", 2)
    both = merge_datasets([a, b])
    source = DatasetSource(both.transitions().to_batch(), SourceMixture.of(both, [1.0, 3.0]))
    batch = source.sample(64, torch.Generator().manual_seed(0))
    rewards = [set(part.transitions().reward.tolist()) for part in (a, b)]
    assert set(batch.reward[:16].tolist()) <= rewards[0]
    assert set(batch.reward[16:].tolist()) <= rewards[1]


def test_without_weights_the_draws_are_those_of_one_dataset():
    rows = merge_datasets([log("a", 1), log("b", 2)]).transitions().to_batch()
    batches = [DatasetSource(rows, None).sample(16, torch.Generator().manual_seed(3)) for _ in range(2)]
    index = torch.randint(48, (16,), generator=torch.Generator().manual_seed(3))
    assert_same(batches[0].reward.tolist(), rows.reward[index].tolist())


def test_a_share_too_small_for_a_batch_is_refused():
    draws = MixedDraws(mixture([0, 1], 0.999, 0.001))
    with pytest.raises(ConfigError, match=r"'b' has a share of 0\.001, which is no row of the 64"):
        draws.draw(64, torch.Generator())


def test_weights_must_be_as_many_as_sources_with_rows():
    both = merge_datasets([log("a", 1), log("b", 2)])
    with pytest.raises(ConfigError, match="3 are given for 2 sources \\('a', 'b'\\)"):
        SourceMixture.of(both, [1.0, 1.0, 1.0])
    with pytest.raises(ConfigError, match="one dataset, not merged"):
        SourceMixture.of(log("a", 1), [1.0, 1.0])
    with pytest.raises(ConfigError, match="no row of 'b' is left"):
        SourceMixture.of(both.select([0, 1]), [1.0, 1.0], whole=both)
    with pytest.raises(ConfigError, match="no row of 'b' is left"):
        MixedDraws(SourceMixture.of(both, [1.0, 1.0]).take(torch.arange(10)))
