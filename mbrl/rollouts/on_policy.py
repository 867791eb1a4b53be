"""A policy's own steps with what it takes to learn from them: densities, values, advantages."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy, StateValueFn, StochasticPolicy
from mbrl.core.types import OnPolicyBatch, TransitionBatch
from mbrl.ops.on_policy import generalised_advantage
from mbrl.rollouts.steps import Rollouts


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What is said of steps: by whom, and how far ahead.

    Attributes:
        policy: that took the steps.
        value: of that policy.
        discount: of the advantages.
        trace: lambda of GAE.
    """

    policy: StochasticPolicy
    value: StateValueFn
    discount: float
    trace: float

    @classmethod
    def of(cls, policy: Policy, value: StateValueFn | None, *, discount: float, trace: float) -> "Judgement":
        """The judgement of a learner's policy by its values.

        Raises:
            ConfigError: the policy has no density, or nobody estimates values.
        """
        if value is None or not isinstance(policy, StochasticPolicy):
            lack = "estimates no values" if value is None else "has no density"
            raise ConfigError(f"A learner that {lack} cannot learn on policy. Remedy: use the learner ppo.")
        return cls(policy, value, discount, trace)


@torch.no_grad()
def judge_steps(
    steps: TransitionBatch,
    judgement: Judgement,
    *,
    valid: Bool[Tensor, "h b"],
    continues: Bool[Tensor, "h b"],
) -> OnPolicyBatch:
    """The valid steps with their densities, values and advantages.

    Args:
        steps: `[h, b]`, step after step in each column; entries where `valid` is False mean nothing.
        judgement: policy, values and the horizon of the advantages.
        valid: `[h, b]`, which are kept.
        continues: `[h, b]`, the next row of the column is the next step of the same trajectory.

    Returns:
        `[n]` steps, n the number of valid ones.
    """

    def value(obs: Float[Tensor, "h b obs_dim"]) -> Float[Tensor, "h b"]:
        return judgement.value.value(obs.flatten(0, 1)).view(valid.shape)

    values = value(steps.observation)
    advantage = generalised_advantage(
        steps.reward,
        values,
        # Of the true successor: a step that is cut bootstraps from where it led.
        value(steps.next_observation),
        steps.terminated,
        continues,
        discount=judgement.discount,
        trace=judgement.trace,
    )
    obs, action = steps.observation[valid], steps.action[valid]
    return OnPolicyBatch(
        observation=obs,
        action=action,
        reward=steps.reward[valid],
        next_observation=steps.next_observation[valid],
        terminated=steps.terminated[valid],
        from_model=steps.from_model[valid],
        # By the function that the update calls: at an action that `tanh` has rounded to its bound, the
        # density of the draw would differ, and the first ratio would not be 1.
        log_prob=judgement.policy.log_prob(obs, action),
        advantage=advantage[valid],
        value=values[valid],
    )


def judge_rollouts(rollouts: Rollouts, reward: Float[Tensor, "h b"], judgement: Judgement) -> OnPolicyBatch:
    """The same of imagined steps, at other rewards than the model's (penalised ones)."""
    valid = rollouts.valid
    steps = TransitionBatch(
        rollouts.observation,
        rollouts.action,
        reward,
        rollouts.next_observation,
        rollouts.terminated,
        from_model=torch.ones_like(valid),
    )
    # No valid step follows an end or a cut, so the next valid row of a column goes on where this one led.
    continues = torch.cat([valid[1:], torch.zeros_like(valid[:1])])
    return judge_steps(steps, judgement, valid=valid, continues=continues)
