from mbrl.core.estimates import Estimand
from mbrl.off_policy.value.fqe_config import FQEConfig


def test_the_least_updates_follow_the_horizon():
    assert FQEConfig(polyak_tau=0.01).least_updates(Estimand(0.9)) == 1000
    assert FQEConfig(polyak_tau=0.01).least_updates(Estimand(1.0, horizon=30)) == 3000
    # Where every episode surely ends no horizon is known, and one step is the least that there is.
    assert FQEConfig(polyak_tau=0.01).least_updates(Estimand(1.0, is_proper=True)) == 100
