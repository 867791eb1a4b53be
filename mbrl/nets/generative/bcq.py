"""The policy of BCQ: likely actions of the log, slightly perturbed, the best of them by a critic."""

import copy
import dataclasses
import math
from typing import Final, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork, PolicySpec
from mbrl.nets.stack import StackedMLP
from mbrl.nets.widths import Candidates, LatentDim, Layers, Perturbation

BCQKind: TypeAlias = Literal["bcq"]
BCQ_KIND: Final[BCQKind] = "bcq"

LATENT_CLIP: Final = 0.5
"""Latents are clipped to +-this when actions are made from draws of the prior."""

_CHUNK_ROWS: Final = 4096
"""Candidates judged at once when acting: the memory of a pass does not grow with the batch."""

_CANDIDATE_SEED: Final = 0


@dataclasses.dataclass(frozen=True, slots=True)
class BCQSpec(PolicySpec):
    """Everything but the weights.

    Attributes:
        kind: `bcq`.
        space: sizes and bounds.
        hidden: widths of the hidden layers of critics and perturbation.
        vae_hidden: widths of the hidden layers of the decoder.
        latent_dim: size of a latent vector.
        perturbation: largest change of a decoded action, scaled action units.
        candidates: actions among which the policy chooses.
    """

    kind: BCQKind
    hidden: Layers
    vae_hidden: Layers
    latent_dim: LatentDim
    perturbation: Perturbation
    candidates: Candidates


class BCQPolicy(PolicyNetwork):
    """`argmax_j Q_1(s, a_j)` over `a_j = decode(s, z_j) + perturbation` (Fujimoto et al. 2019).

    The latents `z_j` of the deterministic action are the same for every observation: clipped normal
    quantiles of fixed points in the unit cube, which are stored with the weights. Noise shifts all points,
    modulo 1, by its normal distribution function (a Cranley-Patterson rotation): each candidate is then a
    draw of the clipped prior in every latent dimension, and the action a function of the noise alone.

    Args:
        spec: sizes.
        normaliser: of observations.
        generator: source of the initial weights.
    """

    spec: BCQSpec
    candidate_points: Tensor

    def __init__(self, spec: BCQSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator.device)
        obs_dim, act_dim = spec.space.obs_dim, spec.space.act_dim
        self.decoder = StackedMLP(1, obs_dim + spec.latent_dim, spec.vae_hidden, act_dim, generator=generator)
        self.perturber = StackedMLP(1, obs_dim + act_dim, spec.hidden, act_dim, generator=generator)
        self.critic = CriticEnsemble(
            2, spec.space, spec.hidden, copy.deepcopy(normaliser), generator=generator
        )
        # A seed of its own: which candidates a policy judges does not change with the draws of its weights.
        # Drawn on the host: a card has the same candidates.
        draws = torch.Generator().manual_seed(_CANDIDATE_SEED)
        points = torch.rand(spec.candidates, spec.latent_dim, generator=draws)
        # Stored with the weights: a generator of another version would make another policy of them.
        self.register_buffer("candidate_points", points.to(generator.device))

    @classmethod
    def tensor_shapes(cls, spec: BCQSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        obs_dim, act_dim = spec.space.obs_dim, spec.space.act_dim
        critic = CriticEnsemble.tensor_shapes(2, spec.space, spec.hidden)
        return {
            **super().tensor_shapes(spec),
            "decoder.flat": StackedMLP.flat_shape(1, obs_dim + spec.latent_dim, spec.vae_hidden, act_dim),
            "perturber.flat": StackedMLP.flat_shape(1, obs_dim + act_dim, spec.hidden, act_dim),
            **{f"critic.{name}": shape for name, shape in critic.items()},
            "candidate_points": (spec.candidates, spec.latent_dim),
        }

    def decode(
        self, obs_n: Float[Tensor, "b obs_dim"], latent: Float[Tensor, "b latent"]
    ) -> Float[Tensor, "b act_dim"]:
        """The action in [-1, 1] that a latent vector stands for; `obs_n` is normalised."""
        # tanh keeps proposals in the box, like the logged actions that they imitate.
        return torch.tanh(self.decoder(torch.cat([obs_n, latent], -1))[0])

    def perturbed(
        self,
        obs_n: Float[Tensor, "b obs_dim"],
        scaled_action: Float[Tensor, "b act_dim"],
        *,
        net: StackedMLP | None = None,
    ) -> Float[Tensor, "b act_dim"]:
        """`clip(a + perturbation * tanh(xi(s, a)), +-1)`, xi the `net` if it is given (a target network)."""
        shift = (self.perturber if net is None else net)(torch.cat([obs_n, scaled_action], -1))[0]
        # Clipped: a perturbed action at a bound would leave the box, where the critic was never trained.
        return torch.clamp(scaled_action + self.spec.perturbation * torch.tanh(shift), -1.0, 1.0)

    def latents(self, noise: Float[Tensor, "b act_dim"] | None, rows: int) -> Float[Tensor, "b k latent"]:
        """Latent vectors of the candidates of `rows` observations; dimensions share a coordinate of noise."""
        points = self.candidate_points
        if noise is None:
            return _clipped_quantile(points).expand(rows, *points.shape)
        # Ceiling division: a latent has more coordinates than the noise of an action, which is repeated.
        repeats = -(-points.shape[1] // noise.shape[1])
        shift = (0.5 * (1 + torch.erf(noise / math.sqrt(2)))).repeat(1, repeats)[:, None, : points.shape[1]]
        # A uniform shift modulo 1 makes every point uniform, whatever it was (Cranley & Patterson 1976).
        return _clipped_quantile(torch.frac(points + shift))

    @torch.no_grad()
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """The best candidate by the first critic; noise moves the candidates, not the chosen action."""
        # Whole states in a chunk: the best candidate is chosen within a state.
        rows = max(1, _CHUNK_ROWS // self.spec.candidates)
        starts = range(0, len(obs), rows)
        parts = [
            self._best(obs[k : k + rows], None if noise is None else noise[k : k + rows]) for k in starts
        ]
        return self.unscale(torch.cat(parts) if parts else obs.new_empty(0, self.act_dim))

    def _best(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None
    ) -> Float[Tensor, "b act_dim"]:
        count = self.spec.candidates
        latent = self.latents(noise, len(obs)).flatten(0, 1)
        # [b k] rows, candidates of a state side by side.
        obs = obs.repeat_interleave(count, 0)
        obs_n = self.normaliser(obs)
        action = self.perturbed(obs_n, self.decode(obs_n, latent))
        # The first critic alone chooses, as in the code of the paper; targets take the mixture.
        best = self.critic(obs, action, first=1).reshape(-1, count).argmax(1)
        choice = best[:, None, None].expand(-1, 1, self.act_dim)
        return action.reshape(-1, count, self.act_dim).gather(1, choice)[:, 0]


def _clipped_quantile(points: Float[Tensor, "*b latent"]) -> Float[Tensor, "*b latent"]:
    """Standard normal quantiles, clipped to the range from which actions are decoded."""
    # The quantile of 0 is -inf, which the clip makes finite.
    return (math.sqrt(2) * torch.erfinv(2 * points - 1)).clamp(-LATENT_CLIP, LATENT_CLIP)
