import pytest
from pydantic import TypeAdapter, ValidationError

from mbrl.nets.widths import Hidden

WIDTHS = TypeAdapter(Hidden)


def test_one_to_twelve_layers_of_up_to_4096_units():
    assert WIDTHS.validate_python([1]) == (1,)
    assert WIDTHS.validate_python([4096] * 12) == (4096,) * 12


@pytest.mark.parametrize("widths", [[], [0], [4097], [8] * 13, [8, -1], 8])
def test_other_shapes_are_refused(widths):
    with pytest.raises(ValidationError):
        WIDTHS.validate_python(widths)
