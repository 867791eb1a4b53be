import math

import pytest

from mbrl.rollouts.config import RolloutConfig


@pytest.mark.parametrize(
    "bad",
    [{"horizon": 0}, {"starts": 0}, {"truncation_quantile": 1.5}, {"flagged": "cut"}, {"horizn": 3}]
    + [{"halt_reward": bad} for bad in (math.inf, math.nan, -1e10)],
)
def test_config_refuses_bad_values_and_unknown_keys(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        RolloutConfig(**bad)
