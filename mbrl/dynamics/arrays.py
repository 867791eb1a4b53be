"""Transitions to the normalised arrays that the networks train on."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.history import History
from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import are_choices, fit_moments, measure_moments
from mbrl.dynamics.training import TrainingArrays
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.spread import PlausibleRange

HOLDOUT_ROWS = 20_000
"""Most held-out rows that early stopping looks at; more would not sharpen a 1 % rule."""


def step_inputs(rows: Transitions) -> NDArray[np.float32]:
    """`[n, obs_dim + act_dim]` (s, a), raw units."""
    return np.concatenate((rows.observation, rows.action), 1)


def step_targets(
    rows: Transitions, *, frame_dim: int | None = None, reward: Float[Tensor, "n"] | None = None
) -> NDArray[np.float32]:
    """`[n, frame_dim + 1]` (s' - s, r), raw units.

    Args:
        rows: logged steps.
        frame_dim: size of the newest frame, which observations begin with; None for all of them.
        reward: stands for the logged rewards, `[n]`; None leaves them as they are.
    """
    rewards = rows.reward if reward is None else reward.numpy().astype(np.float32)
    frame = slice(None, frame_dim)
    change = rows.next_observation[:, frame] - rows.observation[:, frame]
    return np.concatenate((change, rewards[:, None]), 1)


def reward_range(train: Transitions) -> PlausibleRange:
    """Where the rewards of training rows lie that no accident explains."""
    return PlausibleRange.of_all_but_few(torch.tensor(train.reward))


def termination_inputs(rows: Transitions, *, reads_successor: bool) -> NDArray[np.float32]:
    """`[n, in]` (s, a, s'), or (a, s) without the successor, raw units."""
    if reads_successor:
        return np.concatenate((rows.observation, rows.action, rows.next_observation), 1)
    return np.concatenate((rows.action, rows.observation), 1)


def termination_edges(
    inputs_n: Float[Tensor, "n in"], terminated: NDArray[np.bool_], *, obs_dim: int, bins: int
) -> Float[Tensor, "k obs_dim"]:
    """Edges of the encoding of a head's last `obs_dim` inputs, `[bins + 1, obs_dim]`.

    Half of them are quantiles of all rows, half quantiles of the terminated ones: resolution is needed where
    the few rows lie that end the task.
    """
    values = inputs_n[:, -obs_dim:].numpy()
    ends = values[terminated]
    halves = [(values, (bins + 2) // 2), (ends, (bins + 1) // 2)]
    edges = [np.quantile(part, np.linspace(0.0, 1.0, count), axis=0) for part, count in halves if count > 0]
    return torch.from_numpy(np.sort(np.concatenate(edges), 0).astype(np.float32))


def fit_normaliser(array: NDArray[np.float32], *, choices: Sequence[slice] = ()) -> Normaliser:
    """Mean and scale of the rows, as `mbrl.data.normaliser.fit_moments` has them.

    Args:
        array: `[n, in]`, raw units.
        choices: columns of each one-hot action in it, which pass as they are (`choice_columns`).
    """
    mean, std = fit_moments(array)
    for columns in choices:
        mean[columns], std[columns] = 0.0, 1.0  # why: see `mbrl.data.normaliser.fit_action_moments`
    return Normaliser(torch.from_numpy(mean), torch.from_numpy(std))


def choice_columns(rows: Transitions, history: History | None, *, obs_at: int, act_at: int) -> list[slice]:
    """Columns of one-hot actions among the inputs of a network: the action, and past ones of a history.

    Args:
        rows: logged steps.
        history: what observations hold.
        obs_at: first column of the observation.
        act_at: first column of the action.

    Returns:
        None of them where actions are no choices.
    """
    if not are_choices(rows.action):
        return []
    size, obs_dim = rows.action.shape[1], rows.observation.shape[1]
    past = 0 if history is None else history.actions * size
    end = obs_at + obs_dim
    return [slice(act_at, act_at + size), *([slice(end - past, end)] if past else [])]


def fit_step_normaliser(train: Transitions, history: History | None) -> Normaliser:
    """Of an ensemble's inputs (s, a); one-hot actions among them, past ones too, pass as they are."""
    passed = choice_columns(train, history, obs_at=0, act_at=train.observation.shape[1])
    return fit_normaliser(step_inputs(train), choices=passed)


def fit_head_normaliser(train: Transitions, history: History | None, *, reads_successor: bool) -> Normaliser:
    """Of a termination head's inputs, (s, a, s') or (a, s); one-hot actions among them pass as they are."""
    obs_dim, act_dim = train.observation.shape[1], train.action.shape[1]
    places = [(0, obs_dim), (obs_dim + act_dim, obs_dim)] if reads_successor else [(act_dim, 0)]
    passed = [choice_columns(train, history, obs_at=obs_at, act_at=act_at) for obs_at, act_at in places]
    array = termination_inputs(train, reads_successor=reads_successor)
    return fit_normaliser(array, choices=[columns for part in passed for columns in part])


def fit_target_normaliser(train: Transitions, *, frame_dim: int | None = None) -> Normaliser:
    """Mean and deviation of (s' - s, r), with scales that make targets without a signal cost nothing.

    - An observation that counts as constant is predicted on its own scale, not on that of its noise.
    - A change that is always the same (a clock, a parameter of the task) has the scale of its size; one that
      is always 0 has the scale of the observation.
    - A reward that is always the same has the scale of its size, or 1. One absurd reward sets no scale.

    Args:
        train: training rows; every row needs its true successor.
        frame_dim: size of the newest frame, which observations begin with; None for all of them.
    """
    obs = measure_moments(train.observation[:, :frame_dim])
    reward = reward_range(train).settle(torch.tensor(train.reward))
    targets = measure_moments(step_targets(train, frame_dim=frame_dim, reward=reward))
    size = np.abs(targets.mean)
    still = np.append(np.where(size[:-1] > 0, size[:-1], obs.scale), size[-1] or 1.0)
    scale = np.where(targets.is_constant, still, targets.std)
    scale[:-1] = np.where(obs.is_constant, obs.scale, scale[:-1])
    return Normaliser(torch.from_numpy(targets.mean), torch.from_numpy(scale))


def step_arrays(
    train: Transitions, holdout: Transitions, *, inputs: Normaliser, targets: Normaliser
) -> TrainingArrays:
    """Arrays of the ensemble; every row needs its true successor.

    Absurd rewards are put on a fence beyond the others, held out or not: squared, a single one would be all
    that the loss and the early stop see. There it still is the best or the worst of all.
    """
    few, plausible, frame_dim = thin(holdout, HOLDOUT_ROWS), reward_range(train), len(targets.mean) - 1
    rewards, held_out = (plausible.clip(torch.tensor(rows.reward)) for rows in (train, few))
    return TrainingArrays(
        inputs=normalise(step_inputs(train), inputs),
        targets=normalise(step_targets(train, frame_dim=frame_dim, reward=rewards), targets),
        holdout_inputs=normalise(step_inputs(few), inputs),
        holdout_targets=normalise(step_targets(few, frame_dim=frame_dim, reward=held_out), targets),
    )


def termination_arrays(
    train: Transitions, holdout: Transitions, *, inputs: Normaliser, reads_successor: bool
) -> TrainingArrays:
    """Arrays of the termination head; targets are 0 or 1."""
    few = thin(holdout, HOLDOUT_ROWS)
    return TrainingArrays(
        inputs=normalise(termination_inputs(train, reads_successor=reads_successor), inputs),
        targets=torch.tensor(train.terminated, dtype=torch.float32)[:, None],
        holdout_inputs=normalise(termination_inputs(few, reads_successor=reads_successor), inputs),
        holdout_targets=torch.tensor(few.terminated, dtype=torch.float32)[:, None],
    )


def normalise(array: NDArray[np.float32], normaliser: Normaliser) -> Float[Tensor, "n d"]:
    """`normaliser` applied to a numpy array, in one copy."""
    return torch.tensor(array).sub_(normaliser.mean).div_(normaliser.std)


def thin(rows: Transitions, count: int) -> Transitions:
    """At most `count` rows, evenly spaced over the episodes."""
    if len(rows) <= count:
        return rows
    return rows.select(np.linspace(0, len(rows) - 1, count).astype(np.int64))
