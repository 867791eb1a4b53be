from mbrl.core.estimates import Estimand
from mbrl.off_policy.value.fqe_config import FQEConfig


def test_the_least_updates_follow_the_horizon():
    assert FQEConfig(polyak_tau=0.01).least_updates(Estimand(0.9)) == 1000
    assert FQEConfig(polyak_tau=0.01).least_updates(Estimand(1.0, horizon=30)) == 3000
    # Where every episode surely ends no horizon is known, and one step is the least that there is.
    assert FQEConfig(polyak_tau=0.01).least_updates(Estimand(1.0, is_proper=True)) == 100


def test_target_networks_follow_as_fast_as_the_horizon_asks():
    short, long = Estimand(0.99), Estimand(1.0, horizon=1000)
    assert FQEConfig().polyak_share(short) == 0.005
    assert FQEConfig().polyak_share(long) == 0.02
    assert FQEConfig().least_updates(short) == 20_000
    assert FQEConfig().least_updates(long) == 50_000  # half of those that are made
    assert FQEConfig(updates=10).least_updates(long) == 50_000  # few updates do not make it settle sooner
    assert FQEConfig().polyak_share(Estimand(1.0, horizon=100_000)) == 0.1
    assert FQEConfig(polyak_tau=0.3).polyak_share(long) == 0.3
