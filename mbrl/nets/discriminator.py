"""A discriminator of demonstrations whose logit is a reward, and perhaps the shaping of one."""

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.nets.critics import CriticEnsemble, StateValue
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.imitation import interpolate, shaped_reward, unit_gradient_penalty


class Discriminator(nn.Module):
    """`f(s, a, s') = g(s[, a]) + discount h(s') - h(s)`, h only where it is shaped (Fu et al. 2018, eq. 4).

    Args:
        space: sizes and bounds.
        hidden: widths of the hidden layers of g and h.
        normaliser: of observations.
        reads_actions: whether g reads the action; else it is a function of the state alone.
        shaping_discount: of h; None for a discriminator without.
        generator: source of the initial weights.
    """

    def __init__(
        self,
        space: SpaceSpec,
        hidden: Sequence[int],
        normaliser: Normaliser,
        *,
        reads_actions: bool,
        shaping_discount: float | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.reads_actions, self.shaping_discount = reads_actions, shaping_discount
        self.g = CriticEnsemble(1, space, hidden, copy.deepcopy(normaliser), generator=generator)
        self.h = None
        if shaping_discount is not None:
            self.h = StateValue(space, hidden, copy.deepcopy(normaliser), generator=generator)
        if not reads_actions:
            with torch.no_grad():
                # They meet zeros alone, and so stay 0: g is then the same at any action, also for others.
                self.g.net.layers(self.g.net.flat)[0].weight[:, space.obs_dim :] = 0.0

    @property
    def trained(self) -> list[nn.Parameter]:
        """What an optimiser moves."""
        return [self.g.net.flat] if self.h is None else [self.g.net.flat, self.h.net.flat]

    def reward(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """g, in nats; raw units in, differentiable."""
        return self.g(obs, self._scaled(action))[0]

    def shaped(self, rows: TransitionBatch) -> Float[Tensor, "b"]:
        """Shaped reward f of some steps, in nats; g where there is no shaping."""
        reward = self.reward(rows.observation, rows.action)
        if self.h is None or self.shaping_discount is None:
            return reward
        return shaped_reward(
            reward,
            self.h(rows.observation),
            self.h(rows.next_observation),
            rows.terminated,
            discount=self.shaping_discount,
        )

    def gradient_penalty(
        self, first: TransitionBatch, second: TransitionBatch, share: Float[Tensor, "b"]
    ) -> Float[Tensor, ""]:
        """`mean (|grad| - 1)^2` of g, and of h, between rows; in standardised states and scaled actions.

        Args:
            first: `[b]` steps.
            second: `[b]` others.
            share: `[b]`, how far between them, in [0, 1].
        """
        normaliser = self.g.normaliser
        obs = interpolate(normaliser(first.observation), normaliser(second.observation), share)
        action = interpolate(self._scaled(first.action), self._scaled(second.action), share)
        gradient = self.g.net.first_output_gradient(torch.cat([obs, action], -1))[0]
        penalty = unit_gradient_penalty(gradient if self.reads_actions else gradient[:, : obs.shape[-1]])
        if self.h is None:
            return penalty
        return penalty + unit_gradient_penalty(self.h.net.first_output_gradient(obs)[0])

    def _scaled(self, action: Float[Tensor, "b act_dim"]) -> Float[Tensor, "b act_dim"]:
        return self.g.scale(action) if self.reads_actions else torch.zeros_like(action)
