"""What of a log's columns bears on a fit: constants, columns too coarse for float32, absurd rewards."""

import numpy as np
import torch

from mbrl.data.dataset import Transitions
from mbrl.data.normaliser import measure_moments
from mbrl.dynamics.arrays import reward_range
from mbrl.dynamics.channel_report import (
    ChannelReport,
    CoarseChannel,
    ConstantChannel,
    RareChoice,
    RewardOutliers,
)

FEW_ROWS = 30
"""Rows of a choice below which a model hardly knows its effect."""

COARSE = 0.1
"""Steps of float32 over the deviation of the changes beyond which a channel counts as coarse: a twentieth of
what the model is to predict is then rounding."""


def measure_channels(
    rows: Transitions,
    names: tuple[str, ...] | None,
    *,
    frame_dim: int | None = None,
    choices: tuple[str, ...] | None = None,
) -> ChannelReport:
    """Observation dimensions that are constant or badly resolved by float32, and choices that are rare.

    Args:
        rows: training rows with known successors.
        names: of the dimensions; None numbers them.
        frame_dim: size of the newest frame, which observations begin with; None for all of them.
        choices: names of the choices; None for continuous actions.
    """
    frame = slice(None, frame_dim)
    now, names = rows.observation[:, frame], None if names is None else names[frame]
    obs = measure_moments(now)
    change = measure_moments(rows.next_observation[:, frame] - now).std
    size = np.abs(now).max(0)
    step = np.spacing(size).astype(np.float64)
    count = len(obs.mean)
    labels = names if names is not None and len(names) == count else tuple(str(d) for d in range(count))
    # A channel whose changes are all 0 is a parameter of its episode: nothing of it is to be predicted.
    is_coarse = ~obs.is_constant & (change > 0) & (step > COARSE * change)
    return ChannelReport(
        names=labels,
        constant=tuple(
            ConstantChannel(dimension=int(d), mean=float(obs.mean[d]), std=float(obs.std[d]))
            for d in np.flatnonzero(obs.is_constant)
        ),
        coarse=tuple(
            CoarseChannel(
                dimension=int(d), size=float(size[d]), change=float(change[d]), resolution=float(step[d])
            )
            for d in np.flatnonzero(is_coarse)
        ),
        rare_choices=find_rare_choices(rows, choices),
    )


def find_rare_choices(rows: Transitions, choices: tuple[str, ...] | None) -> tuple[RareChoice, ...]:
    """Choices that fewer than `FEW_ROWS` rows took, the rarest first; none for continuous actions.

    Args:
        rows: training rows with known successors.
        choices: their names; None for continuous actions.
    """
    if choices is None:
        return ()
    counts = rows.action.sum(0, dtype=np.float64)
    rare = [int(k) for k in np.argsort(counts, kind="stable") if counts[k] < FEW_ROWS]
    return tuple(RareChoice(name=choices[k], rows=int(counts[k])) for k in rare)


def find_reward_outliers(rows: Transitions) -> RewardOutliers | None:
    """Rewards far beyond all others (`reward_range`), and where the farthest is; None if none.

    Args:
        rows: all rows of a dataset, so that episodes have the numbers that its user knows.
    """
    plausible = reward_range(rows)
    is_outlier = plausible.is_outlier(torch.tensor(rows.reward)).numpy()
    if not is_outlier.any():
        return None
    reward = rows.reward.astype(np.float64)
    beyond = np.maximum(plausible.least - reward, reward - plausible.largest)
    worst = int(np.argmax(beyond))
    return RewardOutliers(
        count=int(is_outlier.sum()),
        episode=int(rows.episode[worst]),
        row=int(rows.step[worst]),
        value=float(reward[worst]),
        least=plausible.least,
        largest=plausible.largest,
    )
