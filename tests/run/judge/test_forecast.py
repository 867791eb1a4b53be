from mbrl.core.estimates import Estimand
from mbrl.dynamics.config import DynamicsConfig
from mbrl.nets.random_policy import RandomPolicy
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.run.judge.forecast import (
    forecast_backtest,
    forecast_estimates,
    time_dynamics_fit,
    time_value_fit,
)
from tests.data.logs import make_dataset
from tests.run.toy import TINY_DYNAMICS


def test_the_work_and_its_minutes_are_told():
    assert forecast_estimates("bc", fits=1, updates=100_000, seconds=0.003) == (
        "bc: 1 value fit of 100,000 updates, about 5 min, then the other estimates. Fewer with --updates."
    )
    text = forecast_backtest(
        folds=2, updates=6000, seconds=0.01, dynamics_updates=15_000, dynamics_seconds=0.02
    )
    assert "2 value fits of 6,000 updates and 2 dynamics fits of 15,000 updates at most, about 12 min" in text
    short = forecast_backtest(folds=2, updates=10, seconds=0.01, dynamics_updates=None, dynamics_seconds=0.0)
    assert "2 value fits of 10 updates, about a minute at most" in short


def test_updates_are_timed():
    data = make_dataset()
    config = FQEConfig(hidden=(4,), batch_size=8)
    seconds = time_value_fit(data, RandomPolicy(data.spec), estimand=Estimand(0.9), config=config)
    assert 0 < seconds < 1
    assert 0 < time_dynamics_fit(data, DynamicsConfig.model_validate(TINY_DYNAMICS)) < 1
