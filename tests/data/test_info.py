import pytest

from mbrl.core.errors import DataError
from mbrl.data.info import DatasetInfo


def test_round_trip():
    info = DatasetInfo(
        name="a/b-v0", task="hopper", ref_min_score=-20.3, obs_names=("x", "ẋ"), provenance={"torch": "2"}
    )
    assert DatasetInfo.from_json(info.to_json(), file="x") == info


def test_foreign_text():
    with pytest.raises(DataError, match="not a description") as caught:
        DatasetInfo.from_json('{"task": "hopper"}', file="log.npz")
    assert caught.value.file == "log.npz"
