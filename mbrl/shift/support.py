"""Where the log acts: the density of its actions given the state, and the distance to its rows.

Both say of an action whether the log can speak of it. The density asks whether the behaviour takes such an
action in this state; the distance asks whether any logged row is near. Their thresholds are quantiles over
held-out logged rows, so the behaviour itself exceeds either with the nominal probability of 1 %.
"""

import copy
import dataclasses
from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mbrl.core.types import SpaceSpec
from mbrl.nets.actors import ActorSpec, MixtureActor
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.ops.losses import mixture_log_prob
from mbrl.uncertainty.density import DensityReference

NOMINAL_SHARE: Final = 0.01
"""Share of the behaviour's own actions that count as outside of its support."""

MIN_ROWS: Final = 200
"""Held-out rows below which a 1 % quantile, then set by fewer than two rows, means nothing."""

REFERENCE_ROWS: Final = 10_000
"""Logged rows that distances are measured to."""

_THRESHOLD_ROWS = 4_000  # held-out rows behind a quantile: a nominal 1 % is then met within 0.2 %
_HIDDEN = (64, 64)
_COMPONENTS = 5
_UPDATES = 800
_BATCH = 256
_LEARNING_RATE = 3e-3


def why_no_support(rows: int) -> str | None:
    """The reason that so few held-out rows give no thresholds; None if they do."""
    if rows >= MIN_ROWS:
        return None
    return f"{rows} rows are held out, and a 1 % quantile needs {MIN_ROWS}"


class ChoiceNet(nn.Module):
    """`log b(a|s)` of every choice: a softmax of logits.

    Args:
        space: of choices.
        normaliser: of observations.
        generator: of the initial weights.
    """

    def __init__(self, space: SpaceSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__()
        self.normaliser = normaliser
        sizes = (1, space.obs_dim, _HIDDEN, space.act_dim)
        self.net = StackedMLP(*sizes, generator=generator, activation="silu")

    def log_probs(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b n"]:
        """Log-probabilities, differentiable in the weights."""
        return torch.log_softmax(self.net(self.normaliser(obs))[0], -1)


class BehaviourDensity:
    """`log b(a|s)`: a mixture of Gaussians on actions scaled to [-1, 1], fitted by maximum likelihood.

    It is not squashed, unlike the densities of policies: logged actions often sit on a bound, where a
    squashed density has a pole and a step of a thousandth decides; a plain Gaussian treats a bound like any
    other value. Its deviations are floored (`ActorSpec.log_std_bounds`), so a deterministic behaviour has a
    width. Choices have probabilities: the softmax of a network's logits.

    Args:
        actor: the network of components, or of logits.
    """

    def __init__(self, actor: "MixtureActor | ChoiceNet") -> None:
        self._actor = actor

    @classmethod
    def fit(
        cls,
        obs: Float[Tensor, "n obs_dim"],
        action: Float[Tensor, "n act_dim"],
        *,
        space: SpaceSpec,
        normaliser: Normaliser,
        generator: torch.Generator,
    ) -> "BehaviourDensity":
        """Maximum likelihood on logged rows; a second or so, whatever their number.

        Args:
            obs: `[n, obs_dim]`, raw units.
            action: `[n, act_dim]`, environment units.
            space: sizes and bounds.
            normaliser: of observations.
            generator: initial weights and batches.
        """
        # Small and fitted for 800 steps: what is asked is whether an action is
        # likely at all, not its density to many digits.
        actor: MixtureActor | ChoiceNet
        if space.is_discrete:
            actor = ChoiceNet(space, copy.deepcopy(normaliser), generator)
        else:
            spec = ActorSpec("mixture", space, _HIDDEN, activation="silu", components=_COMPONENTS)
            actor = MixtureActor(spec, copy.deepcopy(normaliser), generator)
        density = cls(actor)
        optimiser = torch.optim.Adam([actor.net.flat], lr=_LEARNING_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _UPDATES)
        # All batches at once, with replacement: a fit costs the same for any number of rows.
        rows = torch.randint(len(obs), (_UPDATES, min(_BATCH, len(obs))), generator=generator)
        for batch in rows:
            optimiser.zero_grad(set_to_none=True)
            # -mean log b(a|s), maximum likelihood.
            loss = -density._log_prob(obs[batch], action[batch]).mean()
            loss.backward()
            optimiser.step()
            schedule.step()
        actor.requires_grad_(requires_grad=False)
        return density

    @torch.no_grad()
    def log_prob(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`[b]` nats, with respect to the action scaled to [-1, 1]; log-probabilities of choices."""
        return self._log_prob(obs, action)

    def _log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        if isinstance(self._actor, ChoiceNet):
            return self._actor.log_probs(obs).gather(-1, action.argmax(-1, keepdim=True)).squeeze(-1)
        # Not `MixtureActor.log_prob`, which squashes: see the class.
        return mixture_log_prob(self._actor.scale(action), *self._actor.components(obs))


@dataclasses.dataclass(frozen=True, slots=True)
class BehaviourSupport:
    """What counts as inside of the log.

    Attributes:
        density: of logged actions.
        log_density_floor: 1 % quantile of the log-density of held-out logged actions, nats.
        reference: logged rows (s, a), standardised.
        distance_ceiling: 99 % quantile of the distance of held-out logged rows to them.
        rows: held-out rows behind both quantiles.
    """

    density: BehaviourDensity
    log_density_floor: float
    reference: DensityReference
    distance_ceiling: float
    rows: int

    @classmethod
    def fit(
        cls,
        train: tuple[Float[Tensor, "n obs_dim"], Float[Tensor, "n act_dim"]],
        held_out: tuple[Float[Tensor, "m obs_dim"], Float[Tensor, "m act_dim"]],
        *,
        space: SpaceSpec,
        normaliser: Normaliser,
        generator: torch.Generator,
    ) -> "BehaviourSupport":
        """Fits the density to `train` and sets both thresholds on `held_out`.

        Args:
            train: observations and actions.
            held_out: likewise, of episodes that are not in `train`; at least `MIN_ROWS`.
            space: sizes and bounds.
            normaliser: of observations.
            generator: of the fit, and of what is thinned out.

        Raises:
            ValueError: too few rows are held out.
        """
        if len(held_out[0]) < MIN_ROWS:
            raise ValueError(f"a 1 % quantile needs {MIN_ROWS} held-out rows, not {len(held_out[0])}")
        density = BehaviourDensity.fit(*train, space=space, normaliser=normaliser, generator=generator)
        reference = DensityReference.fit(*train, generator=generator, max_rows=REFERENCE_ROWS)
        # Held out: a density is higher and a distance smaller on the rows it was fitted on, and thresholds
        # from those would call the behaviour itself foreign.
        judged = torch.randperm(len(held_out[0]), generator=generator)[:_THRESHOLD_ROWS]
        obs, action = held_out[0][judged], held_out[1][judged]
        # 99 % of held-out logged actions are likelier than the floor, and nearer than the ceiling.
        floor = density.log_prob(obs, action).double().quantile(NOMINAL_SHARE)
        ceiling = reference.distance(obs, action).double().quantile(1 - NOMINAL_SHARE)
        return cls(density, float(floor), reference, float(ceiling), len(judged))

    def is_unlikely(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Bool[Tensor, "b"]:
        """`log b(a|s)` lies below that of 99 % of the logged actions."""
        # The floor is one for all states: unlikely is what the log hardly ever does, wherever it is.
        return self.density.log_prob(obs, action).double() < self.log_density_floor

    def is_distant(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Bool[Tensor, "b"]:
        """The mean distance of (s, a) to its 5 nearest logged rows exceeds that of 99 % of logged rows."""
        return self.reference.distance(obs, action).double() > self.distance_ceiling
