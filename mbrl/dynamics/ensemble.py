"""The probabilistic ensemble: normalised in and out inside, raw units outside."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl.core.history import History
from mbrl.core.types import DynamicsPosterior
from mbrl.dynamics.linear_base import LinearBase
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.ops.gaussian import soft_clamp

_NO_VARIANCE = 1e-30  # of what is known exactly, raw units squared: deviations of 1e-15 vanish in float32


class DynamicsEnsemble(nn.Module):
    """Members that each predict a Gaussian over `(s' - s, r)` from `(s, a)`; implements `DynamicsModel`.

    Of observations with a history only the newest frame is predicted, `frame_dim` numbers; older frames and
    actions are moved up, exactly. They have variances too small to be seen in float32, and no zeros, of which
    measures take logarithms. Without a history the frame is the whole observation.

    Args:
        net: `obs_dim + act_dim -> 2 (frame_dim + 1)`: normalised means, then raw log-variances.
        bounds: `[e, 2, frame_dim + 1]`, each member's lower and upper log-variance bound, normalised units.
        inputs: normaliser of `(s, a)`.
        targets: normaliser of `(s' - s, r)`.
        base: what all members correct; None for nothing.
        temperature: `[frame_dim + 1]` factors on the predicted deviations, or None for 1.
        history: what an observation holds besides its newest frame.

    Raises:
        ValueError: the sizes do not fit the history.
    """

    bounds: nn.Parameter
    temperature: Tensor

    def __init__(
        self,
        net: StackedMLP,
        bounds: Float[Tensor, "e 2 k"],
        *,
        inputs: Normaliser,
        targets: Normaliser,
        base: LinearBase | None = None,
        temperature: Float[Tensor, "k"] | None = None,
        history: History | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.bounds = nn.Parameter(bounds.detach().clone())
        self.inputs, self.targets = inputs, targets
        self.base = base or LinearBase.zero(inputs.mean.shape[0], bounds.shape[-1])
        self.history = history
        self.frame_dim = bounds.shape[-1] - 1
        size = inputs.mean.shape[0]
        self.obs_dim = self.frame_dim if history is None else size - history.act_dim(size, self.frame_dim)
        self.register_buffer(
            "temperature", torch.ones_like(bounds[0, 0]) if temperature is None else temperature.clone()
        )

    @property
    def ensemble_size(self) -> int:
        """Number of members in a posterior."""
        return self.net.members

    def forward(
        self, inputs_n: Float[Tensor, "*e b in"], *, first: int | None = None
    ) -> tuple[Float[Tensor, "e b k"], Float[Tensor, "e b k"]]:
        """Means and log-variances in normalised target units, before the temperature.

        Args:
            inputs_n: `[b, in]` or `[e, b, in]`, normalised.
            first: e, members 0 to `first - 1` only; None for all.
        """
        mean, raw = self.net(inputs_n, first=first).chunk(2, -1)
        bounds, scale = self.bounds[:first], self.base.scale
        # Members predict in units of what the linear map leaves: mu = base + scale mu', l = l' + 2 log scale.
        log_variance = soft_clamp(raw, bounds[:, :1], bounds[:, 1:]) + 2.0 * scale.log()
        return torch.addcmul(self.base(inputs_n), mean, scale), log_variance

    def predict(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> DynamicsPosterior:
        """Every member's belief about the step from `(obs, action)`, raw units."""
        mean_n, log_variance = self.forward(self.inputs(torch.cat((obs, action), -1)))
        change, variance = self._to_raw(mean_n, log_variance)
        scale = self.targets.std
        mean, known = self._successor(obs, action, change[..., :-1], variance[..., :-1])
        frame_change, frame_scale = change[..., :-1], scale[:-1]
        if self.history is not None:
            rest = mean[..., self.frame_dim :] - obs[:, self.frame_dim :]
            frame_change = torch.cat((frame_change, rest), -1)
            frame_scale = torch.cat((frame_scale.repeat(self.history.frames), scale.new_ones(self.obs_dim)))[
                : self.obs_dim
            ]
        return DynamicsPosterior(
            mean=mean,
            variance=known,
            reward_mean=change[..., -1],
            reward_variance=variance[..., -1],
            delta_scale=frame_scale,
            reward_scale=scale[-1],
            change=frame_change,
        )

    def predict_member(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], member: Int[Tensor, "b"]
    ) -> tuple[
        Float[Tensor, "b obs_dim"], Float[Tensor, "b obs_dim"], Float[Tensor, "b"], Float[Tensor, "b"]
    ]:
        """Sends each row through one member only: `predict` at `[member_i, i]` for a fraction of the work.

        Args:
            obs: `[b, obs_dim]`, raw units.
            action: `[b, act_dim]`.
            member: `[b]` int64, which member predicts the row.

        Returns:
            Mean and variance of s' `[b, obs_dim]`, mean and variance of the reward `[b]`, raw units.
        """
        # Rows are sorted into a grid, a row of it for each member, so that one batched product serves all:
        # a member computes `width` rows instead of all `b` of them.
        slot, used, width = member_slots(member)
        x = self.inputs(torch.cat((obs, action), -1))
        padded = x.new_zeros(used * width, x.shape[-1])
        padded[slot] = x
        mean_n, log_variance = self.forward(padded.view(used, width, -1), first=used)
        mean_n, log_variance = mean_n.flatten(0, 1)[slot], log_variance.flatten(0, 1)[slot]
        change, variance = self._to_raw(mean_n, log_variance)
        mean, known = self._successor(obs, action, change[..., :-1], variance[..., :-1])
        return mean, known, change[..., -1], variance[..., -1]

    def select(self, members: Int[Tensor, "m"]) -> "DynamicsEnsemble":
        """A smaller ensemble with frozen copies of the given members, for inference."""
        chosen = DynamicsEnsemble(
            self.net.select(members),
            self.bounds[members],
            inputs=self.inputs,
            targets=self.targets,
            base=self.base,
            temperature=self.temperature,
            history=self.history,
        )
        return chosen.requires_grad_(requires_grad=False)

    def with_temperature(self, temperature: Float[Tensor, "k"]) -> "DynamicsEnsemble":
        """The same members with other factors on their deviations; weights are shared, not copied."""
        tempered = DynamicsEnsemble(
            self.net,
            self.bounds,
            inputs=self.inputs,
            targets=self.targets,
            base=self.base,
            temperature=temperature.to(self.temperature),
            history=self.history,
        )
        tempered.bounds.requires_grad_(self.bounds.requires_grad)
        return tempered

    def _successor(
        self, obs: Tensor, action: Tensor, change: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean and variance of s' `[*e, b, obs_dim]`, given those of its newest frame."""
        if self.history is None:
            return obs + change, variance
        rest = self.history.moved(obs, action).expand(*change.shape[:-1], -1)
        mean = torch.cat((obs[..., : self.frame_dim] + change, rest), -1)
        return mean, torch.cat((variance, torch.full_like(rest, _NO_VARIANCE)), -1)

    def _to_raw(self, mean_n: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
        """`mu = std * mu_n + mean`, `sigma^2 = exp(l) (t * std)^2` of `(s' - s, r)`, t the temperature."""
        variance = log_variance.exp() * (self.temperature * self.targets.std).square()
        return self.targets.inverse(mean_n), variance


def member_slots(member: Int[Tensor, "b"]) -> tuple[Int[Tensor, "b"], int, int]:
    """Place of each row in a `[used, width]` grid whose row m holds the rows of member m, and its sizes.

    Members beyond the last that any row asks for have no row in it.
    """
    # Counting sort: `rank` is the place of a row among the rows of its member.
    order = torch.argsort(member, stable=True)
    counts = torch.bincount(member)
    used, width = len(counts), int(counts.max()) if len(counts) > 0 else 0
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(member), device=member.device) - starts[member[order]]
    slot = torch.empty_like(member)
    slot[order] = member[order] * width + rank
    return slot, used, width
