"""What an inspection says of choices: counts, cells, and actions that time stamps put elsewhere."""

import numpy as np
import pytest

from mbrl.data.dataset import Dataset
from mbrl.data.inspection.choices import assign_cells, leak_findings, summarise_choices
from mbrl.data.inspection.report import inspect_dataset
from mbrl.data.options import LoadOptions
from mbrl.report.run.data_tables import inspection_tables

NAMES = ("left", "stay", "right", "jump")


def two_places(*, masked: bool = False) -> Dataset:
    """Left of 0 right is never chosen, to the right of it all three are; nobody ever jumps."""
    rng = np.random.default_rng(0)
    episodes = []
    for index in range(20):
        side = -5.0 if index % 2 else 5.0
        observations = side + rng.normal(scale=0.1, size=(41, 1)).cumsum(0) * 0.1
        actions = rng.integers(2 if side < 0 else 3, size=40)
        mask = np.ones((41, 4), dtype=bool)
        mask[:, 2] = side > 0
        infos = {"action_mask": mask} if masked else {}
        episodes.append({"observations": observations, "actions": actions, "truncated": True, "infos": infos})
    return Dataset.from_episodes(episodes, choices=NAMES, options=LoadOptions(order="trust"))


def test_cells_of_states_part_what_lies_apart():
    found = assign_cells(two_places().transitions().observation, most=2)
    side = two_places().transitions().observation[:, 0] > 0
    assert len(np.unique(found)) == 2
    assert len(set(zip(found.tolist(), side.tolist(), strict=True))) == 2


def test_counts_cells_and_entropies_are_those_of_the_log():
    data = two_places()
    stats = summarise_choices(data)
    assert stats is not None
    counts = np.bincount(data.transitions().action.argmax(1), minlength=4)
    assert [choice.count for choice in stats.choices] == counts.tolist()
    assert [choice.episodes for choice in stats.choices] == [20, 20, 10, 0]
    # Right is a sixth of all steps: a cell of 18 steps or more would hold three of them.
    assert all(
        cell.missing == (("right",) if cell.centre[0] < 0 and cell.rows >= 20 else ())
        for cell in stats.cells
        if cell.centre[0] > 0 or cell.rows >= 20 or cell.rows < 15
    )
    assert any(cell.missing for cell in stats.cells)
    assert sum(cell.rows for cell in stats.cells) == 800
    assert stats.state_entropy == pytest.approx(0.5 * (np.log(2) + np.log(3)), abs=0.05)
    assert stats.choices[2].cells == sum(cell.centre[0] > 0 for cell in stats.cells)


def test_what_a_mask_forbids_is_not_missing():
    stats = summarise_choices(two_places(masked=True))
    assert stats is not None
    assert not any(cell.missing for cell in stats.cells)
    assert [choice.allowed for choice in stats.choices] == [1.0, 1.0, 0.5, 1.0]


def test_the_inspection_shows_choices_and_not_bounds():
    report = inspect_dataset(two_places())
    texts = " ".join(finding.text for finding in report.findings)
    assert "Choices that nobody took: jump." in texts
    assert "choices were never taken that are taken elsewhere: right" in texts
    assert "at a bound" not in texts
    assert "Action dimensions that never change" not in texts
    tables = {table.caption.partition(":")[0]: table for table in inspection_tables(report)}
    assert "Actions" not in tables
    assert [row[0] for row in tables["Choices"].rows] == list(NAMES)
    assert "Cells of states in which choices were never taken" in tables


def test_a_log_of_one_choice_in_each_state_is_said_to_be_one():
    rng = np.random.default_rng(0)
    place = np.sign(rng.normal(size=(400, 1))) + 0.01 * rng.normal(size=(400, 1))
    ends = np.arange(400) % 20 == 19
    data = Dataset.from_arrays(
        place, (place[:, 0] > 0).astype(int), None, np.zeros(400), ends, options=LoadOptions(order="trust")
    )
    assert any("same choice nearly always" in finding.text for finding in inspect_dataset(data).findings)


def timed(decided: np.ndarray, name: str = "action_timestamps") -> Dataset:
    return Dataset.from_episodes(
        [
            {
                "observations": np.arange(6.0)[:, None],
                "actions": np.array([0, 1, 0, 1, 1]),
                "truncated": True,
                "timestamps": 3600.0 * np.arange(6),
                "infos": {name: decided},
            }
        ]
    )


def test_actions_between_two_observations_are_in_order():
    assert not list(leak_findings(timed(3600.0 * np.arange(5) + 60.0)))
    assert not list(leak_findings(timed(3600.0 * np.arange(5))))
    assert not list(leak_findings(timed(np.full(5, 1e9), "something else")))


@pytest.mark.parametrize(
    ("shift", "text"),
    [
        (
            3600.0,
            "1 of 5 actions were decided at or after the time of the next observation; the first is row 2",
        ),
        (-1.0, "1 of 5 actions were decided before the time of the observation that they stand beside"),
    ],
)
def test_actions_out_of_their_step_are_found(shift: float, text: str):
    decided = 3600.0 * np.arange(5)
    decided[2] += shift
    (found,) = leak_findings(timed(decided))
    assert text in found.text
    assert found.severity == "warning"
