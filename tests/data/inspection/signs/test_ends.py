import dataclasses

import numpy as np

from mbrl.data.inspection.record import Record
from mbrl.data.inspection.signs.ends import find_early_stops, find_missing_final
from tests.data.inspection.records import clean, only


def stopped(*, terminated: bool | None = None, extreme: float = 20.0) -> Record:
    """Runs 1, 4 and 5 end after 150 to 250 of 600 rows, at a speed of `extreme`."""
    record = clean()
    traces = list(record.traces)
    for index, rows in ((1, 150), (4, 200), (5, 250)):
        values = traces[index].values[:rows].copy()
        values[-5:, 1] = np.where(index == 4, -extreme, extreme)
        traces[index] = dataclasses.replace(
            traces[index], time=traces[index].time[:rows], values=values, is_terminated=terminated
        )
    return dataclasses.replace(record, traces=tuple(traces))


def test_early_stops_at_extreme_values():
    found = only(list(find_early_stops(stopped())))
    assert "3 of 8 episodes end early (2.98 to 4.98 s, usually 12 s), at extreme values of v" in found.text
    assert 'failures: {limit: "abs(v) > 17"}' in found.remedy
    assert {place.episode for place in found.places} == {1, 4, 5}


def test_marked_stops_and_short_episodes_are_none():
    assert list(find_early_stops(stopped(terminated=True))) == []
    assert list(find_early_stops(stopped(extreme=0.0))) == []


def test_missing_final_observations():
    record = clean()
    traces = tuple(dataclasses.replace(trace, has_final=k > 1) for k, trace in enumerate(record.traces))
    found = only(list(find_missing_final(dataclasses.replace(record, traces=traces))))
    assert "2 of 8 runs log no final observation" in found.text
