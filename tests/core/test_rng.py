import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.core.rng import RngStreams


def draw(streams: RngStreams, stream: str, step: int = 0) -> list[float]:
    return torch.rand(4, generator=streams.at(stream, step)).tolist()


@settings(deadline=None)
@given(st.integers(-(2**40), 2**40), st.text(max_size=10), st.integers(0, 10**9))
def test_a_draw_is_a_function_of_seed_stream_and_step_alone(seed, stream, step):
    first = draw(RngStreams(seed), stream, step)
    other = RngStreams(seed)
    other.at("something else", 3)
    assert draw(other, stream, step) == first
    assert 0 <= RngStreams(seed).integer(stream, step) < 2**63


def test_seeds_streams_steps_and_children_all_differ():
    streams = RngStreams(0)
    draws = [
        draw(streams, "batch", 0),
        draw(streams, "batch", 1),
        draw(streams, "update", 0),
        draw(RngStreams(1), "batch", 0),
        draw(streams.child("a"), "batch", 0),
        draw(streams.child("b"), "batch", 0),
    ]
    assert len({tuple(values) for values in draws}) == len(draws)


def test_the_law_of_a_stream_is_fixed_for_ever():
    # A changed hash would silently change every result and break every resume.
    assert RngStreams(0).integer("batch", 0) == 6536194742032662537


def test_steps_of_a_stream_are_uniform_and_uncorrelated():
    streams = RngStreams(3)
    first = torch.stack([torch.rand((), generator=streams.at("x", k)) for k in range(2000)])
    assert abs(float(first.mean()) - 0.5) < 0.02
    lagged = torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1]
    assert abs(float(lagged)) < 0.07
