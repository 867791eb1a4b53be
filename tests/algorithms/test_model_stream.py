import dataclasses

import pytest

from mbrl.algorithms.base import RECIPES
from mbrl.envs.specs import TaskSpec, TerminationRule
from tests.algorithms.toy import make_config, make_context, make_training, refresh
from tests.run.toy import SPACE

NO_CUT = {"truncation_quantile": None, "starts": 1500, "horizon": 1}


def reported(dynamics, *, mean_reward=-1.0, rate=0.01, high=0.03):
    """The same fit, whose log has other ends and another mean reward."""
    report = dynamics.report
    return dataclasses.replace(
        dynamics,
        report=report.model_copy(
            update={
                "termination": report.termination.model_copy(
                    update={"logged_rate": rate, "logged_rate_high": high}
                ),
                "reward": report.reward.model_copy(update={"mean": mean_reward}),
            }
        ),
    )


def stream(dynamics, **rollout):
    """Imagination that ends wherever s'_0 leaves [-0.5, 0.5], which many steps do."""
    task = TaskSpec(
        name="walled",
        obs_dim=SPACE.obs_dim,
        act_dim=SPACE.act_dim,
        act_low=SPACE.act_low,
        act_high=SPACE.act_high,
        termination=TerminationRule(bounds={0: (-0.5, 0.5)}),
    )
    config = make_config("model_based", rollout=NO_CUT | rollout, real_ratio=0.5, termination="task")
    return RECIPES.get("model_based").build(config, make_context(dynamics, task=task))


def test_false_ends_are_warned_of_once_where_rewards_are_negative(toy):
    training = stream(reported(toy))
    with pytest.warns(
        RuntimeWarning, match=r"end at .*logged ones at 1\.00% .*3\.00%.*a false end looks good"
    ):
        metrics = refresh(training)
    assert float(metrics["rollout/terminated_rate"]) > 0.03
    refresh(training, 1)  # warnings are errors in tests: a second one would fail


@pytest.mark.parametrize(
    ("facts", "rollout"),
    [
        ({"mean_reward": 1.0}, {}),
        ({"high": 1.0}, {}),
        ({}, {"starts": 900}),  # few steps prove nothing
    ],
)
def test_no_warning_where_ends_cost_or_are_as_frequent_as_logged_or_hardly_seen(toy, facts, rollout):
    refresh(stream(reported(toy, **facts), **rollout))


def test_halted_steps_are_no_false_ends(toy):
    rollout = {**NO_CUT, "truncation_quantile": 0.99, "flagged": "halt"}
    training = make_training(reported(toy), "model_based", rollout=rollout)
    assert float(refresh(training)["rollout/terminated_rate"]) > 0.1


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_edge_rate_is_logged_at_every_refresh(toy, horizon):
    metrics = refresh(make_training(toy, rollout={"truncation_quantile": None, "horizon": horizon}))
    assert float(metrics["rollout/edge_rate"]) == pytest.approx(1 / horizon)
