"""A forecast of one step in closed form: ridge regression on random features.

`z = standardise(s, a)`, `features = (z, tanh(W z + b))` with fixed random `W` and `b` (Rahimi & Recht 2008,
"Weighted sums of random kitchen sinks"), and one linear map of these to the change of the latest frame. It is
no model to roll out: it says what a step should have looked like, within microseconds and without a training.
"""

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.data.normaliser import fit_moments
from mbrl.deploy.graph import Graph
from mbrl.deploy.steps import Floats, Steps

_RIDGE: Final = 1e-5
"""Per row, on standardised targets."""

_BLOCK: Final = 8192


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """A fitted forecast.

    Attributes:
        mean: `[obs_dim + act_dim]` of its inputs.
        scale: `[obs_dim + act_dim]`.
        weight: `[obs_dim + act_dim, features]`, W.
        bias: `[features]`, b.
        linear: `[1 + obs_dim + act_dim + features, frame_dim]`, in `unit`; the first row is the intercept.
        unit: `[frame_dim]`, deviation of the changes, raw units.
        act_dim: size of an action.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats
    linear: Floats
    unit: Floats
    act_dim: int

    @property
    def frame_dim(self) -> int:
        """Size of the latest frame, which alone is forecast."""
        return self.linear.shape[1]

    def features(self, obs: Floats, action: Floats) -> Floats:
        """`[n, 1 + d + features]`."""
        z = (np.concatenate((obs, action), -1) - self.mean) / self.scale
        return np.concatenate((np.ones((len(z), 1)), z, np.tanh(z @ self.weight + self.bias)), -1)

    def change(self, obs: Floats, action: Floats) -> Floats:
        """`[n, frame_dim]`, what the latest frame is expected to change by, in `unit`."""
        blocks = range(0, len(obs), _BLOCK)
        parts = [self.features(obs[k : k + _BLOCK], action[k : k + _BLOCK]) @ self.linear for k in blocks]
        return np.concatenate(parts) if parts else np.zeros((0, self.frame_dim))

    def residual(self, obs: Floats, action: Floats, successor: Floats) -> Floats:
        """`[n, frame_dim]`, what the change to `successor` was beyond the forecast, in `unit`."""
        size = self.frame_dim
        return (successor[:, :size] - obs[:, :size]) / self.unit - self.change(obs, action)

    def write(self, graph: Graph, obs: str, action: str, successor: str) -> tuple[str, str]:
        """`residual` in a graph, and the latest frame that is expected, raw units."""
        rest = self.mean.shape[0] - self.act_dim - self.frame_dim
        z = graph.standardised(graph.op("Concat", obs, action, axis=-1), self.mean, self.scale)
        random = graph.op("Gemm", z, graph.constant(self.weight), graph.constant(self.bias))
        features = graph.op("Concat", z, graph.op("Tanh", random), axis=-1)
        expected = graph.op("Gemm", features, graph.constant(self.linear[1:]), graph.constant(self.linear[0]))
        here, there = (
            value if rest == 0 else graph.split(value, [self.frame_dim, rest])[0]
            for value in (obs, successor)
        )
        moved = graph.op("Div", graph.op("Sub", there, here), graph.constant(self.unit))
        ahead = graph.op("Add", here, graph.op("Mul", expected, graph.constant(self.unit)))
        return graph.op("Sub", moved, expected), ahead


def fit_forecast(steps: Steps, *, frame_dim: int, features: int, seed: int) -> Forecast:
    """Fits a forecast to all rows.

    Args:
        steps: rows of a log.
        frame_dim: size of the latest frame.
        features: random features.
        seed: of these.
    """
    blank = _blank(steps, frame_dim, features, seed)
    gram, moment = _sums(blank, steps, slice(None))
    return dataclasses.replace(blank, linear=_solve(gram, moment, len(steps.group)))


def held_out_residuals(forecast: Forecast, steps: Steps, *, folds: int) -> Floats:
    """`[n, frame_dim]` residuals, each of a forecast that was fitted to other groups.

    Args:
        forecast: whose features are kept.
        steps: the rows that it was fitted to.
        folds: fits; fewer where there are fewer groups.
    """
    names, place = np.unique(steps.group, return_inverse=True)
    fold = place % min(folds, len(names))
    sums = [_sums(forecast, steps, fold == k) for k in range(min(folds, len(names)))]
    gram, moment = sum(s[0] for s in sums), sum(s[1] for s in sums)
    found = np.empty((len(fold), forecast.frame_dim))
    for k, (own_gram, own_moment) in enumerate(sums):
        inside = fold == k
        linear = _solve(gram - own_gram, moment - own_moment, int((~inside).sum()))
        other = dataclasses.replace(forecast, linear=linear)
        rows = (steps.previous_obs[inside], steps.previous_action[inside], steps.obs[inside])
        found[inside] = other.residual(*rows)
    return found


def _blank(steps: Steps, frame_dim: int, features: int, seed: int) -> Forecast:
    """Moments and random features, and a linear map to nothing."""
    inputs = np.concatenate((steps.previous_obs, steps.previous_action), -1)
    mean, scale = fit_moments(inputs)
    _, unit = fit_moments(steps.obs[:, :frame_dim] - steps.previous_obs[:, :frame_dim])
    rng, size = np.random.default_rng(seed), inputs.shape[1]
    weight = rng.standard_normal((size, features)) / size**0.5
    bias = rng.uniform(-1.0, 1.0, features)
    linear = np.zeros((1 + size + features, frame_dim))
    return Forecast(mean, scale, weight, bias, linear, unit, steps.previous_action.shape[1])


def _sums(forecast: Forecast, steps: Steps, rows: NDArray[np.bool_] | slice) -> tuple[Floats, Floats]:
    """`X^T X` and `X^T y` of some rows, a block at a time."""
    before, sent, after = steps.previous_obs[rows], steps.previous_action[rows], steps.obs[rows]
    size = forecast.linear.shape[0]
    gram, moment = np.zeros((size, size)), np.zeros((size, forecast.frame_dim))
    for k in range(0, len(before), _BLOCK):
        block = slice(k, k + _BLOCK)
        x = forecast.features(before[block], sent[block])
        y = (after[block, : forecast.frame_dim] - before[block, : forecast.frame_dim]) / forecast.unit
        gram += x.T @ x
        moment += x.T @ y
    return gram, moment


def _solve(gram: Floats, moment: Floats, rows: int) -> Floats:
    # The intercept is penalised like the rest: at this strength it does not matter.
    solution = np.linalg.solve(gram + _RIDGE * max(rows, 1) * np.eye(len(gram)), moment)
    return np.asarray(solution, dtype=np.float64)
