"""Model rollouts `[h, b]` with a `valid` mask (Janner et al. 2019, algorithm 2; Yu et al. 2020, algorithm 2).

All random numbers are drawn first; what follows is a function of tensors. Rows never influence one another,
and the work goes through the model in chunks of about a thousand rows, each through all its steps, so that
activations stay in the cache. Each step of a chunk is three verbs: predict, judge, advance.
"""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.core.protocols import DynamicsModel, Policy, RewardFn, SamplingModel, TerminationFn
from mbrl.core.types import DynamicsPosterior
from mbrl.rollouts.box import Box
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.steps import Rollouts, refuse_non_finite, warn_of_clipping
from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.measures import Measure, StepContext


@dataclasses.dataclass(frozen=True, slots=True)
class Imagination:
    """Everything that rollouts need besides a policy and start states.

    Attributes:
        model: the dynamics.
        termination: probability of termination.
        measure: uncertainty of a step, or None to imagine without one: each row then goes through one member
            only.
        threshold: uncertainty above which a row is flagged, in the measure's units (the guard's, if there is
            one); inf flags none.
        box: range to clip to, or None.
        reference: the dataset's rows, for measures of density.
        guard: what the threshold is held against where that is not `measure`: a penalty may be in other units
            than the thresholds that a fit stored.
        reward: known rule in the place of the model's reward, or None.
    """

    model: DynamicsModel
    termination: TerminationFn
    measure: Measure | None = None
    threshold: float = math.inf
    box: Box | None = None
    reference: DensityReference | None = None
    guard: Measure | None = None
    reward: RewardFn | None = None


@torch.no_grad()
def generate_rollouts(
    imagination: Imagination,
    policy: Policy,
    start: Float[Tensor, "b obs_dim"],
    *,
    config: RolloutConfig,
    generator: torch.Generator,
) -> Rollouts:
    """Rolls `policy` through the model from `start`.

    Args:
        imagination: model, termination, uncertainty.
        policy: acts with noise.
        start: `[b, obs_dim]`, non-terminal states, raw units.
        config: horizon and what to do with flagged rows; what concerns start states and the threshold is the
            caller's, and so is a `halt_reward` of None.
        generator: source of all draws.

    Returns:
        Steps `[horizon, b]`.

    Raises:
        NonFiniteError: more than 0.1 % of the imagined rows are NaN or infinite; fewer are marked invalid.
        ValueError: flagged rows halt at an unknown reward.
    """
    if config.flagged == "halt" and config.halt_reward is None:
        raise ValueError("rollouts alone do not know the logged rewards: give halt_reward a number")
    # For all steps and rows before the first chunk: results do not depend on how rows are chunked.
    draws = _Draws.make(imagination.model.ensemble_size, policy.act_dim, start, config, generator)
    chunks = [slice(k, k + config.chunk) for k in range(0, start.shape[0], config.chunk)]
    rollouts = Rollouts.join(
        [_roll_chunk(imagination, policy, start[rows], draws.rows(rows), config) for rows in chunks]
    )
    refuse_non_finite(rollouts)
    if imagination.box is not None:
        warn_of_clipping(rollouts)
    return rollouts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Draws:
    """The random numbers of all steps; those of a step are at its index, those of a row in its column."""

    first_action: Float[Tensor, "1 b act_dim"]  # normal
    next_action: Float[Tensor, "h b act_dim"]  # normal
    outcome: Float[Tensor, "h b k"]  # normal, of s' and of the reward
    member: Int[Tensor, "h b"]
    termination: Float[Tensor, "h b"]  # uniform

    @classmethod
    def make(
        cls, members: int, act_dim: int, start: Tensor, config: RolloutConfig, generator: torch.Generator
    ) -> "_Draws":
        h, (b, obs_dim) = config.horizon, start.shape
        device = start.device
        # TS1 draws a member for each step, TS-inf one for each rollout (Chua et al. 2018, section 5.2).
        rows = 1 if config.member_choice == "per_row" else h
        member = torch.randint(members, (rows, b), generator=generator, device=device).expand(h, b)
        return cls(
            first_action=torch.randn(1, b, act_dim, generator=generator, device=device),
            next_action=torch.randn(h, b, act_dim, generator=generator, device=device),
            outcome=torch.randn(h, b, obs_dim + 1, generator=generator, device=device),
            member=member,
            termination=torch.rand(h, b, generator=generator, device=device),
        )

    def rows(self, part: slice) -> "_Draws":
        """Those of some rows."""
        names = [field.name for field in dataclasses.fields(self)]
        return _Draws(**{name: getattr(self, name)[:, part] for name in names})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What the model says of one step of each row."""

    next_observation: Float[Tensor, "b obs_dim"]  # s itself where the model returned no number
    reward: Float[Tensor, "b"]
    uncertainty: Float[Tensor, "b"]
    flagged: Bool[Tensor, "b"]  # the uncertainty is beyond the threshold
    is_finite: Bool[Tensor, "b"]
    clipped: Bool[Tensor, "b k"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """How one step of each row ends, and whether it is stored."""

    reward: Float[Tensor, "b"]  # the halt reward where a row halts
    terminated: Bool[Tensor, "b"]
    truncated: Bool[Tensor, "b"]
    valid: Bool[Tensor, "b"]
    flagged: Bool[Tensor, "b"]
    non_finite: Bool[Tensor, "b"]
    goes_on: Bool[Tensor, "b"]


def _roll_chunk(
    imagination: Imagination, policy: Policy, start: Tensor, draws: _Draws, config: RolloutConfig
) -> Rollouts:
    """All steps of some rows. A stopped row stays in place and keeps its last state; `valid` masks it."""
    obs, alive = start, torch.ones(len(start), dtype=torch.bool, device=start.device)
    action = policy.act(start, draws.first_action[0])
    steps: list[dict[str, Tensor]] = []
    for t in range(config.horizon):
        # (s', r) from a drawn member's Gaussian, u(s, a) from all members.
        outcome = _predict(imagination, obs, action, member=draws.member[t], noise=draws.outcome[t])
        next_obs = outcome.next_observation
        # Does the row terminate, halt, get cut, or go on?
        probability = imagination.termination(obs, action, next_obs)
        verdict = _judge(
            outcome,
            terminated=_has_terminated(probability, draws.termination[t], config),
            alive=alive,
            is_last=t == config.horizon - 1,
            config=config,
        )
        # a' ~ pi(s'): the action of the next step, and what some learners compare with.
        next_action = policy.act(next_obs, draws.next_action[t])
        steps.append(_record(obs, action, outcome, verdict=verdict, next_action=next_action))
        # Rows that go on move to s'; the others stay where they are.
        alive = verdict.goes_on
        obs = torch.where(alive[:, None], next_obs, obs)
        action = torch.where(alive[:, None], next_action, action)
    return Rollouts(**{name: torch.stack([step[name] for step in steps]) for name in steps[0]})


def _predict(
    imagination: Imagination, obs: Tensor, action: Tensor, *, member: Tensor, noise: Tensor
) -> _Outcome:
    """One sampled step of each row from its own member, with the uncertainty of the step.

    Without a measure each row goes through its own member only: a fraction of the work.
    """
    model = imagination.model
    if isinstance(model, SamplingModel):
        next_obs, reward = model.draw_member(obs, action, member, noise)
        posterior = None if imagination.measure is None else model.predict(obs, action)
    else:
        posterior, next_obs, reward = _draw_gaussian(imagination, obs, action, member, noise)
    uncertainty = level = torch.zeros_like(reward)
    if imagination.measure is not None and posterior is not None:
        # Before s' is clipped: measures judge what the model said.
        context = StepContext(obs=obs, action=action, reference=imagination.reference, outcome=next_obs)
        uncertainty = level = imagination.measure(posterior, context)
        if imagination.guard is not None:
            level = imagination.guard(posterior, context)
    # Before clipping, which would make a number of an infinity.
    is_finite = next_obs.isfinite().all(-1) & reward.isfinite() & uncertainty.isfinite() & level.isfinite()
    # The termination function, the reward rule and the policy are asked at s' and must not see a NaN.
    next_obs = torch.where(is_finite[:, None], next_obs, obs)
    clipped = is_finite.new_zeros(len(obs), obs.shape[-1] + 1)
    if imagination.box is not None:
        free_obs, free_reward = next_obs, reward
        next_obs, reward = imagination.box.clip(next_obs, reward)
        moved = torch.cat([next_obs != free_obs, (reward != free_reward)[:, None]], -1)
        clipped = moved & imagination.box.varies & is_finite[:, None]
    if imagination.reward is not None:
        # Of the step as it is stored: of the s' that was drawn, and clipped if it was.
        reward = imagination.reward(obs, action, next_obs)
        is_finite &= reward.isfinite()
        clipped[:, -1] = False
    return _Outcome(
        next_observation=next_obs,
        reward=reward,
        uncertainty=uncertainty,
        flagged=level > imagination.threshold,
        is_finite=is_finite,
        clipped=clipped,
    )


def _draw_gaussian(
    imagination: Imagination, obs: Tensor, action: Tensor, member: Tensor, noise: Tensor
) -> tuple[DynamicsPosterior | None, Tensor, Tensor]:
    """What all members believe, where a measure asks, and `s' = mu + sigma * eps` and the reward likewise."""
    if imagination.measure is None:
        posterior = None
        mean, variance, reward_mean, reward_variance = imagination.model.predict_member(obs, action, member)
    else:
        posterior = imagination.model.predict(obs, action)
        rows = torch.arange(len(obs), device=obs.device)
        # Row i from its member: `[e, b, d]` to `[b, d]`.
        mean, variance = posterior.mean[member, rows], posterior.variance[member, rows]
        reward_mean = posterior.reward_mean[member, rows]
        reward_variance = posterior.reward_variance[member, rows]
    next_obs = torch.addcmul(mean, variance.sqrt(), noise[:, :-1])
    return posterior, next_obs, torch.addcmul(reward_mean, reward_variance.sqrt(), noise[:, -1])


def _has_terminated(
    probability: Float[Tensor, "b"], draw: Float[Tensor, "b"], config: RolloutConfig
) -> Bool[Tensor, "b"]:
    """Whether the task ends, by a draw or from a probability of one half on."""
    if config.termination == "sample":
        return probability > draw  # a uniform draw is below 1: a probability of 1 always ends, 0 never does
    return probability >= 0.5


def _judge(
    outcome: _Outcome,
    *,
    terminated: Bool[Tensor, "b"],
    alive: Bool[Tensor, "b"],
    is_last: bool,
    config: RolloutConfig,
) -> _Verdict:
    """What becomes of a step, by `RolloutConfig.flagged`: a flagged step is the last one in every case."""
    seen, flagged = alive & outcome.is_finite, outcome.flagged
    valid, reward = seen, outcome.reward
    if config.flagged == "drop":
        valid = seen & ~flagged
    if config.flagged == "halt" and config.halt_reward is not None:
        # Halting is an end, so that nothing is bootstrapped from the unknown (MOReL, definition 2).
        terminated = terminated | flagged
        reward = torch.where(flagged, torch.full_like(reward, config.halt_reward), reward)
    return _Verdict(
        reward=reward,
        terminated=terminated,
        truncated=~terminated & (flagged | is_last),  # a cut bootstraps, an end does not
        valid=valid,
        flagged=seen & flagged,
        non_finite=alive & ~outcome.is_finite,
        goes_on=valid & ~terminated & ~flagged,
    )


def _record(
    obs: Tensor, action: Tensor, outcome: _Outcome, *, verdict: _Verdict, next_action: Tensor
) -> dict[str, Tensor]:
    """One step of `Rollouts`, by field."""
    return {
        "observation": obs,
        "action": action,
        "reward": verdict.reward,
        "uncertainty": outcome.uncertainty,
        "next_observation": outcome.next_observation,
        "next_action": next_action,
        "terminated": verdict.terminated,
        "truncated": verdict.truncated,
        "valid": verdict.valid,
        "flagged": verdict.flagged,
        "clipped": outcome.clipped,
        "non_finite": verdict.non_finite,
    }
