import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.core.types import SpaceSpec
from mbrl.nets.action_box import ActionBox

bounds = st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(0.0625, 1e3, width=32)).map(
    lambda p: (p[0], p[0] + p[1])
)


def test_each_dimension_has_its_own_bounds():
    box = ActionBox(SpaceSpec(1, 2, (-1.0, 0.0), (3.0, 10.0)))
    scaled = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 0.5]])
    action = torch.tensor([[-1.0, 0.0], [1.0, 5.0], [3.0, 7.5]])
    torch.testing.assert_close(box.unscale(scaled), action)
    torch.testing.assert_close(box.scale(action), scaled)


@settings(deadline=None)
@given(bounds, st.floats(-1, 1, width=32))
def test_rounding_never_leaves_the_bounds(pair, scaled):
    box = ActionBox(SpaceSpec(1, 1, pair[:1], pair[1:]))
    for value in (scaled, -1.0, 1.0):
        action = box.unscale(torch.tensor([[value]]))
        assert float(box.low) <= float(action) <= float(box.high)


def test_a_checkpoint_holds_nothing_of_it():
    assert ActionBox(SpaceSpec(1, 1, (-1.0,), (1.0,))).state_dict() == {}
