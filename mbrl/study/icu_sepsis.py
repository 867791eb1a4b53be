"""ICU-Sepsis (Choudhary, Gupta & Thomas 2024): a tabular task of treating sepsis, made from records.

713 states of a patient, 25 actions (5 doses of fluids times 5 of vasopressors), a reward of 1 for survival.
It is a benchmark and no model of a patient: see `docs/healthcare.md`. The tables come from the package
`icu-sepsis`; only its files are read, so none of what it imports is.

An observation is the centre of the state's cluster, 47 standardised measurements; the ends, death and
survival, have zeros there. Each log says which actions were allowed (`action_mask`): those that were
admissible in the sense of the package (taken at least 20 times in the records), or that its clinicians take
at all. The two lists differ, and the clinicians of the package do take actions that are not admissible.
"""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import ConfigError
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo

ENDS: Final = 3
"""The last states: death, survival, and one that both lead to."""

MOST_STEPS: Final = 500
"""Time limit of the published environment; a stay has 9 steps on average, and 1 in 30,000 more than 100."""

MASK: Final = "action_mask"

_CHUNK: Final = 4_000  # stays whose next-state distributions are held in memory together
_REMEDY: Final = "Remedy: pip install 'mbrl-offline[healthcare]'."

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SepsisTask:
    """The task's tables; S = 716 states with their ends, A = 25 actions.

    Attributes:
        transition: `[S, A, S]`.
        reward: `[S, A, S]`, 1 on entering survival.
        start: `[S]`, distribution of first states.
        clinicians: `[S, A]`, the policy that was estimated from the records; zeros at the ends.
        admissible: `[S, A]`, actions that the records hold at least 20 times; any other one does what the
            admissible ones do on average.
        centres: `[S, 47]`, measurements of each state, standardised.
    """

    transition: Array
    reward: Array
    start: Array
    clinicians: Array
    admissible: NDArray[np.bool_]
    centres: NDArray[np.float32]

    @classmethod
    def load(cls) -> "SepsisTask":
        """Reads the files of the installed package.

        Raises:
            ConfigError: it is not installed, or its files are other ones.
        """
        spec = importlib.util.find_spec("icu_sepsis")
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"ICU-Sepsis takes the package icu-sepsis, which is not installed. {_REMEDY}")
        return cls.read(Path(spec.submodule_search_locations[0]) / "envs" / "assets")

    @classmethod
    def read(cls, folder: Path) -> "SepsisTask":
        """Reads the tables in a folder of the package's layout.

        Raises:
            ConfigError: they are not there, or other ones.
        """
        try:
            with np.load(folder / "dynamics.npz") as found:
                transition, reward, start = (found[name] for name in ("tx_mat", "r_mat", "d_0"))
                clinicians, centres = (found[name] for name in ("expert_policy", "state_cluster_centers"))
            lines = (folder / "admissible_actions.txt").read_text(encoding="ascii").splitlines()
        except (OSError, KeyError, ValueError) as error:
            raise ConfigError(f"{folder} holds no tables of ICU-Sepsis ({error}). {_REMEDY}") from error
        states, actions = clinicians.shape
        admissible = np.zeros((states, actions), dtype=np.bool_)
        for state, line in enumerate(lines[1 : states + 1]):
            admissible[state, [int(action) for action in line.split()]] = True
        return cls(transition, reward, start, clinicians, admissible, centres.astype(np.float32))

    @property
    def states(self) -> int:
        """States of a patient, 713; those after them are ends."""
        return len(self.start) - ENDS

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """`[S, A]`, actions that are admissible, or that the clinicians take; everything at the ends."""
        found = self.admissible | (self.clinicians > 0)
        found[self.states :] = True
        return found

    def value(self, policy: Array) -> float:
        """The chance of survival under a policy `[S, A]`, exactly: `start (I - P_pi)^-1 r_pi`."""
        live = slice(self.states)
        step: Array = np.einsum("sa,sat->st", policy[live], self.transition[live])
        gain: Array = np.einsum("sa,sat,sat->s", policy[live], self.transition[live], self.reward[live])
        value = np.linalg.solve(np.eye(self.states) - step[:, live], gain)
        return float(self.start[live] @ value)

    def best_policy(self) -> Array:
        """`[S, A]`, the best allowed policy by value iteration in the true tables: what a log cannot know."""
        gain: Array = np.einsum("sat,sat->sa", self.transition, self.reward)
        value, allowed = np.zeros(len(self.start)), self.allowed
        while True:
            q: Array = np.where(allowed, gain + self.transition @ value, -np.inf)
            after: Array = np.where(np.arange(len(value)) < self.states, q.max(1), 0.0)
            if np.abs(after - value).max() < 1e-10:
                return np.eye(q.shape[1])[q.argmax(1)]
            value = after

    def log(self, stays: int, *, seed: int, policy: Array | None = None) -> Dataset:
        """Stays that a policy treated, with its probabilities and the admissible actions.

        Args:
            stays: how many.
            seed: of all draws.
            policy: `[S, A]`; None for the clinicians.
        """
        acting = self.clinicians if policy is None else policy
        paths, choices, lengths = self._simulate(stays, acting, np.random.default_rng(seed))
        one_hot = np.eye(acting.shape[1], dtype=np.float32)
        with np.errstate(divide="ignore"):
            log_prob = np.log(acting).astype(np.float32)
        masks = self.allowed
        episodes = tuple(
            self._episode(paths[i, : n + 1], choices[i, :n], one_hot, (log_prob, masks))
            for i, n in enumerate(lengths.tolist())
        )
        who = "clinicians" if policy is None else "policy"
        info = DatasetInfo(
            name=f"icu-sepsis-{who}-{stays}",
            env_id="Sepsis/ICU-Sepsis-v2",
            obs_names=tuple(f"measurement_{k}" for k in range(self.centres.shape[1])),
            provenance={"made_by": "mbrl.study.icu_sepsis", "seed": str(seed)},
        )
        return Dataset(episodes, SpaceSpec.discrete(self.centres.shape[1], dose_names()), info)

    def _episode(
        self,
        states: NDArray[np.int64],
        actions: NDArray[np.int64],
        one_hot: NDArray[np.float32],
        by_state: tuple[NDArray[np.float32], NDArray[np.bool_]],
    ) -> Episode:
        rewards = np.zeros(len(actions), dtype=np.float32)
        ended = int(states[-1]) >= self.states
        rewards[-1] = float(states[-1] == self.states + 1)
        return Episode(
            observations=self.centres[states],
            actions=one_hot[actions],
            rewards=rewards,
            terminated=ended,
            truncated=not ended,
            behaviour_log_prob=by_state[0][states[:-1], actions],
            infos={MASK: by_state[1][states]},
        )

    def _simulate(
        self, stays: int, policy: Array, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """States `[n, T + 1]`, actions `[n, T]` and lengths `[n]`."""
        cumulative = self.transition.cumsum(-1, dtype=np.float32)
        acting = policy.cumsum(-1)
        states = np.zeros((stays, MOST_STEPS + 1), dtype=np.int64)
        actions, lengths = np.zeros((stays, MOST_STEPS), dtype=np.int64), np.zeros(stays, dtype=np.int64)
        states[:, 0] = np.searchsorted(self.start.cumsum(), rng.random(stays), side="right").clip(
            max=self.states - 1
        )
        alive = np.arange(stays)
        for t in range(MOST_STEPS):
            for rows in np.array_split(alive, len(alive) // _CHUNK + 1):
                now = states[rows, t]
                actions[rows, t] = _draw(acting[now], rng)
                states[rows, t + 1] = _draw(cumulative[now, actions[rows, t]], rng)
            lengths[alive] += 1
            alive = alive[states[alive, t + 1] < self.states]
            if len(alive) == 0:
                break
        return states, actions, lengths


def dose_names() -> tuple[str, ...]:
    """Names of the 25 actions: dose of fluids, then of vasopressors, 0 (none) to 4."""
    return tuple(f"fluids {k // 5}, vasopressors {k % 5}" for k in range(25))


def _draw(cumulative: NDArray[np.floating], rng: np.random.Generator) -> NDArray[np.int64]:
    """A draw of each row `[b, k]` of cumulative probabilities, never one of probability 0."""
    uniform = rng.random(len(cumulative)) * cumulative[:, -1]
    return (cumulative <= uniform[:, None]).sum(1).clip(max=cumulative.shape[1] - 1)
