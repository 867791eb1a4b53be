"""Are the predicted distributions right? One step, held-out rows, elites as an equal mixture of Gaussians."""

import dataclasses
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.rng import RngStreams
from mbrl.data.normaliser import measure_moments
from mbrl.data.splits import Split, halves
from mbrl.dynamics.arrays import thin
from mbrl.dynamics.assessment.one_step import HeldOutSteps, predict_held_out
from mbrl.dynamics.config import AssessmentConfig, Recalibration
from mbrl.dynamics.fitted_model import FittedModel
from mbrl.dynamics.report import CalibrationReport, to_floats, to_integers
from mbrl.ops.gaussian import gaussian_nll

LEVELS: Final = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Nominal levels of central intervals."""

PIT_BINS: Final = 20
MATCHED_LEVEL: Final = 0.9
FLAGGED_ECE: Final = 0.05
"""Calibration error beyond which a dimension is flagged in the report."""

_MATCHED_QUANTILE = 1.6448536  # |z| below which 90 % of a normal distribution lies
_SEARCH_RANGE = 2.0  # the mixture's temperature lies within this factor of a single member's
_BISECTIONS = 40  # of a factor of 4: the temperature is then exact to float64
_MOST_GROUPS = 32  # of episodes, whose own temperatures are compared
# What is expected of a temperature before any episode was seen: its own logarithm's deviation from 0, and
# that of single episodes around it, which counts as much as three episodes that were.
_PRIOR_DEVIATION, _PRIOR_SPREAD, _PRIOR_FREEDOM = 0.3, 0.5, 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class FittedTemperature:
    """A temperature with what it does to the intervals of episodes that it was not fitted on.

    Attributes:
        temperature: `[k]` float64 factors on the predicted deviations, the reward last.
        report: coverage with and without it.
    """

    temperature: Float[Tensor, "k"]
    report: CalibrationReport


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
    # The distribution function of an equal mixture is the mean of those of its parts.
    standardised = (steps.target - steps.mean) / steps.std
    return torch.special.ndtr(standardised).mean(0)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def coverage_at(pit: Float[Tensor, "n k"], level: float) -> Float[Tensor, "k"]:
    """Share of targets inside the central interval, `mean [|PIT - 1/2| <= level / 2]`.

    The ends of the interval are quantiles of the mixture, so the transform alone tells who is inside.
    """
    inside = (pit - 0.5).abs() <= 0.5 * level
    return inside.double().mean(0)


def distance_from_uniform(pit: Float[Tensor, "n k"]) -> Float[Tensor, "k"]:
    """Largest distance of each column's distribution from the uniform one on [0, 1] (Kolmogorov-Smirnov)."""
    # The empirical distribution jumps from (i - 1)/n to i/n at the i-th value: both sides count.
    ordered, count = pit.sort(0).values, pit.shape[0]
    above = torch.arange(1, count + 1, dtype=torch.float64)[:, None] / count - ordered
    return torch.maximum(above, 1.0 / count - above).amax(0)


def measure_calibration(steps: HeldOutSteps) -> Calibration:
    """All calibration figures of `steps`."""
    pit = probability_transform(steps)
    coverage = torch.stack([coverage_at(pit, level) for level in LEVELS])
    nominal = torch.tensor(LEVELS, dtype=torch.float64)[:, None]
    # A rollout samples one member at a time, so likelihood is that of single members, not of the mixture.
    nll = gaussian_nll(steps.target - steps.mean, 2 * steps.std.log()).mean((0, 1))
    histogram = np.stack(
        [np.histogram(column, bins=PIT_BINS, range=(0.0, 1.0))[0] for column in pit.T.numpy()], 1
    )
    return Calibration(
        nll=nll.numpy(),
        coverage=coverage.numpy(),
        histogram=histogram.astype(np.int64),
        ks=distance_from_uniform(pit).numpy(),
        # ECE = mean_p |coverage(p) - p| over the levels p; Kuleshov et al. 2018 square the distance.
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
        # d/dt mean[z^2 / (2 t^2) + log t] = 0 at t^2 = mean z^2.
        return ((steps.target - steps.mean) / steps.std).square().mean((0, 1)).sqrt()
    alone = _member_temperature(steps)
    low, high = alone / _SEARCH_RANGE, alone * _SEARCH_RANGE
    for _ in range(_BISECTIONS):  # of log t: coverage grows with t
        middle = (low * high).sqrt()
        is_short = coverage_at(probability_transform(steps.scaled(middle)), MATCHED_LEVEL) < MATCHED_LEVEL
        low, high = torch.where(is_short, middle, low), torch.where(is_short, high, middle)
    return high


def _member_temperature(steps: HeldOutSteps) -> Float[Tensor, "k"]:
    """Factor with which the members' own 90 % intervals cover 90 %, on average over members.

    `t = q_0.9(|z|) / Phi^-1(0.95)`: the 90 % quantile of |z| over what it is for a normal distribution.
    """
    z = ((steps.target - steps.mean) / steps.std).abs().flatten(0, 1)
    rank = max(1, round(MATCHED_LEVEL * len(z)))
    return (z.kthvalue(rank, dim=0).values / _MATCHED_QUANTILE).clamp_min(1e-3)


def believed_temperature(
    steps: HeldOutSteps, unit: NDArray[np.int64], kind: Recalibration
) -> Float[Tensor, "k"]:
    """The factors of `fit_temperature`, where they narrow only as far as single episodes agree on it.

    Rows of an episode are alike: two quiet episodes ask for deviations of a tenth, and the next one, which
    moves, then lies far outside. So a factor t < 1 is drawn toward 1 by the normal-normal rule of empirical
    Bayes (Efron & Morris 1973), on its logarithm:

        log t' = w log t,   w = v0 / (v0 + s^2 / K),   s^2 = (nu s0^2 + sum_i (l_i - l)^2) / (nu + K - 1)

    with l_i the logarithm of the factor that episode i of K asks for alone, l their mean, v0 = 0.3^2,
    s0 = 0.5 and nu = 2. Many episodes that agree get what they ask for. Factors above 1 stay as they are.

    Args:
        steps: held-out rows for this purpose.
        unit: `[n]`, the episode of each row.
        kind: how a temperature is chosen.
    """
    together = fit_temperature(steps, kind)
    _, place = np.unique(unit, return_inverse=True)
    place = place * min(_MOST_GROUPS, int(place.max()) + 1) // (int(place.max()) + 1)
    groups = [torch.from_numpy(np.flatnonzero(place == k)) for k in np.unique(place)]
    alone = torch.stack([fit_temperature(steps.select(rows), kind) for rows in groups]).log()
    count = len(groups)
    spread = _PRIOR_FREEDOM * _PRIOR_SPREAD**2 + (alone - alone.mean(0)).square().sum(0)
    noise = spread / (_PRIOR_FREEDOM + count - 1) / count
    weight = _PRIOR_DEVIATION**2 / (_PRIOR_DEVIATION**2 + noise)
    return torch.where(together < 1.0, together**weight, together)


@torch.no_grad()
def calibrate(
    model: FittedModel,
    split: Split,
    *,
    config: AssessmentConfig,
    kind: Recalibration,
    rng: RngStreams,
) -> FittedTemperature:
    """Fits a temperature on one half of the held-out episodes, and reports coverage on the other half.

    Args:
        model: the elites; whatever temperature it has is left alone and out of account.
        split: what it was fitted on, and what it was not.
        config: sizes of the report.
        kind: how the temperature is chosen.
        rng: streams of the report.

    Returns:
        The temperature; `DynamicsEnsemble.with_temperature` applies it.
    """
    first, second = halves(split.holdout, rng.at("halves"))
    fit_rows = thin(first.transitions().successors_known(), config.max_rows)
    rows = thin(second.transitions().successors_known(), config.max_rows)
    temperature = believed_temperature(predict_held_out(model, fit_rows), fit_rows.unit, kind)
    steps = predict_held_out(model, rows)
    before, after = measure_calibration(steps), measure_calibration(steps.scaled(temperature))
    # Of a constant there is nothing to cover; the reward, which comes last, always counts.
    frames = split.train.transitions().observation[:, : model.frame_dim]
    ignored = np.append(measure_moments(frames).is_constant, False)
    report = CalibrationReport(
        rows=len(rows),
        episodes=len(second),
        fit_rows=len(fit_rows),
        temperature=to_floats(temperature.float().numpy()),  # as the model will apply it
        levels=LEVELS,
        coverage_before=to_floats(before.coverage.mean(1)),
        coverage_after=to_floats(after.coverage.mean(1)),
        coverage_by_dimension=tuple(to_floats(row) for row in after.coverage),
        pit_before=to_integers(before.histogram.sum(1)),
        pit_after=to_integers(after.histogram.sum(1)),
        pit_by_dimension=tuple(to_integers(column) for column in after.histogram.T),
        ks=to_floats(after.ks),
        ece_before=to_floats(before.ece),
        ece=to_floats(after.ece),
        flagged=to_integers(np.flatnonzero((after.ece > FLAGGED_ECE) & ~ignored)),
        nll_before=to_floats(before.nll),
        nll=to_floats(after.nll),
        # In raw units a density is divided by the deviation of its dimension.
        nll_raw=float(after.nll.mean() + np.log(model.targets.std.double().numpy()).mean()),
    )
    return FittedTemperature(temperature, report)
