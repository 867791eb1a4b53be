"""Where in the log a policy leaves the support of the logged actions.

The log is halved by episodes; each half is judged by the support fitted to the other, so no state is judged
by a fit that saw what was done there.
"""

import dataclasses
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.kept import Kept
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.judgement.report.measured import SupportByPlace, SupportByTime
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import CHUNK, action_probabilities, draw_actions
from mbrl.shift.support import MIN_ROWS, BehaviourSupport

_CELLS: Final = 16
"""Cells of an axis of the plane: some 100 of them hold most states."""

_TIME_BINS: Final = 50
"""Most bins of the steps of an episode: what a curve of the page can show."""

_PLANE_ROWS: Final = 50_000
"""Most states that the plane is made of; of more, every k-th."""

_EDGE: Final = 0.005
"""Share of the states beyond each end of an axis of the plane; they count in its last cell."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SupportMap:
    """Which logged states lead the policy to an action that the log does not know there.

    Attributes:
        outside: `[N]`, by logged step.
        method: `density`: less likely than 99 % of the logged actions; `distance`: farther from the logged
            (s, a) than 99 % of them, for discrete actions.
    """

    outside: NDArray[np.bool_]
    method: Literal["density", "distance"]

    @property
    def share(self) -> float:
        """Of all logged states; 0.01 for the behaviour itself."""
        return float(self.outside.mean())


def map_support(policy: Policy, dataset: Dataset, *, generator: torch.Generator) -> SupportMap:
    """Asks the policy for an action at every logged state.

    The supports depend on the log alone: all candidates meet the same, fitted once in a process.

    Args:
        policy: deterministic or not; a draw is judged of one that is not.
        dataset: the log.
        generator: of the policy's draws.

    Raises:
        DataError: half of the log is too small to set a threshold on.
    """
    halves = _HALVES.get(dataset.content_hash, lambda: _Halves.fit(dataset))
    obs = torch.tensor(dataset.transitions().observation)
    action = _draw(policy, obs, generator)
    is_discrete = isinstance(policy, DiscretePolicy)
    outside = np.zeros(len(obs), dtype=np.bool_)
    for k, support in enumerate(halves.supports):
        judge = support.is_distant if is_discrete else support.is_unlikely
        held_out = torch.from_numpy(np.flatnonzero(halves.half == k))
        for start in range(0, len(held_out), CHUNK):
            part = held_out[start : start + CHUNK]
            outside[part.numpy()] = judge(obs[part], action[part]).numpy()
    return SupportMap(outside, "distance" if is_discrete else "density")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Halves:
    """Both halves of a log, and what judges each.

    Attributes:
        half: `[N]`, 0 or 1, the same for all steps of an episode.
        supports: of either half, fitted to the other.
    """

    half: NDArray[np.int64]
    supports: tuple[BehaviourSupport, BehaviourSupport]

    @classmethod
    def fit(cls, dataset: Dataset) -> "_Halves":
        generator = RngStreams(0).at("support_map")
        rows = dataset.transitions()
        half = (torch.randperm(len(dataset), generator=generator).numpy() % 2)[rows.episode]
        least = min(int((half == k).sum()) for k in (0, 1))
        if least < MIN_ROWS:
            raise DataError(f"half of the log holds {least} steps, and a 1 % quantile needs {MIN_ROWS}")
        obs, action = torch.tensor(rows.observation), torch.tensor(rows.action)

        def fit_other(k: int) -> BehaviourSupport:
            train, held_out = (torch.from_numpy(np.flatnonzero(half == side)) for side in (1 - k, k))
            mean, std = fit_moments(rows.observation[half == 1 - k])
            return BehaviourSupport.fit(
                (obs[train], action[train]),
                (obs[held_out], action[held_out]),
                space=dataset.spec,
                normaliser=Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
                generator=generator,
            )

        return cls(half, (fit_other(0), fit_other(1)))


_HALVES: Final = Kept[str, _Halves](4)


def _draw(policy: Policy, obs: Tensor, generator: torch.Generator) -> Tensor:
    if isinstance(policy, DiscretePolicy):
        chosen = torch.multinomial(action_probabilities(policy, obs), 1, generator=generator)[:, 0]
        return torch.nn.functional.one_hot(chosen, policy.act_dim).to(obs.dtype)
    return draw_actions(policy, obs, count=1, generator=generator)[0]


def support_by_time(support: SupportMap, dataset: Dataset) -> SupportByTime:
    """Share outside of the support by step of the episode, in at most 50 equal bins."""
    step = dataset.transitions().step
    width = -(-(int(step.max()) + 1) // _TIME_BINS)
    count = np.bincount(step // width)
    outside = np.bincount(step // width, weights=support.outside)
    return SupportByTime(
        step=tuple((np.arange(count.size) * width).tolist()),
        share=tuple((outside / count).tolist()),
        count=tuple(count.tolist()),
    )


def support_by_place(support: SupportMap, dataset: Dataset) -> SupportByPlace:
    """Share outside of the support over the plane of the first two principal components of the states.

    Raises:
        DataError: the states vary in fewer than two dimensions.
    """
    obs = dataset.transitions().observation
    stride = -(-len(obs) // _PLANE_ROWS)
    place, explained = principal_plane(obs[::stride])
    outside = support.outside[::stride]
    cells, centres = _cells(place)
    flat = cells[:, 0] * _CELLS + cells[:, 1]
    count = np.bincount(flat, minlength=_CELLS**2)
    bad = np.bincount(flat, weights=outside, minlength=_CELLS**2)
    filled = np.flatnonzero(count)
    return SupportByPlace(
        x=centres[0][filled // _CELLS].tolist(),
        y=centres[1][filled % _CELLS].tolist(),
        share=(bad[filled] / count[filled]).tolist(),
        count=count[filled].tolist(),
        explained=explained,
    )


def principal_plane(obs: NDArray[np.float32]) -> tuple[Array, tuple[float, float]]:
    """`[n, 2]` scores of the first two principal components of standardised states, and their shares.

    The sign of a component makes its largest loading positive.

    Raises:
        DataError: the states vary in fewer than two dimensions.
    """
    wide = obs.astype(np.float64)
    std = wide.std(0)
    varies = std > 1e-7 * np.maximum(np.abs(wide).max(0), 1e-5)
    if int(varies.sum()) < 2:
        raise DataError("the states vary in fewer than two dimensions, so there is no plane of them")
    scaled = (wide[:, varies] - wide[:, varies].mean(0)) / std[varies]
    power, axes = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    first, second = (float(value) for value in power[::-1][:2] / power.sum())
    return scaled @ axes, (first, second)


def _cells(place: Array) -> tuple[NDArray[np.int64], list[Array]]:
    low, high = np.quantile(place, [_EDGE, 1 - _EDGE], axis=0)
    width = np.where(high > low, high - low, 1.0) / _CELLS
    cells = np.clip(((place - low) / width).astype(np.int64), 0, _CELLS - 1)
    return cells, [low[d] + width[d] * (np.arange(_CELLS) + 0.5) for d in (0, 1)]
