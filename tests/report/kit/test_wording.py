import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbrl.report.kit.wording import format_interval, format_number, format_share, read_interval
from tests.report.conftest import interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (7.0, "7"),
        (12345.0, "12,345"),
        (-206.37, "-206"),
        (1234.5, "1,234"),
        (0.03, "0.0300"),
        (1.2345, "1.23"),
        (99.96, "100"),
        (9.996, "10.0"),
        (2.5e-7, "2.50e-07"),
        (3.21e9 + 0.5, "3.21e+09"),
        (math.inf, "infinite"),
        (-math.inf, "minus infinite"),
        (None, "not available"),
        (math.nan, "not available"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert format_number(value) == text


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_rounded_number_is_within_half_a_percent(value):
    assert float(format_number(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.256, "25.6 %"), (2e-4, "< 0.1 %"), (None, "not available")],
)
def test_shares_read_as_percent(share, text):
    assert format_share(share) == text


def test_interval_with_ends():
    assert format_interval(interval(-200.0, 20.0)) == "-200 [-220, -180]"


def test_missing_interval_is_said_in_words():
    assert format_interval(interval(-200.0)) == "-200 (no interval: a single value has no spread)"


def test_interval_from_json_equals_the_interval():
    whole, bare = interval(1.5, 0.5), interval(1.5, n=1)
    assert read_interval(whole.to_json()) == whole
    assert format_interval(bare.to_json()) == format_interval(bare)
