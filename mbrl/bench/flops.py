"""Floating-point operations that an update needs, from the shapes of its networks.

A product `[m, k] x [k, n]` costs `2 m k n`; everything that is not a product counts as nothing. What an
algorithm cannot do without is counted, not what an implementation does: a share of the peak computed from it
falls with every needless pass. With F the cost of a forward pass:

- values alone: F;
- training: 3 F less the gradient of the first layer's input, which nobody needs;
- a gradient with respect to the input alone, through frozen parameters (a policy loss through a critic): 2 F.
"""

import dataclasses
import itertools
from collections.abc import Sequence


def forward_flops(rows: int, sizes: Sequence[int], *, members: int = 1) -> float:
    """F, `2 rows members sum_k sizes_k sizes_{k+1}`.

    Args:
        rows: rows that each member reads.
        sizes: widths from the input to the output.
        members: networks side by side.
    """
    return 2.0 * rows * members * sum(a * b for a, b in itertools.pairwise(sizes))


def training_flops(rows: int, sizes: Sequence[int], *, members: int = 1) -> float:
    """Forward pass and gradients of all parameters, `3 F - 2 rows members sizes_0 sizes_1`."""
    return 3 * forward_flops(rows, sizes, members=members) - forward_flops(rows, sizes[:2], members=members)


def input_gradient_flops(rows: int, sizes: Sequence[int], *, members: int = 1) -> float:
    """Forward pass and gradient with respect to the input, `2 F`."""
    return 2 * forward_flops(rows, sizes, members=members)


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerShapes:
    """Networks of a learner, from which its operations are counted.

    Attributes:
        batch: rows of an update.
        obs_dim: size of an observation.
        act_dim: size of an action.
        hidden: widths of the hidden layers of all networks.
        critics: action-value networks.
    """

    batch: int
    obs_dim: int
    act_dim: int
    hidden: tuple[int, ...]
    critics: int = 2

    @property
    def deterministic_actor(self) -> tuple[int, ...]:
        """`s -> a`; also a Gaussian actor whose deviation does not depend on the state."""
        return (self.obs_dim, *self.hidden, self.act_dim)

    @property
    def gaussian_actor(self) -> tuple[int, ...]:
        """`s -> (mean, log deviation)`."""
        return (self.obs_dim, *self.hidden, 2 * self.act_dim)

    @property
    def critic(self) -> tuple[int, ...]:
        """`(s, a) -> Q`."""
        return (self.obs_dim + self.act_dim, *self.hidden, 1)

    @property
    def value(self) -> tuple[int, ...]:
        """`s -> V`."""
        return (self.obs_dim, *self.hidden, 1)

    def actor_critic_target(self, actor: Sequence[int]) -> float:
        """The policy's action at s' and all target critics there."""
        values = forward_flops(self.batch, self.critic, members=self.critics)
        return forward_flops(self.batch, actor) + values

    def critic_training(self) -> float:
        """All critics on the batch."""
        return training_flops(self.batch, self.critic, members=self.critics)

    def policy_training(self, actor: Sequence[int], *, critics: int) -> float:
        """The actor through `critics` frozen critics."""
        through = input_gradient_flops(self.batch, self.critic, members=critics)
        return training_flops(self.batch, actor) + through


def bc_flops(shapes: LearnerShapes) -> float:
    """Cloning: the actor is trained."""
    return training_flops(shapes.batch, shapes.deterministic_actor)


def distil_flops(shapes: LearnerShapes) -> float:
    """Distillation: the critics and their target, the clone, and the policy that is held to it."""
    actor = shapes.gaussian_actor
    critic = shapes.actor_critic_target(actor) + shapes.critic_training()
    return critic + 2 * training_flops(shapes.batch, actor) + forward_flops(shapes.batch, actor)


def iql_flops(shapes: LearnerShapes) -> float:
    """IQL: target critics and V at s, V at s'; V, the critics and the actor are trained.

    The advantage that weights the clone reuses Q and V of the value's loss.
    """
    b = shapes.batch
    at_data = forward_flops(b, shapes.critic, members=shapes.critics) + forward_flops(b, shapes.value)
    value = training_flops(b, shapes.value)
    return at_data + value + shapes.critic_training() + training_flops(b, shapes.deterministic_actor)


def td3_bc_flops(shapes: LearnerShapes) -> float:
    """TD3+BC: the critics at each update, the actor through one critic at every second one."""
    actor = shapes.deterministic_actor
    critic = shapes.actor_critic_target(actor) + shapes.critic_training()
    return critic + shapes.policy_training(actor, critics=1) / 2


def rebrac_flops(shapes: LearnerShapes) -> float:
    """ReBRAC: as TD3+BC, but the actor learns through all critics."""
    actor = shapes.deterministic_actor
    critic = shapes.actor_critic_target(actor) + shapes.critic_training()
    return critic + shapes.policy_training(actor, critics=shapes.critics) / 2


def awac_flops(shapes: LearnerShapes) -> float:
    """AWAC: target and critics; the new critics at the logged and at the policy's action; the clone.

    Drawing the policy's action reuses the clone's pass.
    """
    b, actor = shapes.batch, shapes.deterministic_actor
    critic = shapes.actor_critic_target(actor) + shapes.critic_training()
    advantage = 2 * forward_flops(b, shapes.critic, members=shapes.critics)
    return critic + advantage + training_flops(b, actor)


def bcq_flops(shapes: LearnerShapes, *, candidates: int) -> float:
    """BCQ: the generative model and the critics are trained, the perturbation through one critic.

    The target decodes, perturbs and judges `candidates` actions of each s'. The latent vector has twice as
    many coordinates as an action, and the decoder's gradient goes on into the encoder through its input.
    """
    b, obs, act = shapes.batch, shapes.obs_dim, shapes.act_dim
    latent = 2 * act
    encoder = (obs + act, *shapes.hidden, 2 * latent)
    decoder = (obs + latent, *shapes.hidden, act)
    perturber = (obs + act, *shapes.hidden, act)
    model = training_flops(b, encoder) + 3 * forward_flops(b, decoder)
    proposed = forward_flops(candidates * b, decoder) + forward_flops(candidates * b, perturber)
    judged = forward_flops(candidates * b, shapes.critic, members=shapes.critics)
    perturbation = forward_flops(b, decoder) + shapes.policy_training(perturber, critics=1)
    return model + proposed + judged + shapes.critic_training() + perturbation


def fqe_flops(shapes: LearnerShapes) -> float:
    """One member of fitted Q evaluation: its target at s' and its critic.

    The policy does not change, so its actions at all s' are known before.
    """
    return forward_flops(shapes.batch, shapes.critic) + training_flops(shapes.batch, shapes.critic)


def sac_flops(shapes: LearnerShapes) -> float:
    """SAC: target, critics, and the actor through all critics."""
    actor = shapes.gaussian_actor
    critic = shapes.actor_critic_target(actor) + shapes.critic_training()
    return critic + shapes.policy_training(actor, critics=shapes.critics)


def cql_flops(shapes: LearnerShapes, *, actions: int) -> float:
    """CQL(H): SAC, and all critics trained on three times `actions` sampled actions of each state.

    The samples are drawn uniformly, and from the policy at s and at s': one pass each, whatever their number.
    """
    drawn = 2 * forward_flops(shapes.batch, shapes.gaussian_actor)
    sampled = training_flops(3 * actions * shapes.batch, shapes.critic, members=shapes.critics)
    return sac_flops(shapes) + drawn + sampled


def edac_flops(shapes: LearnerShapes) -> float:
    """EDAC: SAC, and the critics' gradients in the action with their derivative in the parameters.

    The gradient costs 2 F; its derivative passes through both of its products in each layer, another 2 F (a
    ReLU has no second derivative, so nothing flows back through the values).
    """
    return sac_flops(shapes) + 2 * input_gradient_flops(shapes.batch, shapes.critic, members=shapes.critics)
