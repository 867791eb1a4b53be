import json
import math
from pathlib import Path
from typing import Any

import pytest

from mbrl.api.run_page import write_run_page
from mbrl.data.formats.base import FORMATS
from mbrl.run.config import resolve
from mbrl.run.metrics import read_metrics
from mbrl.run.policies import POLICY_FILE
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from mbrl.shift.report import MEASURED
from tests.run.test_train import SMALL, SMALL_MOPO
from tests.run.toy import TINY_DYNAMICS, make_dataset, write_dataset


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough held-out rows for thresholds."""
    return FORMATS.get("minari").write(make_dataset(count=90), tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def run(workspace: Workspace, dataset: Path, algorithm: str, *overrides: str) -> RunFolder:
    values: dict[str, Any] = {"dataset": str(dataset), "algorithm": algorithm, "dynamics": TINY_DYNAMICS}
    common = SMALL_MOPO if algorithm == "mopo" else [*SMALL]
    return train_policy_stage(resolve(arguments=values, overrides=[*common, *overrides]), workspace)


@pytest.mark.slow
def test_everything_is_measured_of_a_model_based_policy(large: Path, tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path))
    folder = run(workspace, large, "mopo", "algorithm.learner.discount=0.9")
    report = folder.summary()["shift"]
    missing = {name for name in MEASURED if report[name] is None}
    # an untrained policy rarely acts like a random log for a whole segment
    assert missing <= {"model_error_near_policy"}
    assert set(report["why_not"]) == missing
    assert all(math.isfinite(report[name]) for name in set(MEASURED) - missing)
    assert report["step"] == report["updates"] == 20
    assert report["edge_share"] == pytest.approx(0.2, abs=0.2)
    logged = [row for row in read_metrics(folder.path) if "shift/out_of_support_share" in row]
    assert [row["step"] for row in logged] == [10, 20]
    assert logged[-1]["shift/value_gap"] == report["value_gap"]
    assert "How far the policy leaves the data" in write_run_page(folder.path).read_text()
    # another algorithm on the same data and seed finds the behaviour that was fitted
    (support,) = workspace.supports.values()
    run(workspace, large, "bc")
    assert list(workspace.supports.values()) == [support]


def test_values_are_held_against_returns_in_the_units_of_the_log(small: Path, tmp_path: Path) -> None:
    """A critic near 0: the gap is minus the mean return over its deviation, in any unit of the learner's."""
    learner = ["algorithm.learner.hidden=[8]", "algorithm.updates=1", "algorithm.learner.discount=0.9"]
    rates = ["algorithm.learner.critic_learning_rate=1e-9", "algorithm.learner.actor_learning_rate=1e-9"]
    summaries = [
        run(
            Workspace(RunStore(tmp_path)),
            small,
            "iql",
            *learner,
            *rates,
            f"algorithm.reward_transform={name}",
        ).summary()
        for name in ("none", "return_range", "standardise")
    ]
    plain, ranged, standardised = summaries
    assert plain["reward_unit"] == 1.0
    assert ranged["reward_unit"] < 0.5
    assert standardised["reward_unit"] not in {1.0, ranged["reward_unit"]}
    gap = plain["shift"]["value_gap"]
    assert gap > 0.5  # the returns are negative
    for summary in (ranged, standardised):
        assert summary["value_bounds"] == plain["value_bounds"]
        assert summary["shift"]["value_gap"] == pytest.approx(gap, rel=0.2)


def test_the_policy_is_the_same_without_diagnostics(small: Path, tmp_path: Path) -> None:
    with_them = run(Workspace(RunStore(tmp_path / "a")), small, "mopo")
    without = run(Workspace(RunStore(tmp_path / "b")), small, "mopo", "diagnostics=false")
    assert without.summary()["shift"] is None
    assert with_them.path.name == without.path.name
    assert (with_them.path / POLICY_FILE).read_bytes() == (without.path / POLICY_FILE).read_bytes()
    text = write_run_page(without.path).read_text()
    assert "Nothing was measured" in text


def test_a_small_log_and_a_clone_have_reasons(small: Path, tmp_path: Path) -> None:
    report = run(Workspace(RunStore(tmp_path)), small, "bc").summary()["shift"]
    assert set(report["why_not"]) == set(MEASURED)
    assert "rows are held out" in report["why_not"]["knn_share"]
    assert "no values" in report["why_not"]["value_gap"]
    assert "needs no model" in report["why_not"]["rollout_flagged_share"]
    assert "no imagined data" in report["why_not"]["edge_share"]
    json.dumps(report, allow_nan=False)


def test_long_rollouts_are_not_searched_for_their_edge(small: Path, tmp_path: Path) -> None:
    folder = run(
        Workspace(RunStore(tmp_path)), small, "mopo", "algorithm.rollout.horizon=101", "algorithm.updates=1"
    )
    report = folder.summary()["shift"]
    assert "101 steps are too long" in report["why_not"]["edge_share"]
    assert report["rollout_uncertainty_ratio"] is not None
