"""Are the predicted distributions right? One step, held-out rows, elites as an equal mixture of Gaussians."""

import dataclasses
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.ops.gaussian import gaussian_nll

LEVELS: Final = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Nominal levels of central intervals."""

PIT_BINS: Final = 20
MATCHED_LEVEL: Final = 0.9
_MATCHED_QUANTILE = 1.6448536  # |z| below which 90 % of a normal distribution lies
_SEARCH_RANGE = 2.0  # the mixture's temperature lies within this factor of a single member's
Recalibration: TypeAlias = Literal["interval", "likelihood", "none"]


@dataclasses.dataclass(frozen=True, slots=True)
class HeldOutSteps:
    """Predictions and outcomes of held-out steps, normalised target units, float64.

    Attributes:
        mean: `[e, n, k]`.
        std: `[e, n, k]`, before any temperature.
        target: `[n, k]`.
    """

    mean: Float[Tensor, "e n k"]
    std: Float[Tensor, "e n k"]
    target: Float[Tensor, "n k"]

    def scaled(self, temperature: Float[Tensor, "k"]) -> "HeldOutSteps":
        """With all deviations multiplied by `temperature`; the means and their disagreement stay."""
        return dataclasses.replace(self, std=self.std * temperature)


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """How well distributions match outcomes, by target dimension (the reward last).

    Attributes:
        nll: `[k]` nats, normalised units, mean over members: each member is judged as it is sampled.
        coverage: `[levels, k]` share of targets inside the central mixture interval of each of `LEVELS`.
        histogram: `[bins, k]` counts of the probability integral transform.
        ks: `[k]` largest distance of its distribution from the uniform one.
        ece: `[k]` mean distance of coverage from its level.
    """

    nll: NDArray[np.float64]
    coverage: NDArray[np.float64]
    histogram: NDArray[np.int64]
    ks: NDArray[np.float64]
    ece: NDArray[np.float64]


def probability_transform(steps: HeldOutSteps) -> Float[Tensor, "n k"]:
    """`PIT = mean_e Phi((y - mu_e) / sigma_e)`, uniform on [0, 1] if the mixture is right (Dawid 1984)."""
    standardised = (steps.target - steps.mean) / steps.std
    return torch.special.ndtr(standardised).mean(0)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def coverage_at(pit: Float[Tensor, "n k"], level: float) -> Float[Tensor, "k"]:
    """Share of targets inside the central interval; its ends are mixture quantiles, so the PIT tells."""
    inside = (pit - 0.5).abs() <= 0.5 * level
    return inside.double().mean(0)


def distance_from_uniform(pit: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """Largest distance of each column's distribution from the uniform one on [0, 1] (Kolmogorov-Smirnov)."""
    ordered, count = pit.sort(0).values, pit.shape[0]
    above = torch.arange(1, count + 1, dtype=torch.float64)[:, None] / count - ordered
    return torch.maximum(above, 1.0 / count - above).amax(0)


def judge(steps: HeldOutSteps) -> Calibration:
    """All calibration figures of `steps`."""
    pit = probability_transform(steps)
    coverage = torch.stack([coverage_at(pit, level) for level in LEVELS])
    nominal = torch.tensor(LEVELS, dtype=torch.float64)[:, None]
    nll = gaussian_nll(steps.target - steps.mean, 2 * steps.std.log()).mean((0, 1))
    histogram = np.stack(
        [np.histogram(column, bins=PIT_BINS, range=(0.0, 1.0))[0] for column in pit.T.numpy()], 1
    )
    return Calibration(
        nll=nll.numpy(),
        coverage=coverage.numpy(),
        histogram=histogram.astype(np.int64),
        ks=distance_from_uniform(pit).numpy(),
        ece=(coverage - nominal).abs().mean(0).numpy(),
    )


def fit_temperature(steps: HeldOutSteps, kind: Recalibration) -> Float[Tensor, "k"]:
    """Factors on the predicted deviations, one for each target dimension.

    `interval`: the mixture's central 90 % interval covers 90 % of `steps`. `likelihood`: `t^2 = mean z^2`,
    which maximises the Gaussian likelihood; one row far out moves it, and all intervals with it. `none`: 1.

    Where the disagreement of the means alone covers more than 90 %, `interval` stops at half of what a member
    on its own would need: deviations of 0 would be certain of what the members dispute.

    Args:
        steps: held-out rows for this purpose; figures are reported on others.
        kind: which of them.
    """
    if kind == "none":
        return torch.ones(steps.target.shape[1], dtype=torch.float64)
    if kind == "likelihood":
        return ((steps.target - steps.mean) / steps.std).square().mean((0, 1)).sqrt()
    alone = _member_temperature(steps)
    low, high = alone / _SEARCH_RANGE, alone * _SEARCH_RANGE
    for _ in range(40):  # bisection of log t: coverage grows with t
        middle = (low * high).sqrt()
        is_short = coverage_at(probability_transform(steps.scaled(middle)), MATCHED_LEVEL) < MATCHED_LEVEL
        low, high = torch.where(is_short, middle, low), torch.where(is_short, high, middle)
    return high


def _member_temperature(steps: HeldOutSteps) -> Float[Tensor, "k"]:
    """Factor with which the members' own 90 % intervals cover 90 %, on average over members."""
    z = ((steps.target - steps.mean) / steps.std).abs().flatten(0, 1)
    rank = max(1, round(MATCHED_LEVEL * len(z)))
    return (z.kthvalue(rank, dim=0).values / _MATCHED_QUANTILE).clamp_min(1e-3)
