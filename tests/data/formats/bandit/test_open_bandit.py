"""Logged bandit feedback in Open Bandit's layout: what is read, and what is refused by row and column."""

from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.bandit.open_bandit import OpenBanditFormat
from mbrl.data.open import find_format, open_dataset
from tests.data.others import BANDIT_HEADER, BANDIT_ROWS, write_open_bandit


def write(folder: Path, *rows: str, header: str = BANDIT_HEADER, name: str = "men.csv") -> Path:
    file = folder / name
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def sample(folder: Path) -> Path:
    return write_open_bandit(folder / "men.csv")


def test_a_row_is_an_episode_of_one_step(tmp_path: Path):
    path = sample(tmp_path)
    assert isinstance(find_format(path), OpenBanditFormat)
    data = open_dataset(path)
    assert data.spec.choices == ("0", "1", "2", "3")  # 2 was never shown
    assert data.obs_names == (
        "position=1", "position=2", "position=3", "user_feature_0=03a5", "user_feature_0=81ce",
        "user-item_affinity_0",
    )  # fmt: skip
    assert data.info.max_episode_steps == 1
    assert data.episode_lengths.tolist() == [1] * 4
    rows = data.transitions()
    assert rows.action.argmax(1).tolist() == [3, 0, 3, 1]
    assert rows.reward.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert rows.observation[0].tolist() == [0.0, 1.0, 0.0, 0.0, 1.0, 0.5]
    assert rows.terminated.all()
    assert not rows.is_successor_known.any()
    log_prob = np.concatenate([episode.behaviour_log_prob for episode in data.episodes])
    np.testing.assert_allclose(np.exp(log_prob), [0.25, 0.5, 0.125, 1.0], rtol=1e-6)
    assert "independent decisions" in data.info.provenance["slates"]


def test_the_items_beside_the_log_are_the_choices(tmp_path: Path):
    sample(tmp_path)
    write(
        tmp_path,
        "0,0,a",
        "1,1,b",
        "2,3,c",
        "3,10,d",
        header=",item_id,item_feature_0",
        name="item_context.csv",
    )
    data = open_dataset(tmp_path)
    assert data.spec.choices == ("0", "1", "3", "10")
    assert data.transitions().action.argmax(1).tolist() == [2, 0, 2, 1]
    write(tmp_path, "0,0,a", "1,1,b", header=",item_id,item_feature_0", name="item_context.csv")
    with pytest.raises(DataError, match=r"men\.csv.*item_id.*row 0.*3 is no item of item_context\.csv"):
        open_dataset(tmp_path)


def test_other_names_labels_and_no_context(tmp_path: Path):
    path = write(tmp_path, "red,1.5,0.5", "blue,-2,0.25", header="action,reward,pscore")
    data = open_dataset(path)
    assert data.spec.choices == ("blue", "red")
    assert data.transitions().action.argmax(1).tolist() == [1, 0]
    assert data.transitions().reward.tolist() == [1.5, -2.0]
    assert data.obs_names == ("no_context",)
    assert data.transitions().observation.tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("row", "field", "problem"),
    [
        ("4,t,1,1,0,0,81ce,0.5", "propensity_score", "0 is no probability"),
        ("4,t,1,1,0,1.5,81ce,0.5", "propensity_score", "1.5 is no probability"),
        ("4,t,1,1,0,nan,81ce,0.5", "propensity_score", "nan is not finite"),
        ("4,t,1,1,2,0.5,81ce,0.5", "click", "2 is neither 0 nor 1"),
        ("4,t,1.5,1,0,0.5,81ce,0.5", "item_id", "1.5 is no id"),
        ("4,t,-1,1,0,0.5,81ce,0.5", "item_id", "-1 is no id"),
        ("4,t,1,1,0,0.5,81ce,inf", "user-item_affinity_0", "inf is not finite"),
    ],
)
def test_what_is_wrong_is_named_by_file_column_and_row(tmp_path: Path, row: str, field: str, problem: str):
    with pytest.raises(DataError) as caught:
        open_dataset(write(tmp_path, *BANDIT_ROWS, row))
    text = str(caught.value)
    assert problem in text
    assert all(part in text for part in ("men.csv", field, "row 4", "Remedy"))


def test_a_text_among_numbers_and_a_short_row(tmp_path: Path):
    with pytest.raises(DataError, match=r"propensity_score.*row 4.*'high' is no number"):
        open_dataset(write(tmp_path, *BANDIT_ROWS, "4,t,1,1,0,high,81ce,0.5"))
    with pytest.raises(DataError, match=r"row 4.*3 cells, where the header names 8"):
        open_dataset(write(tmp_path, *BANDIT_ROWS, "4,t,1"))
    with pytest.raises(DataError, match="no rows"):
        open_dataset(write(tmp_path))


def test_a_plain_table_is_not_taken_for_feedback(tmp_path: Path):
    path = write(tmp_path, "0,1", header="time,angle")
    assert "no column item_id or action" in str(OpenBanditFormat().sniff(path))
    with pytest.raises(DataError, match="schema"):
        open_dataset(path)
