import numpy as np
import pytest

from mbrl.data.inspection.report import DataFinding, Inspection
from mbrl.data.inspection.stats import Coverage, DatasetStats, Dimension, Distribution
from mbrl.dynamics.report import (
    CalibrationReport,
    DynamicsReport,
    OneStepReport,
    OpenLoopReport,
    RankCorrelation,
    RewardReport,
    TerminationReport,
    TrainingReport,
)
from mbrl.evaluation.statistics import Interval
from mbrl.report.run.comparison import Comparison, Method

NAN = float("nan")


def interval(estimate, half_width=None, *, n=5):
    if half_width is None:
        return Interval(estimate, NAN, NAN, 0.95, "none: a single value has no spread", n)
    return Interval(estimate, estimate - half_width, estimate + half_width, 0.95, "percentile bootstrap", n)


def distribution(low, high, mean):
    return Distribution(
        minimum=low, median=mean, mean=mean, std=1.0, maximum=high, edges=(low, mean, high), counts=(3, 7)
    )


@pytest.fixture(scope="session")
def doctor_report():
    return Inspection(
        name="toy",
        findings=(DataFinding(severity="warning", text="A jump.", remedy="Look at row 3."),),
        dropped={},
        stats=DatasetStats(
            content_hash="ab" * 16,
            num_episodes=10,
            num_transitions=1234,
            terminated=4,
            truncated=6,
            unknown_successors=0,
            duplicate_rows=0,
            inconsistent_rows=0,
            jump_rows=1,
            has_behaviour_log_prob=False,
            lengths=distribution(90.0, 200.0, 123.4),
            returns=distribution(-10.0, 20.0, 5.0),
            rewards=distribution(-1.0, 1.0, 0.0),
            observations=(
                Dimension(name="angle", values=distribution(-3.0, 2.0, 0.5), is_constant=False),
                Dimension(name="still", values=distribution(1.0, 1.0, 1.0), is_constant=True),
            ),
            actions=(
                Dimension(
                    name="torque/left",
                    values=distribution(-2.0, 2.0, 0.0),
                    is_constant=False,
                    saturation=0.25,
                ),
            ),
            coverage=Coverage(effective_dims=1.5, neighbour_median=None, neighbour_95=None),
        ),
    )


def make_dynamics_report(horizon=3):
    steps = (1, 2, 3, 4)
    levels = tuple(round(0.05 * k, 2) for k in range(1, 20))
    return DynamicsReport(
        training=TrainingReport(
            train_rows=900,
            holdout_rows=100,
            train_episodes=9,
            holdout_episodes=1,
            is_split_by_block=False,
            updates=(100, 200),
            member_errors=((0.5, 0.2), (0.6, 0.3), (0.7, 0.4)),
            member_best=(0.2, 0.3, 0.4),
            elites=(0, 1),
        ),
        one_step=OneStepReport(
            rows=100,
            rmse=(0.1, 0.2),
            rmse_normalised=(0.3, 0.4),
            persistence_normalised=(1.0, 1.0),
            linear_normalised=(0.6, 0.7),
            nrmse=0.03,
            nrmse_persistence=0.2,
            nrmse_linear=0.1,
            mse_raw=0.01,
        ),
        calibration=CalibrationReport(
            rows=50,
            episodes=1,
            fit_rows=50,
            temperature=(1.1, 0.9, 1.0),
            levels=levels,
            coverage_before=tuple(level * 0.5 for level in levels),
            coverage_after=levels,
            coverage_by_dimension=(),
            pit_before=(1, 3),
            pit_after=(2, 2),
            pit_by_dimension=(),
            ks=(0.1, 0.2, 0.3),
            ece_before=(0.2, 0.2, 0.2),
            ece=(0.01, 0.01, 0.01),
            flagged=(),
            nll_before=(0.0, 0.0, 0.0),
            nll=(-1.0, -1.0, -1.0),
            nll_raw=-1.0,
        ),
        open_loop=OpenLoopReport(
            segments=(20, 20, 20, 1),
            steps=steps,
            error=(0.1, 0.15, 0.2, 0.5),
            low=(0.09, 0.1, 0.1, NAN),
            high=(0.11, 0.2, 0.29, NAN),
            persistence=(0.2, 0.4, 0.6, 0.8),
            linear=(0.15, 0.5, 20.0, 900.0),
            nrmse=(0.1, 0.15, 0.2, 0.5),
            nrmse_persistence=(0.2, 0.4, 0.6, 0.8),
            nrmse_linear=(0.15, 0.5, 20.0, 900.0),
            coverage=(0.92, 0.9, 0.85, 0.7),
            ended_early=(0.0, 0.0, 0.01, 0.02),
            tolerance=0.3,
            least_coverage=0.8,
            trusted_horizon=horizon,
        ),
        correlations={
            "ens_std": RankCorrelation(
                value=0.6, low=0.5, high=0.7, far_value=0.4, far_low=0.1, far_high=0.6
            ),
            "knn": RankCorrelation(value=0.2, low=NAN, high=NAN, far_value=NAN, far_low=NAN, far_high=NAN),
        },
        reward=RewardReport(rmse=0.1, rmse_normalised=0.05, mean=1.0, share_zero=0.0),
        termination=TerminationReport(
            is_learned=True,
            train_terminated=4,
            rows=100,
            terminated=0,
            logged_rate=0.004,
            logged_rate_high=0.01,
            predicted_rate=0.005,
            precision=None,
            recall=None,
            brier=0.001,
            brier_constant=0.004,
        ),
        warnings=("The trusted horizon is 0: do not roll out.", "Intervals miss their level."),
    )


@pytest.fixture(scope="session")
def dynamics_report():
    return make_dynamics_report()


@pytest.fixture(scope="session")
def comparison():
    return Comparison(
        dataset="toy",
        unit="episode return",
        methods=(
            Method("MOPO", (-180.0, -200.0, -220.0), interval(-200.0, 20.0, n=3), 143.0),
            Method("BC", (-420.0, -480.0, -510.0), interval(-470.0, 40.0, n=3), 12.3),
        ),
        behaviour=interval(-520.0, 30.0, n=100),
        best_tenth=-160.0,
    )


@pytest.fixture(scope="session")
def records():
    rng = np.random.default_rng(0)
    return [
        {
            "step": 100 * (k + 1),
            "critic/value": float(k),
            "critic/loss": float(rng.random()),
            "rollout/penalty": 0.3,
            "rollout/flagged_rate": 0.02,
            "rollout/clip_rate": None,
        }
        for k in range(20)
    ]
