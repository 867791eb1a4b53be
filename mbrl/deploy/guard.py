"""The guard: how far a state, an action and the step before lie from a log, with a calibrated alarm.

Two parts, both fitted to the log alone and in closed form, so that a policy without a dynamics model has the
same guard as one with it:

- **novelty** of `(s, a)`: mean distance to the nearest rows of the log, in coordinates in which the log has
  unit covariance. A sensor that contradicts the others is far away there, although each reading is ordinary.
- **surprise** at the step that led here: the change of the latest frame less its forecast from
  `(s_prev, a_prev)`, whitened by what the forecast leaves on episodes that it was not fitted to. A machine
  that answers otherwise than the logged one surprises in states that are ordinary.

Each is divided by its own high quantile; the score is the larger one, and its quantile is the threshold. All
quantiles are of rows that are left out: the nearest rows of a row are of other groups of episodes, and its
forecast comes from a fit to other groups.
"""

import dataclasses
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.deploy.forecast import Forecast, fit_forecast, held_out_residuals
from mbrl.deploy.graph import Graph
from mbrl.deploy.networks import ACTION, FRAMES
from mbrl.deploy.steps import Floats, Steps
from mbrl.ops.neighbours import neighbour_distance

PREVIOUS_FRAMES: Final = "previous_frames"
"""Input of a guard: the frames of the step before."""

PREVIOUS_ACTION: Final = "previous_action"
"""Input of a guard: the action that was sent in the step before."""

NOVELTY: Final = "novelty"
SURPRISE: Final = "surprise"
"""Outputs of a guard, `[batch]`: its parts in units of their own quantiles."""

FORECAST: Final = "forecast"
"""Output of a guard: the latest frame that the step before leads to, `[batch, frame_dim]`, raw units."""

_NEIGHBOURS: Final = 5
_FOLDS: Final = 10
_LEAST_VARIANCE: Final = 1e-5
"""Share of a standardised dimension's variance below which a direction is not stretched any further."""

_DRAWS: Final = 1000
_LEVEL: Final = 0.95


class GuardConfig(BaseModel):
    """How a guard is fitted.

    Attributes:
        false_alarms: share of logged rows that may raise an alarm, (0, 0.5).
        prototypes: rows of the log that stand for all of them.
        features: random features of the forecast.
        max_rows: rows that thresholds are calibrated on; more are thinned.
        seed: of rows and features.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    false_alarms: float = Field(default=0.01, gt=0, lt=0.5)
    prototypes: int = Field(default=4096, ge=10, le=100_000)
    features: int = Field(default=512, ge=1, le=10_000)
    max_rows: int = Field(default=50_000, ge=100)
    seed: int = Field(default=0, ge=0)


class AlarmRate(BaseModel):
    """How often the guard raises an alarm on rows of the log that it has not seen.

    Attributes:
        asked: share that was asked for.
        estimate: share found, each row under a threshold of other groups of episodes.
        low: lower end of its interval, by resampling groups.
        high: upper end.
        level: of the interval.
        rows: that were asked.
        groups: of rows that belong together: episodes, or blocks of them where there are few.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: float
    estimate: float
    low: float
    high: float
    level: float = _LEVEL
    rows: int
    groups: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """`(x - mean) @ matrix`: coordinates of unit covariance.

    Attributes:
        mean: `[d]`.
        matrix: `[d, d]`.
    """

    mean: Floats
    matrix: Floats

    @classmethod
    def fit(cls, rows: Floats) -> "Whitening":
        """Of rows `[n, d]`; constant dimensions stay as small as they are."""
        mean, scale = fit_moments(rows)
        standard = (rows - mean) / scale
        values, vectors = np.linalg.eigh(standard.T @ standard / len(rows))
        # Directions without variance would be stretched without bound by rounding errors alone.
        return cls(mean, vectors / np.sqrt(np.maximum(values, _LEAST_VARIANCE)) / scale[:, None])

    def __call__(self, rows: Floats) -> Floats:
        """`[n, d]` in the new coordinates."""
        return (rows - self.mean) @ self.matrix

    def write(self, graph: Graph, value: str) -> str:
        """The same in a graph."""
        centred = graph.op("Sub", value, graph.constant(self.mean))
        return graph.op("MatMul", centred, graph.constant(self.matrix))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Guard:
    """A fitted guard.

    Attributes:
        whitening: of `(s, a)`.
        prototypes: `[p, obs_dim + act_dim]`, whitened rows of the log.
        forecast: of the change of the latest frame.
        residual: whitening of what the forecast leaves.
        units: novelty and surprise that count as 1.
        threshold: of the larger one; beyond it is an alarm.
        rate: of false alarms.
        policy_alarms: share of the same rows that raise an alarm with the policy's action in place of the
            logged one; 0 where no policy was asked.
        usual_surprise: median of the surprise of the same rows: what a step of this machine leaves.
    """

    whitening: Whitening
    prototypes: Floats
    forecast: Forecast
    residual: Whitening
    units: tuple[float, float]
    threshold: float
    rate: AlarmRate
    policy_alarms: float
    usual_surprise: float

    def novelty(self, obs: Floats, action: Floats) -> Floats:
        """`[n]`, of `obs` `[n, obs_dim]` and `action` `[n, act_dim]`, in its unit."""
        query = self.whitening(np.concatenate((obs, action), -1))
        return _distance(query, self.prototypes) / self.units[0]

    def surprise(self, previous_obs: Floats, previous_action: Floats, obs: Floats) -> Floats:
        """`[n]`, of the step from the first two to the last, in its unit."""
        left = self.forecast.residual(previous_obs, previous_action, obs)
        return _size(self.residual(left)) / self.units[1]

    def score(self, steps: Steps) -> Floats:
        """`[n]`, the larger of the two."""
        surprise = self.surprise(steps.previous_obs, steps.previous_action, steps.obs)
        return np.maximum(self.novelty(steps.obs, steps.action), surprise)

    def write(self, *, history: int) -> Graph:
        """The guard as a graph of `frames`, `action` and those of the step before."""
        graph, act_dim = Graph("guard"), self.forecast.act_dim
        obs_dim = self.prototypes.shape[1] - act_dim
        frame = obs_dim // history
        obs = graph.reshape(graph.input(FRAMES, history, frame), -1, obs_dim)
        action = graph.input(ACTION, act_dim)
        before = graph.reshape(graph.input(PREVIOUS_FRAMES, history, frame), -1, obs_dim)
        sent = graph.input(PREVIOUS_ACTION, act_dim)
        query = self.whitening.write(graph, graph.op("Concat", obs, action, axis=-1))
        novelty = self._write_distance(graph, query)
        graph.output(NOVELTY, graph.op("Div", novelty, graph.constant(self.units[0])))
        left, expected = self.forecast.write(graph, before, sent, obs)
        graph.output(FORECAST, expected, frame)
        left = self.residual.write(graph, left)
        size = graph.op("Sqrt", _mean_square(graph, left))
        graph.output(SURPRISE, graph.op("Div", size, graph.constant(self.units[1])))
        return graph

    def _write_distance(self, graph: Graph, query: str) -> str:
        # |q - r|^2 = |q|^2 - 2 q r + |r|^2; both are centred, so that little is lost to float32.
        square = graph.op("ReduceSum", graph.op("Mul", query, query), graph.constant([1]), keepdims=1)
        cross = graph.op("MatMul", query, graph.constant(-2.0 * self.prototypes.T))
        norms = graph.constant(np.square(self.prototypes).sum(1))
        squares = graph.op("Add", graph.op("Add", cross, norms), square)
        count = min(_NEIGHBOURS, len(self.prototypes))
        nearest = graph.smallest(squares, count)
        distance = graph.op("Sqrt", graph.op("Max", nearest, graph.constant(0.0)))
        mean = graph.op("ReduceMean", distance, axes=[1], keepdims=0)
        return graph.op("Div", mean, graph.constant(self.prototypes.shape[1] ** 0.5))


def fit_guard(
    log: Dataset,
    *,
    frame_dim: int,
    config: GuardConfig | None = None,
    act: Callable[[Floats], Floats] | None = None,
) -> Guard:
    """Fits and calibrates a guard.

    Args:
        log: what the policy learned from.
        frame_dim: size of one frame of an observation, the latest one in front.
        config: sizes.
        act: the policy, `[n, obs_dim]` to `[n, act_dim]`, whose own alarms are counted.

    Raises:
        DataError: no episode has two steps, or there are too few rows.
    """
    config = config or GuardConfig()
    steps = Steps.of(log)
    if len(steps) < 2 * _FOLDS or len(np.unique(steps.group)) < 2:
        raise DataError(
            f"{len(steps)} rows of {log.info.name!r} are too few to calibrate a guard on",
            remedy="Give a longer log, or export without a guard.",
        )
    rng = np.random.default_rng(config.seed)
    forecast = fit_forecast(steps, frame_dim=frame_dim, features=config.features, seed=config.seed)
    kept = np.sort(rng.permutation(len(steps))[: config.max_rows])
    left = held_out_residuals(forecast, steps, folds=_FOLDS)[kept]
    residual = Whitening.fit(left)
    rows = np.concatenate((steps.obs, steps.action), -1)
    whitening = Whitening.fit(rows)
    chosen = np.sort(rng.permutation(len(steps))[: config.prototypes])
    prototypes = whitening(rows[chosen])
    groups = (torch.from_numpy(steps.group[kept]), torch.from_numpy(steps.group[chosen]))
    surprise = _size(residual(left))
    parts = np.stack((_distance(whitening(rows[kept]), prototypes, groups), surprise))
    units, threshold = _calibrate(parts, config.false_alarms)
    own = 0.0
    if act is not None:
        obs = steps.obs[kept]
        query = whitening(np.concatenate((obs, act(obs)), -1))
        proposed = np.stack((_distance(query, prototypes, groups), surprise))
        own = float(((proposed / np.array(units)[:, None]).max(0) > threshold).mean())
    return Guard(
        whitening=whitening,
        prototypes=prototypes,
        forecast=forecast,
        residual=residual,
        units=units,
        threshold=threshold,
        rate=_alarm_rate(parts, steps.group[kept], config.false_alarms),
        policy_alarms=own,
        usual_surprise=float(np.median(surprise)) / units[1],
    )


def _calibrate(parts: Floats, share: float) -> tuple[tuple[float, float], float]:
    """Units of novelty and surprise `[2, n]`, and the threshold of the larger one."""
    units = np.maximum(np.quantile(parts, 1.0 - share, axis=1), 1e-12)
    threshold = np.quantile((parts / units[:, None]).max(0), 1.0 - share)
    return (float(units[0]), float(units[1])), float(threshold)


def _alarm_rate(parts: Floats, group: NDArray[np.int64], share: float) -> AlarmRate:
    """Alarms of each group under what the other groups calibrate, and how sure that is."""
    names, place = np.unique(group, return_inverse=True)
    fold = place % min(_FOLDS, len(names))
    alarms = np.zeros(len(group), dtype=bool)
    for k in range(min(_FOLDS, len(names))):
        units, threshold = _calibrate(parts[:, fold != k], share)
        alarms[fold == k] = (parts[:, fold == k] / np.array(units)[:, None]).max(0) > threshold
    rows = np.bincount(place).astype(np.float64)
    found = np.bincount(place, weights=alarms)
    # Rows of an episode are alike: whole groups are drawn again.
    draws = np.random.default_rng(0).integers(0, len(names), (_DRAWS, len(names)))
    rates = found[draws].sum(1) / rows[draws].sum(1)
    low, high = np.quantile(rates, ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    return AlarmRate(
        asked=share,
        estimate=float(alarms.mean()),
        low=float(low),
        high=float(high),
        rows=len(group),
        groups=len(names),
    )


def _distance(query: Floats, rows: Floats, groups: tuple[torch.Tensor, torch.Tensor] | None = None) -> Floats:
    found = neighbour_distance(
        torch.from_numpy(query), torch.from_numpy(rows), count=_NEIGHBOURS, groups=groups
    )
    return np.asarray(found.numpy(), dtype=np.float64)


def _size(rows: Floats) -> Floats:
    """Root mean square of each row."""
    return np.sqrt(np.square(rows).mean(-1))


def _mean_square(graph: Graph, value: str) -> str:
    return graph.op("ReduceMean", graph.op("Mul", value, value), axes=[1], keepdims=0)
