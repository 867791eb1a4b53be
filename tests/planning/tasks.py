"""Small planning problems with known answers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mbrl.planning.base import PLANNERS, Budget, Hints, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem, StepOut
from mbrl.planning.tree.evaluation import ModelEvaluation, Transition
from mbrl.planning.tree.proposals import DiscreteProposals
from mbrl.planning.tree.search import Copies, Search, instantiate_trees
from mbrl.planning.tree.simulation import Backward, backward

DOUBLE = torch.float64


@dataclasses.dataclass
class TableStep:
    """Tables of every member; states are indices, actions one-hot. Random successors come from `noise`."""

    following: Tensor  # [e, s, a], or [e, s, a, s'] probabilities
    reward: Tensor  # [e, s, a]
    terminated: Tensor  # [s]
    uncertainty: Tensor | None = None  # [s, a]

    def __post_init__(self) -> None:
        self.asked: list[Tensor] = []

    @property
    def ensemble_size(self) -> int:
        return len(self.reward)

    def __call__(
        self, obs: Tensor, action: Tensor, *, member: Tensor | None = None, noise: Tensor | None = None
    ) -> StepOut:
        state, index = obs[:, 0].long(), action.argmax(-1)
        self.asked.append(torch.stack([state, index], 1))
        who = torch.arange(self.ensemble_size)[:, None] if member is None else member
        after = self.following[who, state, index]
        if self.following.ndim == 4:
            uniform = 0.5 * (1.0 + torch.erf(noise[:, 0] / math.sqrt(2.0)))
            after = (after.cumsum(-1) < uniform[:, None]).sum(-1).clamp(max=after.shape[-1] - 1)
        uncertainty = (
            torch.zeros(len(obs), dtype=DOUBLE)
            if self.uncertainty is None
            else self.uncertainty[state, index]
        )
        return StepOut(
            after[..., None].to(DOUBLE), self.reward[who, state, index], self.terminated[after], uncertainty
        )


@dataclasses.dataclass
class TablePrior:
    table: Tensor  # [s, a] logits

    is_discrete = True

    @property
    def act_dim(self) -> int:
        return self.table.shape[1]

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        return torch.eye(self.act_dim, dtype=DOUBLE)[self.logits(obs).argmax(-1)]

    def sample(self, obs: Tensor, noise: Tensor, *, spread: float = 1.0) -> Tensor:
        raise NotImplementedError

    def logits(self, obs: Tensor) -> Tensor:
        return self.table[obs[:, 0].long()]


@dataclasses.dataclass
class TableValue:
    table: Tensor  # [c, s]

    def __post_init__(self) -> None:
        self.asked: list[Tensor] = []

    def value(self, obs: Tensor) -> Tensor:
        self.asked.append(obs[:, 0].long())
        return self.table[:, obs[:, 0].long()]

    def action_value(self, obs: Tensor, action: Tensor) -> Tensor:
        raise NotImplementedError


def table_problem(
    following: Tensor,
    reward: Tensor,
    *,
    values: Tensor,
    terminated: Tensor | None = None,
    logits: Tensor | None = None,
    uncertainty: Tensor | None = None,
    discount: float = 0.95,
    pessimism: Pessimism | None = None,
) -> PlanningProblem:
    """A discrete task of tables `[s, a]` or `[e, s, a]`; values `[s]` or `[c, s]`."""
    reward = reward if reward.ndim == 3 else reward[None]
    following = following if len(following) == len(reward) and following.ndim > 2 else following[None]
    states, actions = reward.shape[1:]
    return PlanningProblem(
        step=TableStep(
            following,
            reward,
            torch.zeros(states, dtype=torch.bool) if terminated is None else terminated,
            uncertainty,
        ),
        prior=TablePrior(torch.zeros(states, actions, dtype=DOUBLE) if logits is None else logits),
        leaf=TableValue(values if values.ndim == 2 else values[None]),
        obs_dim=1,
        discount=discount,
        pessimism=pessimism or Pessimism(),
        dtype=DOUBLE,
    )


def make_search(
    problem: PlanningProblem,
    obs: Tensor,
    *,
    sims: int,
    copies: Copies | None = None,
    transition: Transition = "mean",
    hints: Hints | None = None,
    max_depth: int = 10,
    backward: Backward = backward,
    **trees: Any,
) -> Search:
    """A search over all actions of a discrete task that no strategy has begun."""
    proposals, noise = DiscreteProposals(problem), RowNoise(torch.arange(len(obs)))
    copies = copies or Copies(1, problem.step.ensemble_size)
    root = proposals.root(obs, noise, hints or Hints())
    tree = instantiate_trees(
        root,
        copies,
        is_stored=False,
        inner_width=proposals.width,
        capacity=len(obs) * sims * copies.count,
        **trees,
    )
    return Search(
        root=root,
        evaluate=ModelEvaluation(problem, proposals, transition=transition, noise=noise, sims=sims),
        tree=tree,
        copies=copies,
        lcb_coef=problem.pessimism.lcb_coef,
        max_depth=max_depth,
        halt_threshold=problem.pessimism.halt_threshold,
        turn=torch.zeros(len(obs), dtype=torch.int64),
        backward=backward,
    )


def one_step_search(
    q: Tensor, *, sims: int, hints: Hints | None = None, logits: Tensor | None = None
) -> Search:
    """Tasks that end after one action, worth `q` `[b, k]`; `logits` likewise."""
    states_, actions = q.shape
    problem = table_problem(
        torch.full((states_ + 1, actions), states_),
        torch.cat((q, q[:1])),
        values=torch.zeros(states_ + 1, dtype=DOUBLE),
        terminated=torch.arange(states_ + 1) == states_,
        logits=None if logits is None else torch.cat((logits, logits[:1])),
    )
    return make_search(problem, states(*range(states_)), sims=sims, hints=hints)


def random_tables(seed: int, *, states: int = 30, actions: int = 4, reward_sd: float = 1.0):
    generator = torch.Generator().manual_seed(seed)
    following = torch.randint(states, (states, actions), generator=generator)
    reward = reward_sd * torch.randn(states, actions, generator=generator, dtype=DOUBLE)
    return following, reward, generator


def iterate_values(
    following: Tensor, reward: Tensor, *, discount: float, terminated: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """V* and Q* of deterministic tables `[s, a]`, or of probabilities `[s, a, s']`."""
    value = torch.zeros(len(reward), dtype=DOUBLE)
    q = reward
    for _ in range(2000):
        alive = value if terminated is None else value * ~terminated
        after = alive[following] if following.ndim == 2 else following @ alive
        q = reward + discount * after
        value = q.amax(-1)
    return value, q


def plan(
    name: str,
    problem: PlanningProblem,
    obs: Tensor,
    *,
    sims: int = 32,
    seed: int = 0,
    hints: Hints | None = None,
    budget: Budget | None = None,
    clock: Callable[[], float] | None = None,
    noise: RowNoise | None = None,
    **settings: object,
) -> PlanResult:
    """Plans with a registered planner."""
    entry = PLANNERS.get(name)
    planner = entry.build(problem, entry.config(**settings), clock)
    noise = noise or RowNoise.draw(len(obs), torch.Generator().manual_seed(seed))
    return planner.plan(obs, budget=budget or Budget(sims=sims), noise=noise, hints=hints)


def states(*index: int) -> Tensor:
    return torch.tensor(index, dtype=DOUBLE)[:, None]


@dataclasses.dataclass
class BoxStep:
    """`s' = A s + B a` and `r = -(s'Qs + a'Ra)` for every member; bad or uncertain where told."""

    transition: Tensor  # [e, s, s]
    control: Tensor  # [e, s, a]
    action_cost: float = 0.1
    limit: float = math.inf  # |s'| beyond it terminates
    uncertainty_coef: float = 0.0  # u = coef |a|

    def __post_init__(self) -> None:
        self.actions: list[Tensor] = []

    @property
    def ensemble_size(self) -> int:
        return len(self.transition)

    def __call__(
        self, obs: Tensor, action: Tensor, *, member: Tensor | None = None, noise: Tensor | None = None
    ) -> StepOut:
        self.actions.append(action)
        a, b = self.transition, self.control
        if member is not None:
            a, b = a[member], b[member]
            after = torch.einsum("rij,rj->ri", a, obs) + torch.einsum("rij,rj->ri", b, action)
        else:
            after = torch.einsum("eij,rj->eri", a, obs) + torch.einsum("eij,rj->eri", b, action)
        if noise is not None:
            after = after + 0.05 * noise[:, :-1]
        reward = -(obs.square().sum(-1) + self.action_cost * action.square().sum(-1)).expand(after.shape[:-1])
        return StepOut(
            after, reward, after.abs().amax(-1) > self.limit, self.uncertainty_coef * action.abs().sum(-1)
        )


@dataclasses.dataclass
class BoxPrior:
    """Gaussian around `gain s`, of given deviation; leaves the box on purpose."""

    gain: Tensor  # [a, s]
    deviation: float = 0.4
    is_discrete = False

    @property
    def act_dim(self) -> int:
        return len(self.gain)

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        mean = obs @ self.gain.T
        return mean if noise is None else mean + self.deviation * noise

    def sample(self, obs: Tensor, noise: Tensor, *, spread: float = 1.0) -> Tensor:
        return obs @ self.gain.T + spread * self.deviation * noise

    def logits(self, obs: Tensor) -> Tensor:
        raise NotImplementedError


@dataclasses.dataclass
class BoxValue:
    """`-c_j |s|^2` in each critic's opinion."""

    coefs: tuple[float, ...] = (2.0, 2.5)

    def value(self, obs: Tensor) -> Tensor:
        return -torch.tensor(self.coefs, dtype=obs.dtype)[:, None] * obs.square().sum(-1)

    def action_value(self, obs: Tensor, action: Tensor) -> Tensor:
        raise NotImplementedError


def box_problem(
    *,
    members: int = 3,
    obs_dim: int = 3,
    act_dim: int = 2,
    pessimism: Pessimism | None = None,
    deviation: float = 0.4,
    **step: float,
) -> PlanningProblem:
    """A linear task with members that differ a little."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=DOUBLE)

    transition = 0.8 * torch.eye(obs_dim, dtype=DOUBLE) + 0.1 * draw(members, obs_dim, obs_dim)
    control = draw(obs_dim, act_dim) + 0.1 * draw(members, obs_dim, act_dim)
    return PlanningProblem(
        step=BoxStep(transition, control, **step),
        prior=BoxPrior(0.3 * draw(act_dim, obs_dim), deviation),
        leaf=BoxValue(),
        obs_dim=obs_dim,
        discount=0.95,
        pessimism=pessimism or Pessimism(),
        dtype=DOUBLE,
    )
