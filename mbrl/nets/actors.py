"""Actors: networks that are policies. Each is rebuilt from its `ActorSpec`: an exported file stands alone."""

import abc
import dataclasses
import math
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbrl.nets.normaliser import Normaliser
from mbrl.nets.policy import PolicyNetwork, PolicySpec
from mbrl.nets.stack import ActivationName, StackedMLP
from mbrl.nets.widths import Components, Layers, LogStd
from mbrl.ops.gaussian import LOG_2PI, gaussian_log_prob, standard_normal_cdf, tanh_log_det
from mbrl.ops.losses import mixture_log_prob

ActorKind: TypeAlias = Literal["deterministic", "tanh_gaussian", "mixture", "clipped_gaussian"]
_SATURATION = 1e-5
"""Actions at a bound are moved this far inside before `atanh`, in scaled units."""


@dataclasses.dataclass(frozen=True, slots=True)
class ActorSpec(PolicySpec):
    """Everything but the weights.

    Attributes:
        kind: which class of this module.
        space: sizes and bounds.
        hidden: widths of the hidden layers.
        activation: hidden activation.
        layer_norm: LayerNorm in the hidden layers.
        log_std_bounds: limits of the log standard deviation, before squashing or clipping, scaled action
            units.
        components: mixture components (mixture only).
    """

    kind: ActorKind
    hidden: Layers = (256, 256)
    activation: ActivationName = "relu"
    layer_norm: bool = False
    log_std_bounds: tuple[LogStd, LogStd] = (-5.0, 2.0)
    components: Components = 1


class Actor(PolicyNetwork, abc.ABC):
    """A policy that is one network.

    Args:
        spec: sizes and kind.
        normaliser: of observations.
        generator: source of the initial weights.
    """

    spec: ActorSpec

    def __init__(self, spec: ActorSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator.device)
        # A stack of one: actors share the kernels and the flat parameters of critics and models.
        self.net = StackedMLP(
            1,
            spec.space.obs_dim,
            spec.hidden,
            self.head_size(spec),
            generator=generator,
            activation=spec.activation,
            layer_norm=spec.layer_norm,
        )

    @staticmethod
    @abc.abstractmethod
    def head_size(spec: ActorSpec) -> int:
        """Outputs of the network."""

    @classmethod
    def tensor_shapes(cls, spec: ActorSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        sizes = (1, spec.space.obs_dim, spec.hidden, cls.head_size(spec))
        flat = StackedMLP.flat_shape(*sizes, layer_norm=spec.layer_norm)
        return {**super().tensor_shapes(spec), "net.flat": flat}

    def head(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b head"]:
        """Output of the network at raw observations."""
        # Raw units come in; index 0 is the only member.
        return self.net(self.normaliser(obs))[0]


class DeterministicActor(Actor):
    """`a = tanh(f(s))`."""

    @staticmethod
    def head_size(spec: ActorSpec) -> int:
        """One output for each action dimension."""
        return spec.space.act_dim

    def scaled_action(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b act_dim"]:
        """The action in [-1, 1], differentiable."""
        return torch.tanh(self.head(obs))

    @torch.no_grad()
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """The action; a deterministic policy has no use for noise."""
        del noise
        return self.unscale(self.scaled_action(obs))


class TanhGaussianActor(Actor):
    """`a = tanh(x), x ~ N(mean(s), std(s)^2)` (Haarnoja et al. 2018, appendix C)."""

    @staticmethod
    def head_size(spec: ActorSpec) -> int:
        """Mean and log standard deviation."""
        return 2 * spec.space.act_dim

    def moments(
        self, obs: Float[Tensor, "b obs_dim"]
    ) -> tuple[Float[Tensor, "b act_dim"], Float[Tensor, "b act_dim"]]:
        """Mean and log standard deviation before squashing."""
        mean, log_std = self.head(obs).chunk(2, -1)
        # A hard clamp, as in the EDAC code: beyond a bound the
        # deviation has no gradient, and exp cannot overflow.
        return mean, log_std.clamp(*self.spec.log_std_bounds)

    def sample_with_log_prob(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "*k b act_dim"]
    ) -> tuple[Float[Tensor, "*k b act_dim"], Float[Tensor, "*k b"]]:
        """Reparameterised actions in [-1, 1] and their log-densities, both differentiable.

        Noise with leading axes gives as many actions for each observation; the network runs once.
        """
        return self.draw_with_log_prob(noise, *self.moments(obs))

    @staticmethod
    def draw_with_log_prob(
        noise: Float[Tensor, "*k b act_dim"],
        mean: Float[Tensor, "b act_dim"],
        log_std: Float[Tensor, "b act_dim"],
    ) -> tuple[Float[Tensor, "*k b act_dim"], Float[Tensor, "*k b"]]:
        """The same where `moments` are known."""
        x = torch.addcmul(mean, log_std.exp(), noise)
        # log N(x) at x = mean + std * noise needs no division by std
        log_normal = -(0.5 * (noise.square() + LOG_2PI) + log_std).sum(-1)
        # log pi(a|s) = log N(x) - sum_d log(1 - tanh(x_d)^2) (Haarnoja et al. 2018, eq. 21), from x itself:
        # atanh of a saturated action has lost its digits.
        return torch.tanh(x), log_normal - tanh_log_det(x)

    @torch.no_grad()
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """A draw, or `tanh(mean)` without noise."""
        mean, log_std = self.moments(obs)
        return self.unscale(torch.tanh(mean if noise is None else torch.addcmul(mean, log_std.exp(), noise)))

    def log_prob(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Log-density of given actions (environment units in, density on the [-1, 1] scale)."""
        return self.log_prob_of_moments(action, *self.moments(obs))

    def log_prob_of_moments(
        self,
        action: Float[Tensor, "b act_dim"],
        mean: Float[Tensor, "b act_dim"],
        log_std: Float[Tensor, "b act_dim"],
    ) -> Float[Tensor, "b"]:
        """The same where `moments` are known."""
        # Given actions have no x; the density of those at a bound is that of their neighbours inside.
        x = unsquash(self.scale(action))
        return gaussian_log_prob(x, mean, log_std) - tanh_log_det(x)

    @torch.no_grad()
    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        """`count` draws for each observation; the network runs once."""
        _check_count(count, noise)
        mean, log_std = self.moments(obs)
        return self.unscale(torch.tanh(torch.addcmul(mean, log_std.exp(), noise)))


class ClippedGaussianActor(Actor):
    """`a = clip(x, -1, 1), x ~ N(tanh(f(s)), std^2)` with one standard deviation for all states.

    The policy of implicit Q-learning (Kostrikov et al. 2021, reference code). Its log-density is that of x:
    a draw beyond a bound acts as the bound, whose probability the density does not show. So logged actions
    at a bound have an ordinary density, and `log_prob` is comparable between such policies only.
    """

    log_std: nn.Parameter
    """`[act_dim]`, before the bounds."""

    def __init__(self, spec: ActorSpec, normaliser: Normaliser, generator: torch.Generator) -> None:
        super().__init__(spec, normaliser, generator)
        # exp(0) = 1 is half the range of an action: wide at first, whatever the task.
        self.log_std = nn.Parameter(torch.zeros(spec.space.act_dim, device=generator.device))

    @staticmethod
    def head_size(spec: ActorSpec) -> int:
        """One mean for each action dimension."""
        return spec.space.act_dim

    @classmethod
    def tensor_shapes(cls, spec: ActorSpec) -> dict[str, tuple[int, ...]]:
        """See `PolicyNetwork.tensor_shapes`."""
        return {**super().tensor_shapes(spec), "log_std": (spec.space.act_dim,)}

    def moments(
        self, obs: Float[Tensor, "b obs_dim"]
    ) -> tuple[Float[Tensor, "b act_dim"], Float[Tensor, "act_dim"]]:
        """Mean in [-1, 1] and log standard deviation, scaled action units."""
        return torch.tanh(self.head(obs)), self.log_std.clamp(*self.spec.log_std_bounds)

    def log_prob(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Log-density before clipping (environment units in, density on the [-1, 1] scale)."""
        mean, log_std = self.moments(obs)
        # No Jacobian: nothing is squashed, and what is clipped keeps the density that it had before.
        return gaussian_log_prob(self.scale(action), mean, log_std.expand_as(mean))

    @torch.no_grad()
    def scaled_sample(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "*k b act_dim"]
    ) -> Float[Tensor, "*k b act_dim"]:
        """Draws in [-1, 1]; noise with leading axes gives as many for each observation."""
        mean, log_std = self.moments(obs)
        # Clipped here, so that critics never see an action outside of the box.
        return torch.addcmul(mean, log_std.exp(), noise).clamp(-1.0, 1.0)

    @torch.no_grad()
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """A draw, clipped to the box, or the mean without noise."""
        return self.unscale(self.moments(obs)[0] if noise is None else self.scaled_sample(obs, noise))

    @torch.no_grad()
    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        """`count` draws for each observation; the network runs once."""
        _check_count(count, noise)
        return self.unscale(self.scaled_sample(obs, noise))


class MixtureActor(Actor):
    """`a = tanh(x), x ~ sum_k w_k(s) N(mean_k(s), std_k(s)^2)`: for behaviour with several modes."""

    @staticmethod
    def head_size(spec: ActorSpec) -> int:
        """A logit, a mean and a log standard deviation for each component."""
        return mixture_head_size(spec.components, spec.space.act_dim)

    def components(
        self, obs: Float[Tensor, "b obs_dim"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k act_dim"], Float[Tensor, "b k act_dim"]]:
        """Log-weights, means and log standard deviations before squashing."""
        return split_mixture(self.head(obs), self.act_dim, self.spec.log_std_bounds)

    def log_prob(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Log-density of given actions (environment units in, density on the [-1, 1] scale)."""
        x = unsquash(self.scale(action))
        return mixture_log_prob(x, *self.components(obs)) - tanh_log_det(x)

    @torch.no_grad()
    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """A draw; without noise `tanh` of the mean of the component with the highest weighted peak density.

        The draw is a function of the noise alone: its first coordinate chooses the component (through the
        normal distribution function, then stretched back to a full normal within the chosen slice), and all
        coordinates move the action within it.
        """
        log_weights, means, log_stds = self.components(obs)
        if noise is None:
            # At its own mean the density of a component is w_k / prod_d std_kd, up to a constant. The mean of
            # the whole mixture may lie between two modes, where nobody acts.
            peak = log_weights - log_stds.sum(-1)
            return self.unscale(torch.tanh(_take(means, peak.argmax(-1))))
        return self.unscale(torch.tanh(_draw_mixture(log_weights, means, log_stds, noise)))

    @torch.no_grad()
    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        """`count` draws for each observation; the network runs once."""
        _check_count(count, noise)
        # [k b, ...] with the draws outermost, in the order of `noise.flatten(0, 1)`.
        log_weights, means, log_stds = (
            part.repeat(count, *[1] * (part.dim() - 1)) for part in self.components(obs)
        )
        x = _draw_mixture(log_weights, means, log_stds, noise.flatten(0, 1))
        return self.unscale(torch.tanh(x)).reshape(count, *obs.shape[:-1], self.act_dim)


def actor_class(kind: ActorKind) -> type[Actor]:
    """The class that `ActorSpec.kind` names."""
    kinds: dict[ActorKind, type[Actor]] = {
        "deterministic": DeterministicActor,
        "tanh_gaussian": TanhGaussianActor,
        "mixture": MixtureActor,
        "clipped_gaussian": ClippedGaussianActor,
    }
    return kinds[kind]


def build_actor(spec: ActorSpec, normaliser: Normaliser, generator: torch.Generator) -> Actor:
    """Makes the actor that `spec.kind` names."""
    return actor_class(spec.kind)(spec, normaliser, generator)


def unsquash(scaled_action: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
    """`atanh` of actions in [-1, 1]; those at a bound are moved inside, for every density alike."""
    return torch.atanh(scaled_action.clamp(-1 + _SATURATION, 1 - _SATURATION))


def mixture_head_size(components: int, act_dim: int) -> int:
    """Outputs of a network that describes a mixture of diagonal Gaussians."""
    return components * (1 + 2 * act_dim)


def split_mixture(
    head: Float[Tensor, "b head"], act_dim: int, log_std_bounds: tuple[float, float]
) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k act_dim"], Float[Tensor, "b k act_dim"]]:
    """Log-weights, means and log standard deviations of the mixture that a network's outputs describe."""
    k = head.shape[-1] // mixture_head_size(1, act_dim)
    # [b, k + 2 k d]: logits, then all means, then all log deviations.
    logits, means, log_stds = torch.split(head, [k, k * act_dim, k * act_dim], -1)
    log_stds = log_stds.clamp(*log_std_bounds)
    # Normalised in logarithms: components of hardly any weight keep a finite one.
    return torch.log_softmax(logits, -1), means.reshape(-1, k, act_dim), log_stds.reshape(-1, k, act_dim)


def _check_count(count: int, noise: Tensor) -> None:
    if noise.shape[0] != count:
        raise ValueError(f"count is {count}, noise has {noise.shape[0]} rows")


def _draw_mixture(
    log_weights: Float[Tensor, "b k"],
    means: Float[Tensor, "b k d"],
    log_stds: Float[Tensor, "b k d"],
    noise: Float[Tensor, "b d"],
) -> Float[Tensor, "b d"]:
    # The first coordinate chooses the component and, stretched, moves the action as well; a separate draw for
    # the choice would need noise of another shape than other policies take.
    index, first = _split_noise(noise[:, 0], log_weights.exp())
    noise = torch.cat([first[:, None], noise[:, 1:]], 1)
    return torch.addcmul(_take(means, index), _take(log_stds, index).exp(), noise)


def _take(values: Float[Tensor, "b k d"], index: Tensor) -> Float[Tensor, "b d"]:
    return values.gather(1, index[:, None, None].expand(-1, 1, values.shape[-1]))[:, 0]


def _split_noise(
    noise: Float[Tensor, "b"], weights: Float[Tensor, "b k"]
) -> tuple[Tensor, Float[Tensor, "b"]]:
    """One normal draw to a component index and an independent normal draw, by inversion in float64."""
    # 1. u = Phi(noise) is uniform on [0, 1], in float64, where it does not round to 1.
    uniform = standard_normal_cdf(noise)
    # 2. Component k owns the slice (W_{k-1}, W_k] of it, W the cumulated weights. Rounding
    # may leave the last bound below u, so it is set.
    upper = weights.double().cumsum(1)
    upper[:, -1] = 1.0
    index = (uniform[:, None] > upper).sum(1)
    # 3. Where u lies within its slice is uniform again, whichever slice it is: its normal quantile is a fresh
    # draw. Clamped, since the quantiles of 0 and 1 are infinite.
    high = upper.gather(1, index[:, None])[:, 0]
    width = weights.double().gather(1, index[:, None])[:, 0].clamp_min(1e-12)
    within = ((uniform - (high - width)) / width).clamp(1e-9, 1 - 1e-9)
    return index, (torch.erfinv(2 * within - 1) * math.sqrt(2)).to(noise.dtype)
