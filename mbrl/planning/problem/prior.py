"""A policy as what proposes actions: in [-1, 1], or one-hot vectors."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DiscretePolicy, Policy, StochasticPolicy
from mbrl.core.types import SpaceSpec
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.problem import Prior


class PolicyPrior:
    """A policy over a box as a `Prior`: actions in [-1, 1].

    Draws of a policy with a density are its own; `spread` multiplies its noise, so its deviation before it
    is squashed or clipped. A policy without a density proposes `clip(pi(s) + proposal_std spread eps)`.

    Args:
        policy: acts in environment units.
        box: of the task's actions.
        proposal_std: deviation of proposals, half-range units, for policies without a density.
    """

    def __init__(self, policy: Policy, box: ActionBox, *, proposal_std: float = 0.2) -> None:
        self.policy, self.box, self.proposal_std = policy, box, proposal_std

    @property
    def act_dim(self) -> int:
        """Size of an action."""
        return self.policy.act_dim

    @property
    def is_discrete(self) -> bool:
        """False."""
        return False

    def act(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "r act_dim"] | None = None
    ) -> Float[Tensor, "r act_dim"]:
        """The mode, or a draw."""
        if noise is None:
            return self._scaled(self.policy.act(obs))
        return self.sample(obs, noise[None])[0]

    def sample(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "k r act_dim"], *, spread: float = 1.0
    ) -> Float[Tensor, "k r act_dim"]:
        """`k` draws for each observation."""
        if isinstance(self.policy, StochasticPolicy):
            # More noise widens the policy's own distribution, before it is squashed or clipped.
            return self._scaled(self.policy.sample(obs, len(noise), noise * spread))
        mode = self._scaled(self.policy.act(obs))
        # A policy without a density has no width of its own: proposals need one to differ.
        return torch.add(mode, noise, alpha=self.proposal_std * spread).clamp(-1.0, 1.0)

    def logits(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "r act_dim"]:
        """Refused.

        Raises:
            ConfigError: always: a box has no list of actions.
        """
        del obs
        raise ConfigError(
            "A policy over a box of actions has no logits: use a planner for continuous actions."
        )

    def _scaled(self, action: Tensor) -> Tensor:
        # Rounding, or a policy that leaves its box.
        return self.box.scale(action).clamp(-1.0, 1.0)


class DiscretePrior:
    """A policy over finitely many actions as a `Prior`: one-hot vectors.

    Args:
        policy: knows its probabilities.
    """

    def __init__(self, policy: DiscretePolicy) -> None:
        self.policy = policy

    @property
    def act_dim(self) -> int:
        """Number of actions."""
        return self.policy.act_dim

    @property
    def is_discrete(self) -> bool:
        """True."""
        return True

    def act(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "r act_dim"] | None = None
    ) -> Float[Tensor, "r act_dim"]:
        """The policy's own action, or a draw of it."""
        return self.policy.act(obs, noise)

    def sample(
        self, obs: Float[Tensor, "r obs_dim"], noise: Float[Tensor, "k r act_dim"], *, spread: float = 1.0
    ) -> Float[Tensor, "k r act_dim"]:
        """Refused.

        Raises:
            ConfigError: always: planners of discrete actions read `logits`.
        """
        del obs, noise, spread
        raise ConfigError(
            "A policy over finitely many actions is not sampled: use a planner for discrete ones."
        )

    def logits(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "r act_dim"]:
        """`log pi(a|s)`, finite: a probability of 0 becomes the least positive number."""
        probs = self.policy.probs(obs)
        # log 0 = -inf would make NaN of softmax differences.
        return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def make_prior(policy: Policy, space: SpaceSpec, *, proposal_std: float = 0.2) -> Prior:
    """A policy of either kind as what proposes actions."""
    if isinstance(policy, DiscretePolicy):
        return DiscretePrior(policy)
    return PolicyPrior(policy, ActionBox(space), proposal_std=proposal_std)


@torch.no_grad()
def measure_action_spread(
    prior: Prior, obs: Float[Tensor, "n obs_dim"], action: Float[Tensor, "n act_dim"]
) -> Float[Tensor, "act_dim"]:
    """`sqrt(mean (a - mode(s))^2)` of logged actions, each dimension for itself.

    How far from the policy the log still tells what happens.

    Args:
        prior: whose mode acts.
        obs: logged states, at least one.
        action: logged actions, in [-1, 1].
    """
    # Around the policy, not around the mean action: it measures how far plans may deviate and still be known.
    return (action - prior.act(obs)).square().mean(0).sqrt()
