"""Logs with known answers that several tests ask about: tables, and the linear-Gaussian task."""

import dataclasses

import numpy as np
import torch

from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.off_policy.estimators.base import ESTIMATORS
from mbrl.off_policy.estimators.context import EstimatorContext, EstimatorSettings
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.value.fqe import FQEConfig, FQEResult, fit_fqe
from tests.off_policy.lqg import LinearPolicy, NoisyLinearPolicy, scalar_task
from tests.off_policy.tabular import (
    MDP,
    Array,
    arrays_of,
    dataset_of,
    episodes_of,
    random_mdp,
    random_policy,
    simulate,
)

DISCOUNTED = Estimand(0.8)
FINITE = Estimand(0.9, horizon=6)
QUICK = FQEConfig(hidden=(32,), updates=40, batch_size=32)
TABULAR = FQEConfig(  # a linear function of one-hot states with an output for each action: a table
    hidden=(), updates=500, batch_size=256, learning_rate=0.05, polyak_tau=0.1, bootstrap=False
)


@dataclasses.dataclass(frozen=True)
class TablePolicy:
    """A discrete policy on one-hot states."""

    table: torch.Tensor

    @property
    def act_dim(self) -> int:
        return self.table.shape[1]

    def probs(self, obs: torch.Tensor) -> torch.Tensor:
        return obs @ self.table

    def act(self, obs: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        best = self.probs(obs).argmax(-1)
        return torch.nn.functional.one_hot(best, self.act_dim).float()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fit(dataset: Dataset, policy, estimand=DISCOUNTED, config=QUICK, seed: int = 0) -> FQEResult:
    return fit_fqe(dataset, policy, estimand=estimand, config=config, generator=generator(seed))


def table_log(n: int = 300, steps: int = 8, seed: int = 0) -> tuple[MDP, Dataset, TablePolicy, Array]:
    mdp = random_mdp(seed)
    behaviour, evaluated = random_policy(1, mdp), random_policy(2, mdp)
    log = simulate(mdp, behaviour, n, steps, np.random.default_rng(seed))
    dataset = dataset_of(episodes_of(log, mdp, behaviour), mdp)
    return mdp, dataset, TablePolicy(torch.tensor(evaluated, dtype=torch.float32)), evaluated


def half_table_log(**settings) -> tuple[MDP, Dataset, TablePolicy, Array]:
    """Probabilities that float32 holds exactly, so that answers can be compared to 1e-9."""
    mdp, dataset, _, _ = table_log(**settings)
    table = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.75, 0.25], [0.125, 0.125, 0.75], [0.25, 0.25, 0.5]])
    return mdp, dataset, TablePolicy(table), table.double().numpy()


def empirical(dataset: Dataset, mdp: MDP) -> MDP:
    """The model that the counts of a log describe."""
    rows = dataset.transitions()
    state, action = rows.observation.argmax(1), rows.action.argmax(1)
    following = np.where(rows.terminated, mdp.states, rows.next_observation.argmax(1))
    counts, reward = np.zeros_like(mdp.transition), np.zeros_like(mdp.reward)
    np.add.at(counts, (state, action, following), 1)
    np.add.at(reward, (state, action), rows.reward)
    total = counts.sum(2)
    first = np.array([e.observations[0].argmax() for e in dataset.episodes])
    start = np.bincount(first, minlength=mdp.states) / len(dataset)
    return MDP(counts / total[..., None], reward / total, start)


def logged(n: int = 40, *, seed: int = 0, estimand: Estimand = FINITE, end: float = 0.15) -> OPEArrays:
    """Padded episodes of a random table, of six steps at most, with the exact values of another policy."""
    mdp = random_mdp(seed, end=end)
    behaviour, evaluated = random_policy(1, mdp), random_policy(2, mdp)
    log = simulate(mdp, behaviour, n, 6, np.random.default_rng(seed))
    q = mdp.q_discounted(evaluated, 0.9) if estimand.horizon is None else mdp.q_finite(evaluated, 0.9, 6)
    return arrays_of(log, evaluated, behaviour, estimand, q)


def one_step(n: int = 30) -> OPEArrays:
    """The first step of every episode of a log."""
    arrays = logged(n=n)
    return OPEArrays(
        arrays.log_ratio[:, :1],
        arrays.reward[:, :1],
        arrays.action_value[:, :1],
        np.pad(arrays.value[:, :1], ((0, 0), (0, 1))),
        np.ones(n, dtype=np.int64),
        np.ones(n, dtype=bool),
        np.zeros(n, dtype=bool),
        Estimand(0.9, horizon=1),
    )


def without_values(arrays: OPEArrays) -> OPEArrays:
    return dataclasses.replace(
        arrays, action_value=np.zeros_like(arrays.action_value), value=np.zeros_like(arrays.value)
    )


def select(arrays: OPEArrays, episodes: np.ndarray) -> OPEArrays:
    """The same streams of some episodes, with repetition allowed."""
    names = ("log_ratio", "reward", "action_value", "value", "length", "terminated", "truncated")
    return dataclasses.replace(arrays, **{name: getattr(arrays, name)[episodes] for name in names})


def context_of(
    policy: Policy, dataset: Dataset, estimand: Estimand, fqe: FQEConfig = QUICK, **settings
) -> EstimatorContext:
    """What an estimator is asked; further settings as of `EstimatorSettings`."""
    return EstimatorContext(policy, dataset, EstimatorSettings(estimand, fqe, **settings))


def ask(context: EstimatorContext, name: str, seed: int = 0) -> Estimate:
    """The answer of a registered estimator."""
    return ESTIMATORS.get(name).estimate(context, generator=generator(seed))


def linear(gain: float, std: float) -> NoisyLinearPolicy:
    return NoisyLinearPolicy(torch.tensor([[gain]]), 8.0, std)


def acting(gain: float, std: float) -> LinearPolicy:
    """A linear policy; deterministic at std 0, without a density."""
    return linear(gain, std) if std else LinearPolicy(torch.tensor([[gain]]), 8.0)


def lqg_log(n: int = 200, steps: int = 20, seed: int = 0) -> Dataset:
    return scalar_task().simulate(linear(0.4, 0.4), n, steps, seed)


def unlogged(dataset: Dataset) -> Dataset:
    """The log without the densities of who acted."""
    episodes = tuple(dataclasses.replace(e, behaviour_log_prob=None) for e in dataset.episodes)
    return dataclasses.replace(dataset, episodes=episodes)
