"""What the estimators need to know of a policy: its kind, its draws, its densities."""

import dataclasses
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.core.errors import DataError, UndefinedRatioError
from mbrl.core.protocols import DiscretePolicy, Policy, StochasticPolicy
from mbrl.ops.gaussian import standard_normal_cdf

CHUNK: Final = 8192
"""Rows that go through a policy together."""

_SHOWN: Final = 6  # probabilities that a message shows


_NO_DENSITY = (
    "The policy is deterministic: no density ratio to the policy that acted exists. Remedy: look at fqe, dm, "
    "drl, mwl and model_value, which need none, or at kernel, which smooths it"
)


@dataclasses.dataclass(frozen=True, slots=True)
class DeterministicMode:
    """A policy as it is deployed: its evaluation action, never a draw. It has no density.

    Attributes:
        policy: whose evaluation action it takes.
    """

    policy: Policy

    @property
    def act_dim(self) -> int:
        """Size of an action."""
        return self.policy.act_dim

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """The evaluation action; noise is ignored."""
        del noise
        return self.policy.act(obs)


@dataclasses.dataclass(frozen=True, slots=True)
class GreedyMode:
    """A policy over finitely many actions as it is deployed: its evaluation action has probability 1.

    Attributes:
        policy: whose evaluation action it takes.
    """

    policy: DiscretePolicy

    @property
    def act_dim(self) -> int:
        """Number of the actions."""
        return self.policy.act_dim

    def probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """1 for the evaluation action, 0 for the others."""
        return self.act(obs, None, mask)

    def act(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b act_dim"] | None = None,
        mask: Bool[Tensor, "b act_dim"] | None = None,
    ) -> Float[Tensor, "b act_dim"]:
        """The evaluation action; noise is ignored. Whoever knows no mask is asked without one."""
        del noise
        return self.policy.act(obs) if mask is None else self.policy.act(obs, None, mask)


def as_deployed(policy: Policy) -> Policy:
    """The policy by its evaluation action alone: one without a density, but for finitely many actions."""
    return GreedyMode(policy) if isinstance(policy, DiscretePolicy) else DeterministicMode(policy)


def is_stochastic(policy: Policy) -> bool:
    """Whether the policy has a density."""
    return isinstance(policy, (StochasticPolicy, DiscretePolicy))


def require_density(policy: Policy) -> None:
    """Refuses a policy without a density.

    Raises:
        UndefinedRatioError: the policy is deterministic.
    """
    if not is_stochastic(policy):
        raise UndefinedRatioError(_why_no_density(policy))


@torch.no_grad()
def action_log_prob(
    policy: Policy,
    obs: Float[Tensor, "n obs_dim"],
    action: Float[Tensor, "n act_dim"],
    mask: Bool[Tensor, "n act_dim"] | None = None,
) -> Float[Tensor, "n"]:
    """Log-density of logged actions, float64; probabilities of the chosen action for a discrete policy.

    Args:
        policy: whose.
        obs: `[n, obs_dim]`, raw units.
        action: `[n, act_dim]`, environment units.
        mask: `[n, act_dim]` choices that were allowed, for a policy over finitely many; None for all.

    Raises:
        UndefinedRatioError: the policy is deterministic.
        DataError: what a policy over finitely many actions returns are no probabilities.
    """
    if isinstance(policy, DiscretePolicy):
        return torch.log((_checked_probabilities(policy, obs, mask) * action.double()).sum(-1))
    if isinstance(policy, StochasticPolicy):
        return torch.cat([policy.log_prob(o, a).double() for o, a in _chunks(obs, action)])
    raise UndefinedRatioError(_why_no_density(policy))


@torch.no_grad()
def evaluation_actions(policy: Policy, obs: Float[Tensor, "n obs_dim"]) -> Float[Tensor, "n act_dim"]:
    """What the policy does without noise, environment units."""
    return torch.cat([policy.act(part) for (part,) in _chunks(obs)])


@torch.no_grad()
def draw_actions(
    policy: Policy, obs: Float[Tensor, "n obs_dim"], *, count: int, generator: torch.Generator
) -> Float[Tensor, "k n act_dim"]:
    """`count` actions for each observation, environment units; one where the policy is deterministic."""
    if not isinstance(policy, StochasticPolicy):
        return evaluation_actions(policy, obs)[None]
    parts: list[Tensor] = []
    for (part,) in _chunks(obs):
        noise = torch.randn(count, part.shape[0], policy.act_dim, generator=generator, device=obs.device)
        parts.append(policy.sample(part, count, noise))
    return torch.cat(parts, 1)


@torch.no_grad()
def act_with(
    policy: Policy, obs: Float[Tensor, "n obs_dim"], noise: Float[Tensor, "n act_dim"]
) -> Float[Tensor, "n act_dim"]:
    """One action for each observation as a function of its own noise: equal noise gives equal draws.

    A policy with a density draws by reparameterisation, one over finitely many actions by inversion of its
    distribution function, and a deterministic one takes its evaluation action.

    Args:
        policy: acts.
        obs: `[n, obs_dim]`, raw units.
        noise: `[n, act_dim]` standard normal draws.
    """
    if isinstance(policy, DiscretePolicy):
        # Inversion: the first action whose cumulative probability reaches u = Phi(noise).
        probabilities = policy.probs(obs).double()
        uniform = standard_normal_cdf(noise[:, :1])
        index = (uniform > probabilities.cumsum(-1)).sum(-1).clamp_max(policy.act_dim - 1)
        return torch.nn.functional.one_hot(index, policy.act_dim).to(obs.dtype)
    return policy.act(obs, noise if isinstance(policy, StochasticPolicy) else None)


@torch.no_grad()
def action_probabilities(
    policy: DiscretePolicy, obs: Float[Tensor, "n obs_dim"], mask: Bool[Tensor, "n a"] | None = None
) -> Float[Tensor, "n a"]:
    """Probabilities of every action, among those that are allowed.

    Raises:
        DataError: a row does not sum to 1 within 1e-6, or leaves [0, 1].
    """
    return _checked_probabilities(policy, obs, mask).float()


def _checked_probabilities(policy: DiscretePolicy, obs: Tensor, mask: Tensor | None) -> Tensor:
    """`[n, a]`, float64."""
    if mask is None:  # a policy that knows no masks takes one argument
        rows = torch.cat([policy.probs(part).double() for (part,) in _chunks(obs)])
    else:
        rows = torch.cat([policy.probs(part, allowed).double() for part, allowed in _chunks(obs, mask)])
    # Written so that a NaN is bad.
    bad = ~(((rows.sum(-1) - 1).abs() <= 1e-6) & (rows >= 0).all(-1))
    if bool(bad.any()):
        row = int(bad.nonzero()[0, 0])
        found = ", ".join(f"{float(value):.3g}" for value in rows[row][:_SHOWN])
        raise DataError(
            f"{found}{', ...' if rows.shape[1] > _SHOWN else ''} sum to {float(rows[row].sum()):.6g} and are "
            "no probabilities",
            field="probabilities of the policy",
            row=row,
            remedy="Return a softmax over all actions, not logits or a part of them.",
        )
    return rows


def _why_no_density(policy: Policy) -> str:
    """What serves in place of ratios; draws are offered where the policy has some."""
    has_draws = isinstance(policy, DeterministicMode) and is_stochastic(policy.policy)
    return f"{_NO_DENSITY}{'; or evaluate its draws (--stochastic)' if has_draws else ''}."


def _chunks(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    starts = range(0, tensors[0].shape[0], CHUNK)
    return [tuple(tensor[start : start + CHUNK] for tensor in tensors) for start in starts]
