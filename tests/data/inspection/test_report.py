import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mbrl.data.formats.base import FORMATS
from mbrl.data.info import DatasetInfo
from mbrl.data.inspection.report import inspect_dataset, inspect_log
from mbrl.data.open import parse_log
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawEpisode, RawLog
from tests.data.logs import make_dataset, make_episode, make_raw


def make_log(*raws: RawEpisode) -> RawLog:
    info = DatasetInfo(name="log")
    return RawLog(file=Path("log.npz"), episodes=raws, info=info, act_low=(-1.0,), act_high=(1.0,))


def texts(report, severity: str) -> str:
    return " | ".join(finding.text for finding in report.findings if finding.severity == severity)


def test_sound_data_may_train():
    report = inspect_dataset(make_dataset((600, 700)))
    assert report.may_train
    assert texts(report, "error") == ""
    assert report.stats is not None
    assert report.stats.num_transitions == 1300
    content = json.loads(report.to_json())
    assert content["may_train"] is True
    assert content["stats"]["observations"][0]["values"]["maximum"] == 799


def test_all_problems_are_listed_with_their_places():
    raws = [
        make_raw(name="a"),
        dataclasses.replace(make_raw(name="b"), rewards=np.array([1.0, np.nan, 1.0, 1.0])),
        dataclasses.replace(make_raw(name="c"), observations=np.zeros((4, 2)), actions=np.zeros((4, 2))),
        make_raw(steps=0, name="d"),
    ]
    report = inspect_log(make_log(*raws))
    assert not report.may_train
    found = [finding for finding in report.findings if finding.severity == "error"]
    places = [(part, word) for part in "bcd" for word in ("rewards", "actions", "observations")]
    listed = [
        place for place in places if any(f"episode {place[0]}, field {place[1]}" in f.text for f in found)
    ]
    assert listed == [("b", "rewards"), ("c", "actions"), ("c", "observations"), ("d", "rewards")]
    assert len(found) == 4
    assert all(finding.remedy for finding in found)
    assert report.stats is not None
    assert report.stats.num_episodes == 1
    assert json.loads(report.to_json())["may_train"] is False


def test_options_mend_what_they_cover():
    raw = dataclasses.replace(make_raw(), actions=np.array([[2.0], [0.0], [0.5], [0.0]]))
    assert not inspect_log(make_log(raw)).may_train
    report = inspect_log(make_log(raw, make_raw()), LoadOptions(actions="clip"))
    assert report.may_train
    assert report.dropped == {"actions clipped": 1}
    assert "actions clipped, 1 times" in texts(report, "note")


def test_dropping_bad_episodes_on_request():
    bad = dataclasses.replace(make_raw(), rewards=np.full(4, np.nan))
    report = inspect_log(make_log(make_raw(), make_raw(), bad), LoadOptions(bad_episodes="drop"))
    assert report.may_train
    assert report.dropped == {"episodes dropped: bad rewards": 1}


def test_nothing_usable():
    bad = dataclasses.replace(make_raw(), rewards=np.full(4, np.nan))
    report = inspect_log(make_log(bad))
    assert not report.may_train
    assert report.stats is None
    assert not inspect_log(make_log()).may_train


def test_many_problems_are_summed_up():
    bad = dataclasses.replace(make_raw(), rewards=np.full(4, np.nan))
    report = inspect_log(make_log(*[bad] * 80))
    assert "30 in rewards" in report.findings[-1].text
    assert not report.may_train


@pytest.mark.parametrize(
    ("lengths", "severity", "words"),
    [
        ((3, 4), "warning", "Only 7 transitions"),
        ((3, 4), "note", "Only 2 episodes"),
        ((3,), "note", "No step terminates"),
        ((3,), "warning", "Every reward is 0"),
    ],
)
def test_findings(lengths: tuple[int, ...], severity: str, words: str):
    assert words in texts(inspect_dataset(make_dataset(lengths)), severity)


def test_findings_about_actions_and_copies():
    data = make_dataset((20, 20))
    still = [dataclasses.replace(e, actions=np.ones_like(e.actions)) for e in data.episodes]
    report = inspect_dataset(dataclasses.replace(data, episodes=(*still, *still)))
    assert "Action dimensions that never change: 0" in texts(report, "warning")
    assert "at a bound in 100 %" in texts(report, "note")
    assert "40 transitions repeat stretches of an earlier episode" in texts(report, "warning")
    assert [finding.severity for finding in report.findings] == sorted(
        (finding.severity for finding in report.findings), key=["error", "warning", "note"].index
    )


def test_findings_about_rows():
    data = make_dataset((300, 300, 300))
    rewards = np.full(300, 500.0, dtype=np.float32)
    jumping = data.episodes[0].observations.copy()
    jumping[150:] -= 4000.0
    twin = data.episodes[1].observations.copy()
    twin[1:] += 7.0
    episodes = (
        dataclasses.replace(data.episodes[0], observations=jumping, rewards=rewards),
        data.episodes[1],
        dataclasses.replace(data.episodes[1], observations=twin, terminated=False, truncated=True),
        make_episode(3, 40, terminated=True, is_final_observation_known=False),
    )
    report = inspect_dataset(dataclasses.replace(data, episodes=episodes))
    assert report.may_train
    warnings, notes = texts(report, "warning"), texts(report, "note")
    assert "1 transitions jump far beyond a usual step" in warnings
    assert "transitions repeat a state and action with another successor" in warnings
    assert "1 terminal steps have no logged successor" in notes
    assert "Rewards lie between 1 and 500" in notes


def test_findings_about_constant_dimensions_and_partial_log_probs():
    data = make_dataset((30, 30))
    still = data.episodes[0].observations.copy()
    still[:, 1] = 2.0
    last = data.episodes[1].observations.copy()
    last[:, 1] = 2.0
    episodes = (
        dataclasses.replace(
            data.episodes[0], observations=still, behaviour_log_prob=np.zeros(30, np.float32)
        ),
        dataclasses.replace(data.episodes[1], observations=last),
    )
    report = inspect_dataset(dataclasses.replace(data, episodes=episodes))
    assert "never change: 1" in texts(report, "note")
    assert "1 of 2 episodes lack behaviour log-probabilities" in texts(report, "warning")


def test_assumed_bounds_are_a_warning(tmp_path: Path):
    raw = make_log(make_raw())
    report = inspect_log(dataclasses.replace(raw, act_low=None, act_high=None))
    assert "Assumed action bounds" in texts(report, "warning")


def test_file_by_file(tmp_path: Path):
    FORMATS.get("npz").write(make_dataset((600, 700)), tmp_path / "x.npz")
    assert inspect_log(parse_log(tmp_path / "x.npz")).may_train


@pytest.mark.data
def test_published_log_is_sound(shared_data: Path):
    report = inspect_log(parse_log(shared_data / "sim" / "hopper" / "medium-v0"))
    assert report.may_train
    assert report.findings == ()
