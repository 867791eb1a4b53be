"""BCQ for continuous actions: Q-learning over actions that a generative model of the log proposes.

Source: Fujimoto et al. 2019 (arXiv:1812.02900).

Departures from the paper and its code:
- observations are standardised inside the networks (the code leaves them raw; switch:
  `normalise_observations`);
- perturbation and reconstruction are measured on actions scaled to [-1, 1] in every dimension;
- the evaluation policy judges the same latents in every state instead of fresh draws: it is deterministic;
- the decoder is not differentiated in the perturbation's step; the code computes that gradient and drops it.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar, Final

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, LearnerState, Optimiser
from mbrl.learners.critics import PolicyValue, regress_critics
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.generative.bcq import BCQ_KIND, LATENT_CLIP, BCQPolicy, BCQSpec
from mbrl.nets.passes import NetworkPass
from mbrl.nets.stack import StackedMLP
from mbrl.nets.widths import Hidden
from mbrl.ops.gaussian import standard_normal_kl
from mbrl.ops.losses import squared_action_error
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import clipped_value, td_target

# exp(15) is far from the overflow of float32; exp(-4) keeps some noise in every latent.
LOG_STD_BOUNDS: Final = (-4.0, 15.0)
"""Of the encoder's output, as in the code of the paper."""


class BCQConfig(LearnerConfig):
    """Batch-constrained Q-learning.

    Attributes:
        hidden: widths of the hidden layers of critics and perturbation.
        vae_hidden: widths of the hidden layers of encoder and decoder.
        latent_dim: size of the latent vector; null is twice the number of action dimensions.
        kl_coef: weight of the KL divergence against the reconstruction error.
        perturbation: Phi of the paper, the largest change of a proposed action, scaled action units.
        minimum_weight: share of the least critic in a value; the rest is the largest critic's.
        target_candidates: proposed actions among which a Bellman target takes the best.
        acting_candidates: proposed actions among which the policy takes the best.
        vae_learning_rate: Adam rate of encoder and decoder.
        perturbation_learning_rate: Adam rate of the perturbation.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online networks that enters the targets at each update.
    """

    hidden: Hidden = (256, 256)
    vae_hidden: Hidden = (256, 256)
    latent_dim: Annotated[int | None, Field(ge=1, le=4096)] = None
    kl_coef: Annotated[float, Field(ge=0, le=1e4)] = 0.5
    perturbation: Annotated[float, Field(ge=0, le=2)] = 0.05
    minimum_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    target_candidates: Annotated[int, Field(ge=1, le=10_000)] = 10
    acting_candidates: Annotated[int, Field(ge=1, le=10_000)] = 100
    vae_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    perturbation_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


@dataclasses.dataclass(slots=True)
class BCQState(LearnerState):
    """Networks and optimisers; the policy holds the decoder, the perturbation and the critics."""

    policy: BCQPolicy
    encoder: StackedMLP
    target_perturber: StackedMLP
    target_critic: CriticEnsemble
    vae_optimiser: Optimiser
    perturber_optimiser: Optimiser
    critic_optimiser: Optimiser


@LEARNERS.register("bcq", "BCQ: the best of actions that a generative model of the log proposes.")
class BCQ:
    """The BCQ learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes and the normaliser.
    """

    Config: ClassVar[type[LearnerConfig]] = BCQConfig

    def __init__(self, config: BCQConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context
        # Twice the dimensions of the action, as in the code of the paper.
        self.latent_dim = config.latent_dim or 2 * context.space.act_dim

    def init(self, generator: torch.Generator) -> BCQState:
        """Fresh networks and optimisers."""
        config, space = self.config, self.context.space
        spec = BCQSpec(
            BCQ_KIND,
            space,
            hidden=config.hidden,
            vae_hidden=config.vae_hidden,
            latent_dim=self.latent_dim,
            perturbation=config.perturbation,
            candidates=config.acting_candidates,
        )
        policy = BCQPolicy(spec, copy.deepcopy(self.context.normaliser), generator)
        encoder = StackedMLP(
            1, space.obs_dim + space.act_dim, config.vae_hidden, 2 * self.latent_dim, generator=generator
        )
        return BCQState(
            policy=policy,
            encoder=encoder,
            # Targets move by averaging alone; without gradients their passes keep no activations.
            target_perturber=copy.deepcopy(policy.perturber).requires_grad_(requires_grad=False),
            target_critic=copy.deepcopy(policy.critic).requires_grad_(requires_grad=False),
            # One Adam for both: the reconstruction error reaches the encoder through the decoder's input.
            vae_optimiser=Optimiser([encoder.flat, policy.decoder.flat], config.vae_learning_rate),
            perturber_optimiser=Optimiser(policy.perturber.flat, config.perturbation_learning_rate),
            critic_optimiser=Optimiser(policy.critic.net.flat, config.critic_learning_rate),
        )

    def update(self, state: BCQState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the generative model, the critics, the perturbation and the targets (algorithm 1)."""
        policy, rows = state.policy, len(batch)
        # Latents of the whole update at once: b for the reconstruction, b for the perturbation, and
        # `target_candidates` for each row of the targets.
        draws = torch.randn(
            rows * (2 + self.config.target_candidates),
            self.latent_dim,
            generator=generator,
            device=generator.device,
        )
        # VAE: (D(s, z) - a)^2 + c KL(E(s, a) || N(0, 1)), z ~ E(s, a)
        vae_loss, vae_metrics = self.vae_loss(state, batch, draws[:rows])
        state.vae_optimiser.descend(vae_loss)
        # Q: (Q_i(s, a) - r - g (1 - terminated) max_j [w min_i + (1 - w) max_i] Q'_i(s', a_j))^2 at
        # proposals a_j = D(s', z_j) + xi'(s', D(s', z_j)), z_j clipped draws of the prior (eq. 13)
        target = self.critic_target(state, batch, draws[2 * rows :])
        metrics = regress_critics(policy.critic, state.critic_optimiser, batch, target)
        # xi: -Q_1(s, a + xi(s, a)), a = D(s, z), with the new Q                                (eq. 12)
        policy_loss = self.perturbation_loss(state, batch, draws[rows : 2 * rows])
        state.perturber_optimiser.descend(policy_loss)
        # Q' and xi' move a step towards Q and xi.
        tau = self.config.polyak_tau
        polyak_update(state.target_critic.net.flat, policy.critic.net.flat, polyak_tau=tau)
        polyak_update(state.target_perturber.flat, policy.perturber.flat, polyak_tau=tau)
        return {**metrics, **vae_metrics, "policy/loss": policy_loss.detach()}

    def policy(self, state: BCQState) -> BCQPolicy:
        """The best of the perturbed proposals."""
        return state.policy

    def value(self, state: BCQState) -> PolicyValue:
        """The same mixture of least and largest critic as in the targets, at the policy's action."""
        return PolicyValue(state.policy, state.policy.critic, self.config.minimum_weight)

    def passes(self, state: BCQState) -> tuple[NetworkPass, ...]:
        """The generative model; a target that judges its proposals; the critics; the perturbation.

        The decoder's gradient goes on into the encoder through its input.
        """
        policy, proposals = state.policy, self.config.target_candidates
        return (
            NetworkPass(state.encoder, "parameters"),
            NetworkPass(policy.decoder, "both"),
            NetworkPass(policy.decoder, rows=proposals),
            NetworkPass(state.target_perturber, rows=proposals),
            NetworkPass(state.target_critic.net, rows=proposals),
            NetworkPass(policy.critic.net, "parameters"),
            NetworkPass(policy.decoder),
            NetworkPass(policy.perturber, "parameters"),
            NetworkPass(policy.critic.net, "input", members=1),
        )

    def vae_loss(
        self, state: BCQState, batch: TransitionBatch, noise: Float[Tensor, "b latent"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """`mean (decode(s, z) - a)^2 + kl_coef mean KL`, means over all axes; z = mean + std * noise."""
        policy = state.policy
        obs_n, action = policy.normaliser(batch.observation), policy.scale(batch.action)
        mean, log_std = state.encoder(torch.cat([obs_n, action], -1))[0].chunk(2, -1)
        # Clamped before exp, which overflows at outputs that an untrained encoder may well give.
        log_std = log_std.clamp(*LOG_STD_BOUNDS)
        # z = mean + std eps: the gradient of the reconstruction goes on into mean and std.
        latent = torch.addcmul(mean, log_std.exp(), noise)
        error = squared_action_error(policy.decode(obs_n, latent), action)
        # A mean over latent dimensions, like that over action
        # dimensions: `kl_coef` then holds for any number.
        divergence = standard_normal_kl(mean, log_std).mean()
        loss = error + self.config.kl_coef * divergence
        return loss, {
            "vae/loss": loss.detach(),
            "vae/reconstruction": error.detach(),
            "vae/divergence": divergence.detach(),
        }

    @torch.no_grad()
    def critic_target(
        self, state: BCQState, batch: TransitionBatch, noise: Float[Tensor, "bk latent"]
    ) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) max_j [w min_i Q_i + (1 - w) max_i Q_i](s', a_j)`, no gradients.

        Args:
            state: the target critics and the target perturbation judge.
            batch: transitions.
            noise: `[b * target_candidates, latent]` standard normal draws, candidates of a row side by side.
        """
        count = self.config.target_candidates
        # [b k] rows, the candidates of a state side by side, which `reshape(-1, count)` finds again below.
        obs = batch.next_observation.repeat_interleave(count, 0)
        obs_n = state.policy.normaliser(obs)
        proposed = self._propose(state, obs_n, noise)
        # The perturbation's target network: the online one follows Q, and the targets would follow it.
        action = state.policy.perturbed(obs_n, proposed, net=state.target_perturber)
        # The mixture first, the maximum over candidates last: where critics disagree a candidate loses.
        values = clipped_value(state.target_critic(obs, action), minimum_weight=self.config.minimum_weight)
        next_value = values.reshape(-1, count).amax(1)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    def perturbation_loss(
        self, state: BCQState, batch: TransitionBatch, noise: Float[Tensor, "b latent"]
    ) -> Float[Tensor, ""]:
        """`-mean Q_1(s, perturbed(a))` over actions that the decoder proposes from `noise`."""
        policy = state.policy
        obs_n = policy.normaliser(batch.observation)
        action = policy.perturbed(obs_n, self._propose(state, obs_n, noise))
        # Only the first critic, as in eq. 12; frozen, since the gradient is wanted in the action alone.
        return -policy.critic(batch.observation, action, frozen=True, first=1).mean()

    @staticmethod
    @torch.no_grad()
    def _propose(
        state: BCQState, obs_n: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b latent"]
    ) -> Float[Tensor, "b act_dim"]:
        """Actions in [-1, 1] that the decoder makes of clipped draws of the prior."""
        # Clipped: latents far out decode to actions that the log hardly holds.
        return state.policy.decode(obs_n, noise.clamp(-LATENT_CLIP, LATENT_CLIP))
