"""How many frames an observation should hold, by what held-out episodes say of ridge regressions."""

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.history import History, resting_action
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import measure_moments
from mbrl.data.stacking.history import stack_frames, with_history
from mbrl.ops.ridge import ridge_solutions, with_ones

LENGTHS: Final = (1, 2, 3, 4, 5, 6, 8, 10)
"""Frames that are tried."""

WORTH: Final = 0.03
"""Share of the error by which a longer history must be better than a shorter one to be chosen."""

_EVERY: Final = 5  # held out is every fifth episode, or the last fifth of one
_MOST_ROWS: Final = 50_000
_RIDGE: Final = 1e-6

Rows = tuple[NDArray[np.float64], NDArray[np.float64]]


def apply_history(dataset: Dataset, length: int | Literal["auto"] | None) -> Dataset:
    """`with_history` as an option of a load says; None leaves the dataset as it is."""
    if length is None:
        return dataset
    return with_history(dataset, choose_history(dataset) if length == "auto" else length)


def choose_history(dataset: Dataset, lengths: tuple[int, ...] = LENGTHS) -> int:
    """The shortest history whose held-out error is within `WORTH` of the least.

    The error is that of a ridge regression of the change of the newest frame in a step, in deviations of each
    dimension's change, its root mean square averaged over dimensions. A regression is what an ensemble starts
    from (`base: linear`), and takes seconds.

    Args:
        dataset: of single frames.
        lengths: to be tried, ascending.
    """
    errors = history_errors(dataset, lengths)
    least = min(errors)
    return next(n for n, error in zip(lengths, errors, strict=True) if error * (1.0 - WORTH) <= least)


def history_errors(dataset: Dataset, lengths: tuple[int, ...]) -> list[float]:
    """Held-out one-step error of ridge regression with each number of frames."""
    return [_error(dataset, History(n, n - 1) if n > 1 else None) for n in lengths]


def _error(dataset: Dataset, history: History | None) -> float:
    train, test = _rows(dataset, history)
    mean, targets = measure_moments(train[0].astype(np.float32)), measure_moments(train[1].astype(np.float32))
    scale = np.where(targets.is_constant, np.inf, targets.std)

    def blocks(rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.from_numpy((rows[0] - mean.mean) / mean.scale), torch.from_numpy(rows[1] / scale)

    (weights,) = ridge_solutions(blocks(train), (_RIDGE,))
    ((inputs, outcome),) = blocks(test)
    error = (with_ones(inputs) @ weights - outcome).square().mean(0).sqrt()
    varies = torch.from_numpy(~targets.is_constant)
    return float(error[varies].mean()) if bool(varies.any()) else 0.0


def _rows(dataset: Dataset, history: History | None) -> tuple[Rows, Rows]:
    """Inputs and changes of the rows to fit to, and of those to judge by."""
    rest = resting_action(dataset.spec).numpy()
    parts: tuple[list[Rows], list[Rows]] = ([], [])
    step = -(-dataset.num_transitions // _MOST_ROWS)
    for index, episode in enumerate(dataset.episodes):
        frames, actions = episode.observations.astype(np.float64), episode.actions.astype(np.float64)
        obs = frames if history is None else stack_frames(history, frames, actions, rest)
        known = len(episode) - int(not episode.is_final_observation_known)
        rows = np.arange(0, known, step)
        inputs, change = np.concatenate((obs[rows], actions[rows]), 1), frames[rows + 1] - frames[rows]
        if len(dataset) > 1:
            parts[index % min(_EVERY, len(dataset)) == 0].append((inputs, change))
            continue
        cut = len(rows) - len(rows) // _EVERY
        parts[0].append((inputs[:cut], change[:cut]))
        parts[1].append((inputs[cut:], change[cut:]))
    train, test = (tuple(np.concatenate(column) for column in zip(*part, strict=True)) for part in parts)
    return (train[0], train[1]), (test[0], test[1])
