import pickle

import pytest

from mbrl.core.errors import DataError, MbrlError, MissingExtraError


def test_a_data_error_says_where_what_and_what_to_do():
    error = DataError("NaN", file="a.h5", episode=3, field="actions", row=0, remedy="Drop the episode.")
    assert str(error) == "file a.h5, episode 3, field actions, row 0: NaN Remedy: Drop the episode."
    assert str(DataError("empty")) == "empty"


@pytest.mark.parametrize(
    "error",
    [
        DataError("NaN", episode=0, row=5, remedy="Look."),
        MissingExtraError("pyarrow", extra="tables", purpose="reading parquet"),
    ],
)
def test_errors_survive_the_way_back_from_a_worker_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_a_missing_extra_names_the_command_that_mends_it():
    error = MissingExtraError("pyarrow", extra="tables", purpose="reading parquet")
    assert isinstance(error, MbrlError)
    assert "pip install 'mbrl-offline[tables]'" in str(error)
    assert "pyarrow" in str(error)
