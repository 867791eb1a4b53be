"""The policy's own action where there is no time to think."""

import torch

from mbrl.planning.base import SOURCES
from mbrl.planning.fallback import act_by_policy
from mbrl.planning.problem.problem import Pessimism
from tests.planning.tasks import DOUBLE, BoxStep, box_problem


def test_the_mode_within_the_box_is_worth_what_the_pessimistic_critic_says():
    problem = box_problem(pessimism=Pessimism(critic_lcb_coef=1.0))
    obs = torch.tensor([[0.1, 0.2, -0.1], [30.0, -40.0, 20.0]], dtype=DOUBLE)
    result = act_by_policy(problem, obs, milliseconds=7.0)
    mode = problem.prior.act(obs)
    assert float(mode.abs().max()) > 1.0
    assert torch.equal(result.action, mode.clamp(-1.0, 1.0))
    size = obs.square().sum(1)
    assert torch.allclose(result.value, -2.25 * size - 0.25 * size)  # critics -2 |s|^2 and -2.5 |s|^2
    assert torch.equal(result.value, result.bootstrap_part)
    assert torch.equal(result.value, result.value_lcb)
    assert bool(result.delta_lcb.isnan().all())  # nothing was compared
    assert result.plan.tolist() == result.action[:, None].tolist()
    assert (result.plan_length.tolist(), result.weights.tolist()) == ([1, 1], [[1.0], [1.0]])
    assert {SOURCES[k] for k in result.provenance.flatten().tolist()} == {"policy"}
    assert isinstance(problem.step, BoxStep)
    assert problem.step.actions == []  # no step is imagined
    stats = result.stats
    assert (stats.sims, stats.model_calls, stats.milliseconds, stats.is_deadline_hit) == (0, 0, 7.0, True)
    assert stats.is_fallback.tolist() == [True, True]
