"""Model rollouts `[h, b]` with a `valid` mask (Janner et al. 2019, algorithm 2; Yu et al. 2020, algorithm 2).

All random numbers are drawn first; what follows is a function of tensors. Rows never influence one another,
and the work goes through the model in chunks of about a thousand rows, each through all its steps, so that
activations stay in the cache.
"""

import dataclasses
import math
import warnings
from typing import Annotated, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import NonFiniteError
from mbrl.core.protocols import DynamicsModel, Policy, TerminationFn
from mbrl.core.types import TransitionBatch
from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.measures import Measure, StepContext

MemberChoice: TypeAlias = Literal["per_step", "per_row"]
FlaggedRows: TypeAlias = Literal["keep", "drop", "halt"]
StartStates: TypeAlias = Literal["any", "initial"]
TerminationMode: TypeAlias = Literal["sample", "threshold"]
_MAX_NON_FINITE_SHARE = 1e-3
_CLIP_RATE_TO_WARN_OF = 1e-2


class RolloutConfig(BaseModel):
    """How imagination runs.

    Attributes:
        horizon: h, steps of a rollout.
        starts: B, rollouts of one refresh, each from a uniformly drawn state of the training data.
        start_states: `any` starts from every logged observation, `initial` from the first ones of episodes.
        respect_trusted_horizon: shorten `horizon` to the model's trusted horizon.
        member_choice: `per_step` draws a new elite for each row and step (TS1), `per_row` keeps one (TS-inf).
        truncation_quantile: stop a rollout where the uncertainty exceeds this quantile of it on the data;
            None never stops.
        truncation_divisor: c, that threshold is divided by it: above 1 stops earlier, below 1 later.
        flagged: what becomes of the row that exceeds it: `keep` stores it and stops, `drop` stops before it,
            `halt` stores it as terminated with `halt_reward` (MOReL).
        halt_reward: reward of halted rows, return units, since nothing follows; None is the least value that
            the logged rewards permit, `min(r_min, 0) / (1 - discount)`, so that halting never pays.
        termination: `sample` draws from the predicted probability, `threshold` terminates from 0.5 on.
        clip_to_data: clip imagined observations and rewards to the range of the data; the clip rate is
            logged, and a rate above 1 % in any dimension is warned of.
        chunk: rows that go through the model together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    horizon: Annotated[int, Field(ge=1, le=1000)] = 5
    starts: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    start_states: StartStates = "any"
    respect_trusted_horizon: bool = True
    member_choice: MemberChoice = "per_step"
    truncation_quantile: Annotated[float | None, Field(gt=0, le=1)] = 0.99
    truncation_divisor: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    flagged: FlaggedRows = "keep"
    halt_reward: Annotated[float | None, Field(ge=-1e9, le=1e9)] = None
    termination: TerminationMode = "sample"
    clip_to_data: bool = False
    chunk: Annotated[int, Field(ge=1, le=10_000_000)] = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """Range of the data.

    Attributes:
        obs_low: `[obs_dim]`.
        obs_high: `[obs_dim]`.
        reward_low: `[]`.
        reward_high: `[]`.
    """

    obs_low: Float[Tensor, "obs_dim"]
    obs_high: Float[Tensor, "obs_dim"]
    reward_low: Float[Tensor, ""]
    reward_high: Float[Tensor, ""]

    @classmethod
    def around(cls, transitions: TransitionBatch, *, margin: float = 0.0) -> "Box":
        """Range of logged observations, successors and rewards.

        Args:
            transitions: logged steps.
            margin: by which each side of the observations is moved out, in widths of their range.
        """
        both = torch.cat([transitions.observation, transitions.next_observation])
        low, high = both.amin(0), both.amax(0)
        spare = margin * (high - low)
        return cls(low - spare, high + spare, transitions.reward.min(), transitions.reward.max())

    def clip(
        self, obs: Float[Tensor, "b obs_dim"], reward: Float[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b obs_dim"], Float[Tensor, "b"]]:
        """The nearest point of the box; a NaN stays one."""
        return obs.clamp(self.obs_low, self.obs_high), reward.clamp(self.reward_low, self.reward_high)


@dataclasses.dataclass(frozen=True, slots=True)
class Imagination:
    """Everything that rollouts need besides a policy and start states.

    Attributes:
        model: the dynamics.
        termination: probability of termination.
        measure: uncertainty of a step, or None to imagine without one: each row then goes through one member
            only.
        threshold: uncertainty above which a row is flagged, in the measure's units; inf flags none.
        box: range to clip to, or None.
        reference: the dataset's rows, for measures of density.
    """

    model: DynamicsModel
    termination: TerminationFn
    measure: Measure | None = None
    threshold: float = math.inf
    box: Box | None = None
    reference: DensityReference | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Rollouts:
    """`[h, b]` imagined steps; entries where `valid` is False mean nothing.

    Attributes:
        observation: `[h, b, obs_dim]`.
        action: `[h, b, act_dim]`.
        reward: `[h, b]`, the model's reward, unpenalised.
        uncertainty: `[h, b]`, in the measure's units; 0 without a measure.
        next_observation: `[h, b, obs_dim]`.
        next_action: `[h, b, act_dim]`, the policy's action at `next_observation`; the next step takes it.
        terminated: `[h, b]`.
        truncated: `[h, b]`, the rollout was cut here: at the last step, or by the uncertainty.
        valid: `[h, b]`; no valid step starts from a terminal state or follows a cut.
        flagged: `[h, b]`, steps whose uncertainty exceeded the threshold, stored or not.
        clipped: `[h, b, obs_dim + 1]`, what the box changed: coordinates of s', then the reward.
        non_finite: `[h, b]`, steps that were discarded because the model returned a NaN or an infinity.
    """

    observation: Float[Tensor, "h b obs_dim"]
    action: Float[Tensor, "h b act_dim"]
    reward: Float[Tensor, "h b"]
    uncertainty: Float[Tensor, "h b"]
    next_observation: Float[Tensor, "h b obs_dim"]
    next_action: Float[Tensor, "h b act_dim"]
    terminated: Bool[Tensor, "h b"]
    truncated: Bool[Tensor, "h b"]
    valid: Bool[Tensor, "h b"]
    flagged: Bool[Tensor, "h b"]
    clipped: Bool[Tensor, "h b k"]
    non_finite: Bool[Tensor, "h b"]

    def transitions(self, reward: Float[Tensor, "h b"] | None = None) -> TransitionBatch:
        """The valid steps as one batch, step by step; with other rewards if given (penalised ones)."""
        keep = self.valid
        terminated = self.terminated[keep]
        return TransitionBatch(
            observation=self.observation[keep],
            action=self.action[keep],
            reward=(self.reward if reward is None else reward)[keep],
            next_observation=self.next_observation[keep],
            terminated=terminated,
            from_model=torch.ones_like(terminated),
            next_action=self.next_action[keep],
            has_next_action=torch.ones_like(terminated),
        )


class _Draws(NamedTuple):
    first_action: Tensor  # [1, b, act_dim] normal
    next_action: Tensor  # [h, b, act_dim] normal
    outcome: Tensor  # [h, b, obs_dim + 1] normal
    member: Tensor  # [h, b] int64
    termination: Tensor  # [h, b] uniform

    def rows(self, part: slice) -> "_Draws":
        return _Draws(*(draw[:, part] for draw in self))


class _Outcome(NamedTuple):
    next_observation: Tensor
    reward: Tensor
    uncertainty: Tensor
    is_finite: Tensor
    clipped: Tensor


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
    draws = _draw(imagination.model.ensemble_size, policy.act_dim, start, config, generator)
    parts = [
        _roll_chunk(imagination, policy, start[rows], draws.rows(rows), config)
        for rows in (slice(k, k + config.chunk) for k in range(0, start.shape[0], config.chunk))
    ]
    fields = [field.name for field in dataclasses.fields(Rollouts)]
    rollouts = parts[0]
    if len(parts) > 1:
        rollouts = Rollouts(
            **{name: torch.cat([getattr(part, name) for part in parts], 1) for name in fields}
        )
    _check_finite(rollouts)
    if imagination.box is not None:
        _warn_of_clipping(rollouts)
    return rollouts


def rollout_metrics(rollouts: Rollouts) -> dict[str, Tensor]:
    """Means over the valid steps, how long rollouts lasted, and the share of steps that were flagged.

    The edge rate is the share of valid steps whose successor is met as a bootstrap target only: it neither
    ended the task nor became the start of a stored step (edge-of-reach states, Sims et al. 2024). The clip
    rate is that of the dimension, or of the reward, which the box changed most often.
    """
    valid, flagged = rollouts.valid, rollouts.flagged
    count = valid.sum().clamp_min(1)

    def mean(values: Tensor) -> Tensor:
        return values[valid].double().sum() / count

    return {
        "rollout/length": valid.sum(0).double().mean(),
        "rollout/reward": mean(rollouts.reward),
        "rollout/uncertainty": mean(rollouts.uncertainty),
        "rollout/terminated_rate": mean(rollouts.terminated),
        "rollout/edge_rate": mean(_is_edge(rollouts)),
        "rollout/flagged_rate": flagged.sum().double() / (valid | flagged).sum().clamp_min(1),
        "rollout/clip_rate": _clip_rates(rollouts).amax(),
        "rollout/non_finite": rollouts.non_finite.sum(),
    }


def _is_edge(rollouts: Rollouts) -> Bool[Tensor, "h b"]:
    """Steps whose successor bootstraps without ever being updated."""
    valid = rollouts.valid
    followed = torch.cat([valid[1:], torch.zeros_like(valid[:1])])
    return valid & ~rollouts.terminated & ~followed


def _draw(
    members: int, act_dim: int, start: Tensor, config: RolloutConfig, generator: torch.Generator
) -> _Draws:
    h, (b, obs_dim) = config.horizon, start.shape
    device = start.device
    if config.member_choice == "per_row":
        member = torch.randint(members, (1, b), generator=generator, device=device).expand(h, b)
    else:
        member = torch.randint(members, (h, b), generator=generator, device=device)
    return _Draws(
        first_action=torch.randn(1, b, act_dim, generator=generator, device=device),
        next_action=torch.randn(h, b, act_dim, generator=generator, device=device),
        outcome=torch.randn(h, b, obs_dim + 1, generator=generator, device=device),
        member=member,
        termination=torch.rand(h, b, generator=generator, device=device),
    )


def _roll_chunk(
    imagination: Imagination, policy: Policy, start: Tensor, draws: _Draws, config: RolloutConfig
) -> Rollouts:
    """All steps of some rows. A stopped row stays in place and keeps its last state; `valid` masks it."""
    obs, alive = start, torch.ones(len(start), dtype=torch.bool, device=start.device)
    action = policy.act(start, draws.first_action[0])
    steps: list[tuple[Tensor, ...]] = []
    for t in range(config.horizon):
        outcome = _predict(imagination, obs, action, draws.member[t], draws.outcome[t])
        next_obs, reward, uncertainty, is_finite, clipped = outcome
        next_obs = torch.where(is_finite[:, None], next_obs, obs)
        probability = imagination.termination(obs, action, next_obs)
        level = draws.termination[t] if config.termination == "sample" else probability.new_tensor(0.5)
        terminated = probability >= level if config.termination == "threshold" else probability > level
        flagged = uncertainty > imagination.threshold
        seen = alive & is_finite
        valid = seen & ~flagged if config.flagged == "drop" else seen
        if config.flagged == "halt" and config.halt_reward is not None:
            terminated = terminated | flagged
            reward = torch.where(flagged, torch.full_like(reward, config.halt_reward), reward)
        truncated = ~terminated & (flagged | (t == config.horizon - 1))
        marks = (terminated, truncated, valid, seen & flagged, clipped, alive & ~is_finite)
        next_action = policy.act(next_obs, draws.next_action[t])
        steps.append((obs, action, reward, uncertainty, next_obs, next_action, *marks))
        alive = valid & ~terminated & ~flagged
        obs = torch.where(alive[:, None], next_obs, obs)
        action = torch.where(alive[:, None], next_action, action)
    return Rollouts(*(torch.stack(column) for column in zip(*steps, strict=True)))


def _predict(
    imagination: Imagination, obs: Tensor, action: Tensor, member: Tensor, noise: Tensor
) -> _Outcome:
    """One sampled step of each row from its own member, with the uncertainty of the step."""
    if imagination.measure is None:
        mean, variance, reward_mean, reward_variance = imagination.model.predict_member(obs, action, member)
        posterior = None
    else:
        posterior = imagination.model.predict(obs, action)
        rows = torch.arange(len(obs), device=obs.device)
        mean, variance = posterior.mean[member, rows], posterior.variance[member, rows]
        reward_mean = posterior.reward_mean[member, rows]
        reward_variance = posterior.reward_variance[member, rows]
    next_obs = torch.addcmul(mean, variance.sqrt(), noise[:, :-1])
    reward = torch.addcmul(reward_mean, reward_variance.sqrt(), noise[:, -1])
    uncertainty = torch.zeros_like(reward)
    if imagination.measure is not None and posterior is not None:
        context = StepContext(obs=obs, action=action, reference=imagination.reference, outcome=next_obs)
        uncertainty = imagination.measure(posterior, context)
    # Before clipping, which would make a number of an infinity.
    is_finite = next_obs.isfinite().all(-1) & reward.isfinite() & uncertainty.isfinite()
    if imagination.box is None:
        clipped = is_finite.new_zeros(len(obs), obs.shape[-1] + 1)
        return _Outcome(next_obs, reward, uncertainty, is_finite, clipped)
    inside, reward_inside = imagination.box.clip(next_obs, reward)
    clipped = torch.cat([inside != next_obs, (reward_inside != reward)[:, None]], -1)
    return _Outcome(inside, reward_inside, uncertainty, is_finite, clipped)


def _clip_rates(rollouts: Rollouts) -> Float[Tensor, "k"]:
    """Share of the valid steps that the box changed, for each coordinate of s' and for the reward."""
    counts = (rollouts.clipped & rollouts.valid[..., None]).sum((0, 1))
    return counts.double() / rollouts.valid.sum().clamp_min(1)


def _warn_of_clipping(rollouts: Rollouts) -> None:
    rate, index = _clip_rates(rollouts).max(-1)
    if float(rate) <= _CLIP_RATE_TO_WARN_OF:
        return
    obs_dim = rollouts.observation.shape[-1]
    what = "the reward" if int(index) == obs_dim else f"observation dimension {int(index)}"
    warnings.warn(
        f"{float(rate):.1%} of the imagined steps left the range of the data in {what} and were clipped: the "
        "rollouts leave what the model knows. Remedy: shorten rollout.horizon or raise penalty.coef.",
        RuntimeWarning,
        stacklevel=3,
    )


def _check_finite(rollouts: Rollouts) -> None:
    lost = int(rollouts.non_finite.sum())
    total = int(rollouts.valid.sum()) + lost
    if lost > _MAX_NON_FINITE_SHARE * total:
        raise NonFiniteError(
            f"{lost} of {total} imagined rows are NaN or infinite: the dynamics model blows up under this "
            "policy. Remedy: shorten rollout.horizon, set rollout.clip_to_data=true, or fit the model again."
        )
