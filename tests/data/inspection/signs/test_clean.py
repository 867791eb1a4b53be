"""A log without a fault has no finding."""

import dataclasses

import pytest

from mbrl.data.inspection.examine import SIGNS, Sign, examine
from tests.data.inspection.records import clean


@pytest.mark.parametrize("sign", SIGNS, ids=lambda sign: sign.__name__)
def test_a_clean_log_has_no_finding(sign: Sign):
    assert [finding.text for finding in sign(clean())] == []


def test_a_clean_dataset_has_none_either():
    record = dataclasses.replace(clean(), is_raw=False)
    assert [finding.text for finding in examine(record)] == []
