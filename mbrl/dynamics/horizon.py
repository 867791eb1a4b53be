"""Training through several steps: members follow their own predictions, and learn from where these end up."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.dynamics.arrays import HOLDOUT_ROWS, reward_range
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.loss import bounded_gaussian_loss
from mbrl.dynamics.objectives import StepObjective
from mbrl.dynamics.training import TrainingArrays

MOST_SEGMENTS: Final = 200_000
"""Training segments; more are thinned evenly."""

_LEAST_UNIT: Final = 1e-3  # deviations of a target: errors below are rounding


class HorizonObjective(StepObjective):
    """One-step likelihood, plus the error of the mean path of each member over the steps after the first.

    Each member starts at a logged observation and follows its own means under the logged actions; gradients
    flow back through all steps. The error of step j and dimension d, `e_jd`, counts in units of what it was
    before this training, `u_jd`, as `2 (sqrt(1 + e_jd^2 / u_jd^2) - 1)`: like its square where it is small,
    like its size where a path of an unstable machine has run away. So every step counts alike. Li et al. 2025
    (RWM-U) train world models by predictions that feed on predictions, likewise.

    A row of inputs is an observation and the actions of all steps; a row of targets all frames and rewards
    that followed, raw units.

    Args:
        ensemble: to be trained in place, after its one-step fit.
        steps: k, 2 or more.
        weight: of the later steps together, against the likelihood of the first.
        bound_coef: as in `StepObjective`.
        weight_decay: likewise.
        arrays: of `horizon_arrays`; their training part gives the units.
    """

    def __init__(
        self,
        ensemble: DynamicsEnsemble,
        *,
        steps: int,
        weight: float,
        bound_coef: float,
        weight_decay: tuple[float, ...],
        arrays: TrainingArrays,
    ) -> None:
        super().__init__(ensemble, bound_coef=bound_coef, weight_decay=weight_decay)
        self._steps, self._weight = steps, weight
        rows = torch.linspace(0, len(arrays.inputs) - 1, min(len(arrays.inputs), HOLDOUT_ROWS)).long()
        rows = rows.to(arrays.inputs.device)
        few = TrainingArrays(arrays.inputs, arrays.targets, arrays.inputs[rows], arrays.targets[rows])
        least = (_LEAST_UNIT * ensemble.targets.std).square()
        self._units = torch.maximum(self._mean_squares(few).mean(0).float(), least)  # `[k, frame_dim + 1]`

    def loss(self, inputs: Float[Tensor, "e b in"], targets: Float[Tensor, "e b k"]) -> Float[Tensor, "e"]:
        """Likelihood of the first step, and errors of the later ones, for each member."""
        total = inputs.new_zeros(len(inputs))
        for step, (output, error, first) in enumerate(self._follow(inputs, targets)):
            if step == 0:
                total = bounded_gaussian_loss(output, self._ensemble.bounds, first)
                continue
            ratio = error.square() / self._units[step]
            total = total + self._weight / (self._steps - 1) * 2.0 * ((1.0 + ratio).sqrt() - 1.0).mean((1, 2))
        return total

    @torch.no_grad()
    def holdout_error(self, arrays: TrainingArrays) -> Float[Tensor, "e"]:
        """Mean over steps and dimensions of the squared error, in units of what training rows had before."""
        return (self._mean_squares(arrays) / self._units).mean((1, 2))

    @torch.no_grad()
    def _mean_squares(self, arrays: TrainingArrays) -> Float[Tensor, "e k d"]:
        """Of the held-out rows, raw units, float64."""
        members = self._ensemble.ensemble_size
        shape = (members, self._steps, self._ensemble.frame_dim + 1)
        total = torch.zeros(shape, dtype=torch.float64, device=arrays.holdout_inputs.device)
        for inputs, targets in arrays.holdout_blocks():
            shared = (part.expand(members, *part.shape) for part in (inputs, targets))
            for step, (_, error, _) in enumerate(self._follow(*shared)):
                total[:, step] += error.double().square().sum(1)
        return total / len(arrays.holdout_inputs)

    def _follow(
        self, inputs: Float[Tensor, "e b in"], targets: Float[Tensor, "e b k"]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields of each step what the networks say, the error `[e, b, frame_dim + 1]` and their targets."""
        model = self._ensemble
        obs, size = inputs[..., : model.obs_dim], model.frame_dim
        actions = inputs[..., model.obs_dim :].chunk(self._steps, -1)
        for action, outcome in zip(actions, targets.chunk(self._steps, -1), strict=True):
            x = model.inputs(torch.cat((obs, action), -1))
            base, output = model.base(x), model.net(x)
            change = model.targets.inverse(base + model.base.scale * output[..., : size + 1])
            frame = obs[..., :size] + change[..., :-1]
            error = torch.cat((frame, change[..., -1:]), -1) - outcome
            logged = torch.cat((outcome[..., :-1] - obs[..., :size], outcome[..., -1:]), -1)
            yield output, error, (model.targets(logged) - base) / model.base.scale
            older = [] if model.history is None else [model.history.moved(obs, action)]
            obs = torch.cat((frame, *older), -1)


def horizon_arrays(train: Dataset, holdout: Dataset, *, steps: int, frame_dim: int) -> TrainingArrays | None:
    """Segments of `steps` steps whose observations are all known; None where a part has none.

    Args:
        train: episodes to fit to.
        holdout: episodes to stop by.
        steps: k.
        frame_dim: size of the newest frame, which observations begin with.
    """
    plausible = reward_range(train.transitions().successors_known())
    parts = [
        _segments(part, steps, frame_dim, most)
        for part, most in ((train, MOST_SEGMENTS), (holdout, HOLDOUT_ROWS // steps))
    ]
    if any(len(inputs) == 0 for inputs, _ in parts):
        return None
    arrays = [torch.from_numpy(array) for part in parts for array in part]
    for targets in (arrays[1], arrays[3]):
        rewards = targets.view(len(targets), steps, -1)[..., -1]
        rewards.copy_(plausible.clip(rewards.flatten()).view_as(rewards))
    return TrainingArrays(*arrays)


def _segments(
    dataset: Dataset, steps: int, frame_dim: int, most: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    known = [len(e) - int(not e.is_final_observation_known) for e in dataset.episodes]
    counts = [max(0, count - steps + 1) for count in known]
    starts = np.concatenate([np.stack((np.full(n, k), np.arange(n)), 1) for k, n in enumerate(counts)])
    if len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(np.int64)]
    rows = [_segment(dataset.episodes[int(k)], int(t), steps, frame_dim) for k, t in starts]
    width = dataset.spec.obs_dim + steps * dataset.spec.act_dim
    if not rows:
        return np.zeros((0, width), np.float32), np.zeros((0, steps * (frame_dim + 1)), np.float32)
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])


def _segment(
    episode: Episode, start: int, steps: int, frame_dim: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    stop = start + steps
    inputs = np.concatenate((episode.observations[start], episode.actions[start:stop].reshape(-1)))
    frames = episode.observations[start + 1 : stop + 1, :frame_dim]
    outcomes = np.concatenate((frames, episode.rewards[start:stop, None]), 1)
    return inputs, outcomes.reshape(-1)
