"""What a planner plans in: an imagined step, a prior policy, values at leaves, and the cost of uncertainty.

Actions are scaled to [-1, 1] per dimension, or are one-hot vectors of a discrete action; the step function
maps them to the task's units. Observations are in raw units.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.core.types import DynamicsPosterior

Clock: TypeAlias = Callable[[], float]
"""Seconds of a monotonic clock; planners never read one by themselves."""


_ROUNDING: Final = 1e-6
"""By which a share or a cost may exceed its limit: sums of float32."""


_STEP_SHARE: Final = 1e-5
"""Of an excess for each step that breaks a constraint: less than one future more, in a hundred steps."""


class StepOut(NamedTuple):
    """One imagined step of `r` rows; with all members asked, a leading axis `e` but for the uncertainty."""

    next_observation: Float[Tensor, "*e r obs_dim"]
    reward: Float[Tensor, "*e r"]  # raw, unpenalised
    terminated: Bool[Tensor, "*e r"]
    uncertainty: Float[Tensor, "r"]  # of all members together, reward units; 0 where nothing is penalised
    broken: Float[Tensor, "*e r"] | None = None  # 1 where the step breaks the constraint; None without one
    cost: Float[Tensor, "*e r"] | None = None  # cost units; None where steps cost nothing


def mean_step(out: StepOut) -> StepOut:
    """The mean over members: it ends where more than half of them end, and breaks a constraint in a share."""
    share = out.terminated.to(out.reward.dtype).mean(0)
    broken, cost = (None if part is None else part.mean(0) for part in (out.broken, out.cost))
    following, reward = out.next_observation.mean(0), out.reward.mean(0)
    return StepOut(following, reward, share > 0.5, out.uncertainty, broken, cost)


@runtime_checkable
class StepFn(Protocol):
    """One step in the model."""

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        ...

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        *,
        member: Int[Tensor, "r"] | None = None,
        noise: Float[Tensor, "r outcome"] | None = None,
    ) -> StepOut:
        """Steps.

        Args:
            obs: `[r, obs_dim]`, raw units.
            action: `[r, act_dim]`, in [-1, 1] or one-hot.
            member: `[r]`, the member of each row; None asks every member and adds the axis `e`.
            noise: `[r, obs_dim + 1]` standard normal draws for s' and r; None takes the means.
        """
        ...


@runtime_checkable
class UncertaintyFn(Protocol):
    """How unsure the members together are of a step."""

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        posterior: DynamicsPosterior,
    ) -> Float[Tensor, "r"]:
        """u, reward units, >= 0; `action` in environment units."""
        ...


@runtime_checkable
class Prior(Protocol):
    """A policy in the planner's units that proposes actions."""

    @property
    def act_dim(self) -> int:
        """Size of an action; the number of actions where they are one-hot."""
        ...

    @property
    def is_discrete(self) -> bool:
        """Whether actions are one-hot vectors."""
        ...

    def act(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "r act_dim"] | None = None
    ) -> Float[Tensor, "r act_dim"]:
        """The mode, or a draw."""
        ...

    def sample(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "k r act_dim"], *, spread: float = 1.0
    ) -> Float[Tensor, "k r act_dim"]:
        """Draws; `spread` multiplies the deviation (a flattened policy). Continuous actions only."""
        ...

    def logits(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "r act_dim"]:
        """Log-probabilities up to a constant. Discrete actions only."""
        ...


@runtime_checkable
class LeafValue(Protocol):
    """Critics `c` of the prior, return units."""

    def value(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "c r"]:
        """V of the prior in each critic's opinion."""
        ...

    def action_value(
        self, obs: Float[Tensor, "r obs_dim"], action: Float[Tensor, "r act_dim"]
    ) -> Float[Tensor, "c r"]:
        """Q of an action, in [-1, 1] or one-hot."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Pessimism:
    """What uncertainty costs; every coefficient at 0 and no threshold is the plain planner, bit for bit.

    Attributes:
        penalty_coef: lambda, rewards become `r - lambda u`.
        lcb_coef: kappa, deviations over members of a return that are subtracted from their mean.
        critic_lcb_coef: kappa_c, deviations over critics that are subtracted from a leaf's mean value.
        halt_threshold: u_max, an edge with more uncertainty ends; inf halts nothing.
        halt_loss: an edge that halts is worth `-halt_loss`, return units, >= 0.
        soft_horizon_coef: eta, trust `omega = exp(-eta u / u_mean)` of an edge; the rest goes to the critic.
        uncertainty_mean: mean of u on held-out rows, reward units, > 0.
    """

    penalty_coef: float = 0.0
    lcb_coef: float = 0.0
    critic_lcb_coef: float = 0.0
    halt_threshold: float = math.inf
    halt_loss: float = 0.0
    soft_horizon_coef: float = 0.0
    uncertainty_mean: float = 1.0

    @property
    def reads_uncertainty(self) -> bool:
        """Whether any lever depends on u; if not, a step need not compute it."""
        # kappa is not among them: it reads returns of members.
        return self.penalty_coef != 0.0 or math.isfinite(self.halt_threshold) or self.soft_horizon_coef != 0.0

    def leaf(self, values: Float[Tensor, "c r"]) -> Float[Tensor, "r"]:
        """`mean_j V_j - kappa_c std_j V_j`, population deviation."""
        mean = values.mean(0)
        # Without a coefficient nothing is subtracted, so that the plain planner is the same bit for bit.
        if self.critic_lcb_coef == 0.0 or len(values) == 1 or values.shape[1] == 0:
            return mean
        return mean - self.critic_lcb_coef * values.std(0, correction=0)


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a plan has to keep to.

    Attributes:
        share: of its futures in which a plan may break the constraint, in [0, 1).
        cost: most that its steps may cost, undiscounted, mean over futures; inf for no limit.
    """

    share: float = 0.0
    cost: float = math.inf

    def excess(
        self, violation: Float[Tensor, "*n"], cost: Float[Tensor, "*n"], steps: Float[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """How far a plan is beyond the limits: 0 within them; shares, and costs in units of their limit.

        Of plans that break the constraint in as many futures, one that breaks it in fewer steps exceeds it
        less: a search that begins beyond a limit sees from this where the way back lies.

        Args:
            violation: share of futures that break the constraint.
            cost: of the plan; what is not finite counts as 0, since such a plan is refused for its value.
            steps: that break the constraint, mean over futures.
        """
        broken = (violation.nan_to_num() - self.share - _ROUNDING).clamp_min(0.0)
        broken = torch.where(broken > 0.0, broken + _STEP_SHARE * steps.nan_to_num(), broken)
        if not math.isfinite(self.cost):
            return broken
        dear = (cost.nan_to_num() - self.cost - _ROUNDING).clamp_min(0.0) / max(abs(self.cost), 1.0)
        return broken + dear


class Edge(NamedTuple):
    """What a step is worth by parts: `Q = reward - penalty + mixed + discount * V(child)`; shapes alike."""

    reward: Tensor  # raw
    penalty: Tensor  # lambda u; where it halts, the reward and the loss
    discount: Tensor  # gamma (1 - ended) omega
    mixed: Tensor  # gamma (1 - ended) (1 - omega) V, the critic's share; 0 without a soft horizon
    ended: Tensor  # terminated or halted


def discounted_steps(discount: float, steps: int | None) -> float:
    """`sum_t discount^t` over the steps that remain: how much a reward of 1 at each of them is worth.

    Args:
        discount: in [0, 1].
        steps: that remain at most; None for endless ones.

    Raises:
        ValueError: endless steps at discount 1.
    """
    if steps is None and discount >= 1.0:
        raise ValueError("halting at discount 1 needs the number of steps that remain")
    if steps is None:
        return 1.0 / (1.0 - discount)
    return float(steps) if discount == 1.0 else (1.0 - discount**steps) / (1.0 - discount)


def has_ended(out: StepOut, pessimism: Pessimism) -> Bool[Tensor, "*e r"]:
    """Whether nothing follows a step: it terminated, or it was too uncertain to go on."""
    return out.terminated | (out.uncertainty > pessimism.halt_threshold)


def pessimistic_edge(
    out: StepOut, next_value: Float[Tensor, "*e r"], *, discount: float, pessimism: Pessimism
) -> Edge:
    """What a step is worth by parts, its uncertainty charged for.

    A step that halts is worth `-halt_loss`, whatever the model says of its reward and of the task's end: what
    is not known must not attract. The penalty takes the reward back, so that parts stay raw.

    Args:
        out: the step.
        next_value: V(s') of the pessimistic critic; read by the soft horizon only.
        discount: gamma.
        pessimism: coefficients.
    """
    # One u for all members of a step: it is their disagreement.
    uncertainty = out.uncertainty.expand_as(out.reward)
    ended, halted = has_ended(out, pessimism), uncertainty > pessimism.halt_threshold
    # lambda u (MOPO, Yu et al. 2020, eq. 7), or what takes a halting step down to -halt_loss (MOReL).
    penalty = torch.where(halted, out.reward + pessimism.halt_loss, pessimism.penalty_coef * uncertainty)
    # 0 beyond an end: the child's value, whatever it is, does not count.
    alive = discount * (~ended).to(out.reward.dtype)
    if pessimism.soft_horizon_coef == 0.0:
        return Edge(out.reward, penalty, alive, torch.zeros_like(alive), ended)
    # omega = exp(-eta u / u_mean): that share of the future is the model's, the rest the critic's.
    trust = torch.exp(-pessimism.soft_horizon_coef / pessimism.uncertainty_mean * uncertainty)
    # The distrusted share goes to the critic. To shrink the
    # discount alone would make bad futures look better.
    return Edge(out.reward, penalty, alive * trust, alive * (1.0 - trust) * next_value, ended)


@dataclasses.dataclass(frozen=True, slots=True)
class PlanningProblem:
    """Everything that planning needs but a state and a budget.

    Attributes:
        step: the model.
        prior: proposes actions; its mode is the fallback.
        leaf: values at leaves.
        obs_dim: size of an observation.
        discount: gamma, in [0, 1].
        pessimism: what uncertainty costs.
        value_scale: spread of the returns of the data, return units, > 0; differences far below it are noise.
        dtype: of all computation.
        clone: the behaviour's policy, which may propose actions besides; None for none.
        action_spread: `[act_dim]` or `[]`, deviation of logged actions from the prior's, half-range units:
            how far from the policy the log can tell.
        limits: what plans have to keep to; None for nothing.
    """

    step: StepFn
    prior: Prior
    leaf: LeafValue
    obs_dim: int
    discount: float
    pessimism: Pessimism = dataclasses.field(default_factory=Pessimism)
    value_scale: float = 1.0
    dtype: torch.dtype = torch.float32
    clone: Prior | None = None
    action_spread: Float[Tensor, "*act_dim"] = dataclasses.field(default_factory=lambda: torch.tensor(0.2))
    limits: Limits | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"the discount must lie in [0, 1], not at {self.discount}")

    def leaf_value(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "r"]:
        """The pessimistic critic's V(s)."""
        return self.pessimism.leaf(self.leaf.value(obs))
