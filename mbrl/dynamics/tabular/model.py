"""A table of what followed what: one categorical distribution over successors for each state and action.

A state is a distinct observation, whatever its numbers: one-hot vectors, an id in a single column, or the
centre of a cluster of patients. So logs of discrete states need no format of their own, learners read the
same numbers as ever, and the table finds the state of an observation by looking for the nearest of its list.

Successors of a state are stored once for all actions, `K` of them over all states (compressed rows): state s
owns the columns `start[s]` to `start[s + 1]`. A member is one draw of the posterior, so what members dispute
is what the log leaves open.
"""

import dataclasses
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl.core.history import History
from mbrl.core.types import DynamicsPosterior
from mbrl.nets.codes import nearest_code
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.gaussian import standard_normal_cdf

LEAST_VARIANCE: Final = 1e-8
"""Of what is known exactly, squared deviations of the training targets: measures take logarithms."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What a tabular model consists of; S states, A actions, K pairs of a state and a successor, e members.

    Attributes:
        codes: `[S, obs_dim]` float32, the states, raw units.
        start: `[S + 1]` int64, where the successors of each state begin.
        successor: `[K]` int64, which state they are.
        count: `[A, K]` float32, how often a logged action led there.
        reward: `[e, A, K]` float32, what each member believes of the mean reward of the step, reward units.
        ends: `[e, A, K]` float32, each member's probability that the task ends with it.
        chance: `[e, A, K]` float32, each member's probabilities; those of a state and an action sum to 1.
        reward_variance: `[K]` float32, of rewards around their mean, reward units squared.
        allowed: `[S, A]` bool, choices that the log's masks ever allowed there; everything without masks.
    """

    codes: Tensor
    start: Tensor
    successor: Tensor
    count: Tensor
    reward: Tensor
    ends: Tensor
    chance: Tensor
    reward_variance: Tensor
    allowed: Tensor

    @property
    def origin(self) -> Int[Tensor, "K"]:
        """`[K]`, the state that each pair starts from."""
        sizes = self.start[1:] - self.start[:-1]
        return torch.repeat_interleave(torch.arange(len(sizes)), sizes)

    @property
    def visits(self) -> Float[Tensor, "S A"]:
        """`[S, A]`, logged steps of each state and action."""
        out = torch.zeros(len(self.codes), self.count.shape[0])
        return out.index_add_(0, self.origin, self.count.T.contiguous())


class TabularDynamics(nn.Module):
    """Categorical successors of known states; implements `DynamicsModel` and `SamplingModel`.

    `predict` tells mean and variance of s' and of r, as uncertainty measures need them; `draw_member` draws a
    state. An observation that is no state counts as the nearest one.

    Args:
        table: counts, rewards, ends and members.
        inputs: normaliser of `(s, a)`, the unit of distances to logged steps.
        targets: normaliser of `(s' - s, r)`, the unit of uncertainty measures.
    """

    def __init__(self, table: Table, *, inputs: Normaliser, targets: Normaliser) -> None:
        super().__init__()
        for field in dataclasses.fields(Table):
            self.register_buffer(field.name, getattr(table, field.name))
        self.inputs, self.targets = inputs, targets
        self.history: History | None = None
        self.obs_dim = self.frame_dim = table.codes.shape[1]
        self.temperature = torch.ones(self.frame_dim + 1)  # a posterior is not stretched
        self._moments = _Moments.of(table)

    @property
    def table(self) -> Table:
        """What it consists of."""
        return Table(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Table)})

    @property
    def ensemble_size(self) -> int:
        """Draws of the posterior."""
        return self.get_buffer("chance").shape[0]

    def state(self, obs: Float[Tensor, "b obs_dim"]) -> Int[Tensor, "b"]:
        """Index of the state that each observation is, or is nearest to."""
        return nearest_code(obs, self.get_buffer("codes"))

    def forward(
        self, inputs_n: Float[Tensor, "b in"], *, first: int | None = None
    ) -> tuple[Float[Tensor, "e b k"], Float[Tensor, "e b k"]]:
        """Means and log-variances of `(s' - s, r)`, normalised target units, of normalised inputs."""
        inputs = self.inputs.inverse(inputs_n)
        posterior = self.predict(inputs[:, : self.obs_dim], inputs[:, self.obs_dim :])
        change = posterior.mean - inputs[:, : self.obs_dim]
        mean = torch.cat((change, posterior.reward_mean[..., None]), -1)
        variance = torch.cat((posterior.variance, posterior.reward_variance[..., None]), -1)
        log_variance = (variance / self.targets.std.square()).log()
        return self.targets(mean)[:first], log_variance[:first]

    def predict(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> DynamicsPosterior:
        """Every member's belief about the step from `(obs, action)`, by mean and variance; raw units."""
        state, choice, moments = self.state(obs), action.argmax(-1), self._moments
        mean = moments.mean[:, state, choice]
        scale = self.targets.std
        return DynamicsPosterior(
            mean=mean,
            variance=self._floored(moments.variance[:, state, choice], scale[:-1]),
            reward_mean=moments.reward_mean[:, state, choice],
            reward_variance=self._floored(moments.reward_variance[:, state, choice], scale[-1]),
            delta_scale=scale[:-1],
            reward_scale=scale[-1],
            change=mean - obs,
        )

    def predict_member(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"], member: Int[Tensor, "b"]
    ) -> tuple[
        Float[Tensor, "b obs_dim"], Float[Tensor, "b obs_dim"], Float[Tensor, "b"], Float[Tensor, "b"]
    ]:
        """Mean and variance of s' `[b, obs_dim]` and of the reward `[b]`, each row from its own member."""
        state, choice, moments = self.state(obs), action.argmax(-1), self._moments
        scale = self.targets.std
        return (
            moments.mean[member, state, choice],
            self._floored(moments.variance[member, state, choice], scale[:-1]),
            moments.reward_mean[member, state, choice],
            self._floored(moments.reward_variance[member, state, choice], scale[-1]),
        )

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
        table, state, choice = self.table, self.state(obs), action.argmax(-1)
        first, size = table.start[state], table.start[state + 1] - table.start[state]
        place = torch.arange(max(1, int(size.max()) if len(size) else 1))
        is_there = place < size[:, None]
        column = torch.where(is_there, first[:, None] + place, 0)
        chance = table.chance[member[:, None], choice[:, None], column].double() * is_there
        # The first successor whose cumulative chance reaches u = Phi(noise).
        uniform = standard_normal_cdf(noise[:, :1].double())
        index = (uniform > chance.cumsum(-1)).sum(-1)
        pair = first + torch.minimum(index, (size - 1).clamp_min(0))
        pair = torch.where(size > 0, pair, 0)
        next_obs = torch.where((size > 0)[:, None], table.codes[table.successor[pair]], table.codes[state])
        reward = torch.where(size > 0, table.reward[member, choice, pair], 0.0)
        return next_obs, torch.addcmul(reward, table.reward_variance[pair].sqrt(), noise[:, -1])

    @staticmethod
    def _floored(variance: Tensor, scale: Tensor) -> Tensor:
        return torch.maximum(variance, LEAST_VARIANCE * scale.square())


class TabularTermination:
    """Share of the logged steps from s under a to s' that ended the task; implements `TerminationFn`.

    Args:
        model: the table.
    """

    def __init__(self, model: TabularDynamics) -> None:
        self.model = model

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """`[b]` in [0, 1]; what the table knows of s' from elsewhere where it was never seen to follow s."""
        table, model = self.model.table, self.model
        state, choice, following = model.state(obs), action.argmax(-1), model.state(next_obs)
        size = len(table.codes)
        # Pairs are sorted by state, then by successor: one search finds all.
        keys = table.origin * size + table.successor
        wanted = state * size + following
        pair = torch.searchsorted(keys, wanted).clamp_max(len(keys) - 1)
        anywhere = self._elsewhere(table)[following]
        return torch.where(keys[pair] == wanted, table.ends.mean(0)[choice, pair], anywhere)

    @staticmethod
    def _elsewhere(table: Table) -> Float[Tensor, "S"]:
        """`[S]`, share of all logged steps into each state that ended the task."""
        weight, zeros = table.count.sum(0), torch.zeros(len(table.codes))
        ended = zeros.index_add(0, table.successor, (table.count * table.ends.mean(0)).sum(0))
        return ended / zeros.index_add(0, table.successor, weight).clamp_min(1.0)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """Mean and variance of s' `[e, S, A, obs_dim]` and of the reward `[e, S, A]`, raw units."""

    mean: Tensor
    variance: Tensor
    reward_mean: Tensor
    reward_variance: Tensor

    @classmethod
    def of(cls, table: Table) -> "_Moments":
        """The table's, member by member; a state without successors stays where it is."""
        members, (actions, _) = table.chance.shape[0], table.count.shape
        states, width = table.codes.shape
        shape, origin = (members, states, actions), table.origin
        mean, square = torch.zeros(*shape, width), torch.zeros(*shape, width)
        reward, reward_square, spread = torch.zeros(3, *shape)
        # About each state itself, so that float32 does not cancel squares of large numbers.
        delta = table.codes[table.successor] - table.codes[origin]
        for member in range(members):
            for action in range(actions):
                chance, gain = table.chance[member, action], table.reward[member, action]
                mean[member, :, action].index_add_(0, origin, chance[:, None] * delta)
                square[member, :, action].index_add_(0, origin, chance[:, None] * delta.square())
                reward[member, :, action].index_add_(0, origin, chance * gain)
                reward_square[member, :, action].index_add_(0, origin, chance * gain.square())
                spread[member, :, action].index_add_(0, origin, chance * table.reward_variance)
        return cls(
            mean=mean + table.codes[:, None],
            variance=(square - mean.square()).clamp_min_(0.0),
            reward_mean=reward,
            reward_variance=(reward_square - reward.square()).clamp_min_(0.0) + spread,
        )
