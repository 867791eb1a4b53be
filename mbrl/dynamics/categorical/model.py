"""Networks over the discrete states of a log: which of them follows, and what the step earns.

A state is a distinct observation, as it is for a table (`mbrl.dynamics.tabular`). Where states are so many
that hardly any is met twice under the same action, counts say nothing; networks share between states what
these have in common. For a state s and an action a each member gives logits l over the S' states that any
step of the log enters, which correct what is known without it (`mbrl.dynamics.categorical.base`), and
`p = softmax(l / T)`. Every state has learned features among the inputs, which tell apart what numbers, such
as ids, do not. More than `MOST_COORDINATES` numbers are one-hot vectors, and no inputs.

The reward is `r(s, a, s') = b(s, a) + u(s, a) . f(s') + g(s') + [s' = s + move_j] t_j(s, a)`, with features f
and g of each successor and a part t of each usual move, so that its mean over s' is an exact sum.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl.core.history import History
from mbrl.core.types import DynamicsPosterior
from mbrl.dynamics.categorical.base import States, SuccessorBase, coordinates
from mbrl.dynamics.ensemble import member_slots
from mbrl.dynamics.tabular.model import LEAST_VARIANCE
from mbrl.nets.codes import nearest_code
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.ops.gaussian import soft_clamp, standard_normal_cdf

_ENTRIES: Final = 4_000_000  # logits that are computed together: their working copies take 150 MB


class Heads(NamedTuple):
    """What the members say of rows, m of them, normalised units.

    Attributes:
        logits: `[m, b, S']`, before the temperature.
        reward: `[m, b]`, b(s, a).
        direction: `[m, b, f]`, u(s, a).
        tolls: `[m, b, D]`, t(s, a).
        follows: `[m, b, D]` int64, the successor of each move, -1 for none.
        log_variance: `[m, b]`, of the reward around its mean.
    """

    logits: Tensor
    reward: Tensor
    direction: Tensor
    tolls: Tensor
    follows: Tensor
    log_variance: Tensor


class _Moments(NamedTuple):
    """Mean change and variance `[m, b, obs_dim]`, mean and variance of the reward `[m, b]`, raw units."""

    change: Tensor
    variance: Tensor
    reward: Tensor
    reward_variance: Tensor


def output_size(states: int, moves: int, features: int, obs_dim: int) -> int:
    """Numbers that a network gives, for `states` successors."""
    return states + 2 * moves + features + 2 + 2 * coordinates(obs_dim)


def input_size(features: int, obs_dim: int, act_dim: int) -> int:
    """Numbers that a network reads."""
    return coordinates(obs_dim) + act_dim + features


class CategoricalDynamics(nn.Module):
    """An ensemble of categorical distributions over states; implements `DynamicsModel` and `SamplingModel`.

    `predict` tells mean and variance of s' and of r, as uncertainty measures need them; `draw_member` draws a
    state. An observation that is no state counts as the nearest one.

    Args:
        net: `input_size` to `output_size`.
        states: what there is to choose from.
        features: `[e, S, f]`, of states as inputs.
        rewards: `[e, S', f + 1]`, f(s') and g(s'), normalised reward units.
        inputs: normaliser of `(s, a)`.
        targets: normaliser of `(s' - s, r)`.
        reward_bounds: lower and upper bound of the reward's log-variance, normalised units.
        logit_temperature: T.
    """

    logit_temperature: Tensor

    def __init__(
        self,
        net: StackedMLP,
        states: States,
        *,
        features: Float[Tensor, "e S f"],
        rewards: Float[Tensor, "e k g"],
        inputs: Normaliser,
        targets: Normaliser,
        reward_bounds: tuple[float, float],
        logit_temperature: float | Tensor = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.inputs, self.targets = net, inputs, targets
        self.features, self.rewards = (nn.Parameter(part.detach().clone()) for part in (features, rewards))
        self.base = SuccessorBase(states, targets)
        self.register_buffer("logit_temperature", torch.as_tensor(logit_temperature, dtype=torch.float32))
        self.reward_bounds = reward_bounds
        self.history: History | None = None
        self.obs_dim = self.frame_dim = states.codes.shape[1]
        self.temperature = torch.ones(self.frame_dim + 1)  # a posterior is not stretched

    @property
    def states(self) -> States:
        """What there is to choose from."""
        return self.base.states

    @property
    def ensemble_size(self) -> int:
        """Number of members in a posterior."""
        return self.net.members

    def state(self, obs: Float[Tensor, "b obs_dim"]) -> Int[Tensor, "b"]:
        """Index of the state that each observation is, or is nearest to."""
        return nearest_code(obs, self.states.codes)

    def heads(self, inputs_n: Float[Tensor, "m b in"], state: Int[Tensor, "m b"]) -> Heads:
        """What members 0 to `m - 1` say of rows, each of its own; differentiable.

        Args:
            inputs_n: `[m, b, obs_dim + act_dim]`, normalised (s, a).
            state: `[m, b]`, index of s.
        """
        count, first = coordinates(self.obs_dim), self.obs_dim
        read = inputs_n if count > 0 else inputs_n[..., first:]
        x = torch.cat((read, rows_of_members(self.features, state)), -1)
        moves, width = self.base.moves, self.features.shape[-1]
        sizes = (len(self.states.entered), moves, moves, width, 2, count, count)
        output = self.net(x, first=len(x))
        free, moved, tolls, direction, rest, shift, raw = output.split(sizes, -1)
        low, high = output.new_tensor(self.reward_bounds)[:, None, None, None]
        return Heads(
            logits=self.base(free, state, moved=moved, shift=shift, raw=raw),
            reward=rest[..., 0],
            direction=direction,
            tolls=tolls,
            follows=self.states.follows[state],
            log_variance=soft_clamp(rest[..., 1:], low, high)[..., 0],
        )

    def reward_at(self, heads: Heads, successor: Int[Tensor, "m b"]) -> Float[Tensor, "m b"]:
        """Normalised mean reward of a step to one successor, an index into `entered`; differentiable."""
        return _reward(heads, rows_of_members(self.rewards, successor), successor)

    def probabilities(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "e b k"]:
        """Every member's chance of each of `entered`, float64."""
        state = self.state(obs)
        x = self.inputs(torch.cat((obs, action), -1))
        count = self.ensemble_size
        weight, total = self._weights(self.heads(x.expand(count, -1, -1), state.expand(count, -1)).logits)
        return weight / total[..., None]

    def forward(
        self, inputs_n: Float[Tensor, "b in"], *, first: int | None = None
    ) -> tuple[Float[Tensor, "e b k"], Float[Tensor, "e b k"]]:
        """Means and log-variances of `(s' - s, r)`, normalised target units, of normalised inputs."""
        obs = self.inputs.inverse(inputs_n)[:, : self.obs_dim]
        found = self._shared_moments(obs, inputs_n, first=first)
        mean = torch.cat((found.change, found.reward[..., None]), -1)
        variance = torch.cat((found.variance, found.reward_variance[..., None]), -1)
        return self.targets(mean), (variance / self.targets.std.square()).log()

    def predict(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> DynamicsPosterior:
        """Every member's belief about the step from `(obs, action)`, by mean and variance; raw units."""
        found = self._shared_moments(obs, self.inputs(torch.cat((obs, action), -1)))
        scale = self.targets.std
        return DynamicsPosterior(
            mean=obs + found.change,
            variance=found.variance,
            reward_mean=found.reward,
            reward_variance=found.reward_variance,
            delta_scale=scale[:-1],
            reward_scale=scale[-1],
            change=found.change,
        )

    def predict_member(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], member: Int[Tensor, "b"]
    ) -> tuple[
        Float[Tensor, "b obs_dim"], Float[Tensor, "b obs_dim"], Float[Tensor, "b"], Float[Tensor, "b"]
    ]:
        """Mean and variance of s' `[b, obs_dim]` and of the reward `[b]`, each row from its own member."""
        parts: list[tuple[Tensor, ...]] = []
        for rows, slot, heads in self._own_heads(obs, action, member):
            start = obs.new_zeros(*heads.reward.shape, self.obs_dim)
            start.view(-1, self.obs_dim)[slot] = obs[rows]
            found = self._moments(heads, start)
            parts.append(tuple(part.flatten(0, 1)[slot] for part in found))
        change, variance, reward, reward_variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return obs + change, variance, reward, reward_variance

    def draw_member(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        member: Int[Tensor, "b"],
        noise: Float[Tensor, "b k"],
    ) -> tuple[Float[Tensor, "b obs_dim"], Float[Tensor, "b"]]:
        """A successor and a reward of each row, from its own member: equal noise gives equal draws.

        Args:
            obs: `[b, obs_dim]`, raw units.
            action: `[b, act_dim]`, one-hot.
            member: `[b]` int64.
            noise: `[b, obs_dim + 1]` standard normal; the first column chooses the successor by inversion of
                the distribution function, the last one is that of the reward.
        """
        following: list[Tensor] = []
        rewards: list[Tensor] = []
        for rows, slot, heads in self._own_heads(obs, action, member):
            own = Heads(*(part.flatten(0, 1)[slot] for part in heads))
            weight, _ = self._weights(own.logits)
            cumulative = weight.cumsum(-1)
            # The first successor whose cumulative chance reaches u = Phi(noise).
            uniform = standard_normal_cdf(noise[rows, :1].double())
            place = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])[:, 0]
            place = place.clamp_max(weight.shape[-1] - 1)
            mean = _reward(own, self.rewards[member[rows], place], place)
            reward = torch.addcmul(mean, (0.5 * own.log_variance).exp(), noise[rows, -1])
            following.append(self.states.codes[self.states.entered[place]])
            rewards.append(reward * self.targets.std[-1] + self.targets.mean[-1])
        return torch.cat(following), torch.cat(rewards)

    def select(self, members: Int[Tensor, "m"]) -> "CategoricalDynamics":
        """A smaller ensemble with frozen copies of the given members, for inference."""
        return self._with(
            self.net.select(members), self.features[members], self.rewards[members], self.logit_temperature
        )

    def with_temperature(self, temperature: float) -> "CategoricalDynamics":
        """The same members, frozen, with another temperature of their logits."""
        return self._with(self.net, self.features, self.rewards, temperature)

    def _with(
        self, net: StackedMLP, features: Tensor, rewards: Tensor, temperature: float | Tensor
    ) -> "CategoricalDynamics":
        made = CategoricalDynamics(
            net,
            self.states,
            features=features,
            rewards=rewards,
            inputs=self.inputs,
            targets=self.targets,
            reward_bounds=self.reward_bounds,
            logit_temperature=temperature,
        )
        return made.requires_grad_(requires_grad=False)

    def _weights(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Chances `[*, S']` up to a factor, and their sums; float64, so that they sum to 1."""
        scaled = logits / self.logit_temperature
        weight = torch.exp(scaled - scaled.amax(-1, keepdim=True)).double()
        return weight, weight.sum(-1)

    def _shared_moments(self, obs: Tensor, inputs_n: Tensor, *, first: int | None = None) -> _Moments:
        """Of all members, or the first few, at the same rows."""
        members, state = first or self.ensemble_size, self.state(obs)
        parts: list[_Moments] = []
        for rows in self._blocks(len(obs), members):
            x = inputs_n[rows].expand(members, -1, -1)
            heads = self.heads(x, state[rows].expand(members, -1))
            parts.append(self._moments(heads, obs[rows]))
        return _Moments(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))

    def _own_heads(
        self, obs: Tensor, action: Tensor, member: Tensor
    ) -> Iterator[tuple[slice, Tensor, Heads]]:
        """Rows, their places in a grid `[m, w]` of the rows of each member, and what that says of them."""
        x, state = self.inputs(torch.cat((obs, action), -1)), self.state(obs)
        for rows in self._blocks(len(obs), 2):
            slot, used, width = member_slots(member[rows])
            grid = x.new_zeros(used * width, x.shape[-1])
            places = state.new_zeros(used * width)
            grid[slot], places[slot] = x[rows], state[rows]
            yield rows, slot, self.heads(grid.view(used, width, x.shape[-1]), places.view(used, width))

    def _blocks(self, rows: int, members: int) -> Iterator[slice]:
        """Rows whose logits are computed together; one block at least."""
        size = max(1, _ENTRIES // (members * len(self.states.entered)))
        for first in range(0, max(1, rows), size):
            yield slice(first, first + size)

    def _moments(self, heads: Heads, obs: Tensor) -> _Moments:
        """Of the distribution over the states, in float64, where squares of large numbers cancel."""
        weight, total = self._weights(heads.logits)
        powers, centre = self.base.get_buffer("raw_powers"), self.base.get_buffer("centre")
        mean, square = (torch.matmul(weight, powers) / total[..., None]).chunk(2, -1)
        # r(s') less b: the spread of it over s' comes to its own noise.
        gains = self.rewards[: len(weight)].transpose(1, 2)
        gain = torch.baddbmm(gains[:, -1:], heads.direction, gains[:, :-1])
        tolls = torch.where(heads.follows >= 0, heads.tolls, 0.0)
        gain = gain.scatter_add(-1, heads.follows.clamp_min(0), tolls).double()
        expected = (weight * gain).sum(-1) / total
        spread = (weight * gain.square()).sum(-1) / total - expected.square()
        reward = expected + heads.reward.double()
        noise = spread.clamp_min(0.0) + heads.log_variance.double().exp()
        scale = self.targets.std
        return _Moments(
            change=(mean + (centre - obs.double())).float(),
            variance=_floored((square - mean.square()).float(), scale[:-1]),
            reward=reward.float() * scale[-1] + self.targets.mean[-1],
            reward_variance=_floored(noise.float() * scale[-1].square(), scale[-1]),
        )


def rows_of_members(table: Float[Tensor, "e n f"], index: Int[Tensor, "m b"]) -> Float[Tensor, "m b f"]:
    """`table[i, index[i]]` of the first m members; differentiable, with the same bits in every run."""
    offset = torch.arange(len(index), device=index.device)[:, None] * table.shape[1]
    return nn.functional.embedding(index + offset, table.flatten(0, 1))


def _reward(heads: Heads, found: Tensor, successor: Tensor) -> Tensor:
    """`b + u . f(s') + g(s') + t_j`, where f and g of s' were found and s' is the outcome of move j."""
    tolls = (heads.tolls * (heads.follows == successor[..., None])).sum(-1)
    return heads.reward + (heads.direction * found[..., :-1]).sum(-1) + found[..., -1] + tolls


def _floored(variance: Tensor, scale: Tensor) -> Tensor:
    return torch.maximum(variance, LEAST_VARIANCE * scale.square())
