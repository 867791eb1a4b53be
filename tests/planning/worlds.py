"""Small worlds to plan in, each a formula, with the quantities that the tests know by heart."""

import dataclasses
import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.testing.worlds import Formula, FormulaLeaf, LinearPrior, World


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

    def finite_gain(self, horizon: int) -> Tensor:
        """K of the first of `horizon` steps, after which nothing is earned; by backward induction."""
        p, k = torch.zeros_like(self.q), torch.zeros_like(self.k)
        for _ in range(horizon):
            gp = self.discount * p
            k = torch.linalg.solve(self.r + self.b.T @ gp @ self.b, self.b.T @ gp @ self.a)
            p = self.q + self.a.T @ gp @ (self.a - self.b @ k)
        return k

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
