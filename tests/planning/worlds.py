"""Small worlds to plan in, each a formula, with the quantities that the tests know by heart."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from mbrl.planning.problem.problem import Pessimism, PlanningProblem, StepOut

Formula = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
"""`(obs [r, o], action [r, a], member [r]) -> s' [r, o], reward [r], terminated [r], uncertainty [r]`."""


@dataclasses.dataclass
class World:
    """A step function from a formula, with additive noise; remembers what it was asked."""

    formula: Formula
    members: int = 1
    noise_std: float = 0.0
    actions: list[Tensor] = dataclasses.field(default_factory=list)
    asked: list[Tensor] = dataclasses.field(default_factory=list)

    @property
    def ensemble_size(self) -> int:
        return self.members

    def __call__(
        self, obs: Tensor, action: Tensor, *, member: Tensor | None = None, noise: Tensor | None = None
    ) -> StepOut:
        self.actions.append(action.clone())
        if member is not None:
            self.asked.append(member.clone())
            return self._one(obs, action, member, noise)
        rows = torch.zeros(len(obs), dtype=torch.int64)
        every = [self._one(obs, action, rows + e, noise) for e in range(self.members)]
        return StepOut(
            torch.stack([out.next_observation for out in every]),
            torch.stack([out.reward for out in every]),
            torch.stack([out.terminated for out in every]),
            every[0].uncertainty,
        )

    def _one(self, obs: Tensor, action: Tensor, member: Tensor, noise: Tensor | None) -> StepOut:
        next_obs, reward, terminated, uncertainty = self.formula(obs, action, member)
        if noise is not None:
            next_obs = next_obs + self.noise_std * noise[:, :-1]
        return StepOut(next_obs, reward, terminated, uncertainty)


@dataclasses.dataclass
class LinearPrior:
    """`a = clip(gain s + bias)`, plus `std` times the noise."""

    gain: Tensor
    bias: float = 0.0
    std: float = 0.3

    @property
    def act_dim(self) -> int:
        return len(self.gain)

    @property
    def is_discrete(self) -> bool:
        return False

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        mode = obs @ self.gain.T.to(obs.dtype) + self.bias
        return (mode if noise is None else mode + self.std * noise).clamp(-1.0, 1.0)

    def sample(self, obs: Tensor, noise: Tensor, *, spread: float = 1.0) -> Tensor:
        return torch.stack([self.act(obs, spread * draw) for draw in noise])

    def logits(self, obs: Tensor) -> Tensor:
        raise AssertionError("continuous actions")


@dataclasses.dataclass
class FormulaLeaf:
    """Critics from formulas of the state; Q adds `-|a - target|^2`, so that it prefers one action."""

    values: list[Callable[[Tensor], Tensor]]

    def value(self, obs: Tensor) -> Tensor:
        return torch.stack([value(obs) for value in self.values])

    def action_value(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.value(obs) - action.square().sum(-1)


def zero_prior(obs_dim: int, act_dim: int) -> LinearPrior:
    return LinearPrior(torch.zeros(act_dim, obs_dim))


def zero_leaf() -> FormulaLeaf:
    return FormulaLeaf([lambda obs: torch.zeros_like(obs[:, 0])])


def make_problem(
    formula: Formula,
    *,
    obs_dim: int = 1,
    act_dim: int = 1,
    members: int = 1,
    discount: float = 0.9,
    prior: LinearPrior | None = None,
    leaf: FormulaLeaf | None = None,
    pessimism: Pessimism | None = None,
    noise_std: float = 0.0,
    dtype: torch.dtype = torch.float64,
    value_scale: float = 1.0,
) -> PlanningProblem:
    return PlanningProblem(
        World(formula, members, noise_std),
        zero_prior(obs_dim, act_dim) if prior is None else prior,
        zero_leaf() if leaf is None else leaf,
        obs_dim,
        discount,
        pessimism=Pessimism() if pessimism is None else pessimism,
        value_scale=value_scale,
        dtype=dtype,
    )


def steady(reward: Tensor) -> tuple[Tensor, Tensor]:
    """Nothing terminates, nothing is uncertain."""
    return torch.zeros_like(reward, dtype=torch.bool), torch.zeros_like(reward)


@dataclasses.dataclass
class LQR:
    """`s' = A s + B a`, `r = -(s'Qs + a'Ra)`, discounted; P and K from the Riccati equation."""

    a: Tensor
    b: Tensor
    q: Tensor
    r: Tensor
    discount: float

    def __post_init__(self) -> None:
        root = math.sqrt(self.discount)
        matrices = (root * self.a, root * self.b, self.q, self.r)
        p = scipy.linalg.solve_discrete_are(*(m.numpy() for m in matrices))
        self.p = torch.from_numpy(p)
        g, b, a = self.discount, self.b, self.a
        self.k = torch.linalg.solve(self.r + g * b.T @ self.p @ b, g * b.T @ self.p @ a)

    @classmethod
    def random(
        cls, obs_dim: int, act_dim: int, *, seed: int, discount: float = 0.95, radius: float = 1.02
    ) -> "LQR":
        """Unit state costs, half of them for actions; `radius` is the largest eigenvalue of the dynamics."""
        rng = np.random.default_rng(seed)
        a = rng.normal(size=(obs_dim, obs_dim))
        a *= radius / np.abs(np.linalg.eigvals(a)).max()
        b = rng.normal(size=(obs_dim, act_dim))
        matrices = (a, b, np.eye(obs_dim), 0.5 * np.eye(act_dim))
        return cls(*(torch.from_numpy(m) for m in matrices), discount)

    def formula(self, obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        cost = ((obs @ self.q) * obs).sum(-1) + ((action @ self.r) * action).sum(-1)
        return obs @ self.a.T + action @ self.b.T, -cost, *steady(cost)

    def value(self, obs: Tensor) -> Tensor:
        return -((obs @ self.p) * obs).sum(-1)

    def states(self, count: int, *, seed: int) -> Tensor:
        """States with `|K s| = 0.5` at most."""
        draws = torch.from_numpy(np.random.default_rng(seed).normal(size=(count, len(self.a))))
        return 0.5 * draws / (draws @ self.k.T).norm(dim=1).max()

    def problem(self, noise_std: float = 0.0) -> PlanningProblem:
        return make_problem(
            self.formula,
            obs_dim=len(self.a),
            act_dim=self.b.shape[1],
            discount=self.discount,
            leaf=FormulaLeaf([self.value]),
            noise_std=noise_std,
        )
