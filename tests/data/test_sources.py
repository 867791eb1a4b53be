import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mbrl.core.protocols import BatchSource
from mbrl.core.types import TransitionBatch
from mbrl.data.sources import DatasetSource, MixtureSource, ModelBuffer, RowLayout, imagined_rows

LAYOUT = RowLayout(2, 1)
FIELDS = ("observation", "action", "next_observation", "terminated", "next_action", "has_next_action")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(first: int, count: int) -> TransitionBatch:
    """Transitions numbered by their reward; no field is ever zero but the flag."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    return TransitionBatch(
        observation=torch.stack([number + 1, -number - 1], -1),
        action=number[:, None] + 0.5,
        reward=number,
        next_observation=torch.stack([number + 2, -number - 2], -1),
        terminated=number % 3 == 0,
        from_model=torch.zeros(count, dtype=torch.bool),
        next_action=number[:, None] + 1.5,
        has_next_action=number % 4 != 0,
    )


def numbers(batch: TransitionBatch) -> list[int]:
    return [int(number) for number in batch.reward]


def content(buffer: ModelBuffer) -> list[int]:
    """Which transitions a ring holds: a sample that is large enough to find all of them."""
    return sorted(set(numbers(buffer.sample(60 * len(buffer), generator()))))


class Untouchable:
    """A source that must not be asked."""

    def sample(self, batch_size, generator):
        raise AssertionError("this source must not be touched")

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def assert_is_intact(batch: TransitionBatch) -> None:
    """Every field belongs to the transition that the reward names."""
    first = rows(0, 1 + max(numbers(batch)))
    index = batch.reward.long()
    for field in FIELDS:
        assert torch.equal(getattr(batch, field), getattr(first, field)[index])


def test_packing_is_undone_bit_for_bit():
    batch = dataclasses.replace(rows(0, 9), reward=torch.randn(9, generator=generator()))
    packed = LAYOUT.pack(batch)
    assert packed.shape == (9, LAYOUT.width) == (9, 9)
    for provenance in (True, False):
        back = LAYOUT.unpack(packed, from_model=provenance)
        for field in ("reward", *FIELDS):
            assert torch.equal(getattr(back, field), getattr(batch, field))
        assert (back.from_model == provenance).all()


def test_a_batch_without_next_actions_is_packed_as_having_none():
    bare = dataclasses.replace(rows(0, 5), next_action=None, has_next_action=None)
    assert not LAYOUT.unpack(LAYOUT.pack(bare), from_model=True).has_next_action.any()


def test_dataset_draws_are_uniform_and_intact():
    source = DatasetSource(rows(0, 50))
    batch = source.sample(20_000, generator())
    assert_is_intact(batch)
    assert not batch.from_model.any()
    assert stats.chisquare(torch.bincount(batch.reward.long(), minlength=50).numpy()).pvalue > 1e-3


def test_draws_depend_on_the_generator_alone():
    source = DatasetSource(rows(0, 50))
    first = numbers(source.sample(32, generator(1)))
    source.sample(32, generator(2))
    assert numbers(source.sample(32, generator(1))) == first
    assert numbers(source.sample(32, generator(2))) != first


def test_neither_the_data_nor_a_batch_can_change_what_is_sampled_later():
    data = rows(0, 5)
    source = DatasetSource(data)
    data.reward.fill_(99)
    source.sample(64, generator()).observation.fill_(99)
    assert_is_intact(source.sample(64, generator()))


def test_an_empty_dataset_is_refused_and_a_foreign_state_too():
    with pytest.raises(ValueError, match="at least one"):
        DatasetSource(rows(0, 0))
    source = DatasetSource(rows(0, 1))
    source.load_state_dict(source.state_dict())
    with pytest.raises(ValueError, match="no state"):
        source.load_state_dict({"rows": 1})


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.lists(st.integers(0, 15), max_size=8))
def test_a_ring_holds_exactly_the_newest_rows(capacity, pushes):
    buffer = ModelBuffer(capacity, LAYOUT)
    total = 0
    for count in pushes:
        buffer.push(rows(total, count))
        total += count
        assert len(buffer) == min(total, capacity)
    if total:
        assert content(buffer) == list(range(max(0, total - capacity), total))


@pytest.mark.parametrize(("count", "capacity"), [(4, 20), (7, 20), (20, 20), (33, 20)])
def test_a_ring_is_first_in_first_out_whether_or_not_a_push_divides_it(count, capacity):
    buffer = ModelBuffer(capacity, LAYOUT)
    for k in range(9):
        buffer.push(rows(k * count, count))
        newest = (k + 1) * count
        assert content(buffer) == list(range(max(0, newest - capacity), newest))


def test_only_written_rows_are_sampled_uniformly_and_marked_as_imagined():
    buffer = ModelBuffer(1000, LAYOUT)  # mostly unwritten: a zero row would have action 0
    buffer.push(rows(0, 30))
    batch = buffer.sample(20_000, generator())
    assert_is_intact(batch)
    assert batch.from_model.all()
    assert stats.chisquare(torch.bincount(batch.reward.long(), minlength=30).numpy()).pvalue > 1e-3
    replay = ModelBuffer(10, LAYOUT, from_model=False)
    replay.push(rows(0, 3))
    assert not replay.sample(5, generator()).from_model.any()


def test_an_empty_ring_cannot_be_sampled():
    with pytest.raises(RuntimeError, match="empty"):
        ModelBuffer(3, LAYOUT).sample(1, generator())
    with pytest.raises(ValueError, match="capacity"):
        ModelBuffer(0, LAYOUT)


def test_mean_age_counts_pushes_since_writing():
    buffer = ModelBuffer(10, LAYOUT)
    assert buffer.mean_age == 0
    buffer.push(rows(0, 4))
    assert buffer.mean_age == 0
    buffer.push(rows(4, 2))
    assert buffer.mean_age == pytest.approx(4 / 6)  # four rows of age 1, two of age 0
    buffer.push(rows(6, 0))
    assert buffer.mean_age == pytest.approx((4 * 2 + 2 * 1) / 6)
    buffer.push(rows(6, 8))  # overwrites the four oldest
    assert buffer.mean_age == pytest.approx((2 * 2 + 8 * 0) / 10)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 9))
def test_a_restored_ring_goes_on_like_the_one_that_was_saved(capacity, pushes, later):
    buffer, restored = ModelBuffer(capacity, LAYOUT), ModelBuffer(capacity, LAYOUT)
    total = 0
    for count in pushes:
        buffer.push(rows(total, count))
        total += count
    state = buffer.state_dict()
    buffer.push(rows(total, later))
    restored.load_state_dict(state)
    restored.push(rows(total, later))
    assert numbers(restored.sample(50, generator())) == numbers(buffer.sample(50, generator()))
    assert restored.mean_age == buffer.mean_age
    buffer.push(rows(total + later, 3))
    restored.push(rows(total + later, 3))
    assert numbers(restored.sample(50, generator())) == numbers(buffer.sample(50, generator()))


@pytest.mark.parametrize("capacity", [3, 20])
def test_the_state_of_a_full_ring_is_refused_by_another_capacity(capacity):
    buffer = ModelBuffer(8, LAYOUT)
    buffer.push(rows(0, 11))
    with pytest.raises(ValueError, match="capacity"):
        ModelBuffer(capacity, LAYOUT).load_state_dict(buffer.state_dict())


def test_real_ratio_one_never_touches_the_model_source():
    source = MixtureSource([(DatasetSource(rows(0, 10)), 1.0), (Untouchable(), 0.0)])
    batch = source.sample(256, generator())
    assert len(batch) == 256
    assert not batch.from_model.any()
    reverse = MixtureSource([(Untouchable(), 0.0), (DatasetSource(rows(0, 10)), 1.0)])
    assert len(reverse.sample(7, generator())) == 7


def test_a_mixture_holds_the_rounded_share_of_real_rows():
    buffer = ModelBuffer(10, LAYOUT)
    buffer.push(rows(100, 10))
    for ratio, real in ((0.05, 13), (0.5, 128), (0.999, 256)):
        source = MixtureSource([(DatasetSource(rows(0, 10)), ratio), (buffer, 1 - ratio)])
        batch = source.sample(256, generator())
        assert int((~batch.from_model).sum()) == real
        assert torch.equal(batch.from_model, batch.reward >= 100)  # provenance follows the row
        assert_is_intact(batch)


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=6).filter(any), st.integers(1, 4096))
def test_counts_follow_the_shares_and_add_up(weights, batch_size):
    shares = [weight / sum(weights) for weight in weights]
    counts = MixtureSource([(Untouchable(), share) for share in shares]).counts(batch_size)
    assert sum(counts) == batch_size
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - share * batch_size) <= 1 + 1e-6
        assert count >= 0
        assert share > 0 or count == 0


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.5, -0.5), (1.0, 1.0)])
def test_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(ValueError, match="add up to 1"):
        MixtureSource([(Untouchable(), share) for share in shares])


def test_a_mixture_saves_and_restores_every_part():
    def build() -> tuple[MixtureSource, ModelBuffer]:
        buffer = ModelBuffer(6, LAYOUT)
        return MixtureSource([(DatasetSource(rows(0, 10)), 0.5), (buffer, 0.5)]), buffer

    source, buffer = build()
    buffer.push(rows(50, 8))
    other, _ = build()
    assert isinstance(other, BatchSource)
    other.load_state_dict(source.state_dict())
    assert numbers(other.sample(40, generator())) == numbers(source.sample(40, generator()))


@pytest.mark.parametrize("real_ratio", [0.0, 0.05, 0.5])
def test_imagined_rows_are_those_that_the_flags_name(real_ratio):
    buffer = ModelBuffer(6, LAYOUT)
    buffer.push(rows(50, 8))
    source = MixtureSource([(DatasetSource(rows(0, 10)), real_ratio), (buffer, 1 - real_ratio)])
    batch = source.sample(40, generator())
    expected = batch.from_model.nonzero()[:, 0]
    assert len(expected) == 40 - round(40 * real_ratio)
    # By the mixture's count, and by asking where the size is another.
    for size in (40, 39):
        assert torch.equal(imagined_rows(batch, real_ratio, size), expected)
