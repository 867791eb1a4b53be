"""Uncertainty measures at logged rows; the measures themselves are handed in by name."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.types import DynamicsPosterior
from mbrl.data.dataset import Transitions
from mbrl.dynamics.fitted_model import FittedModel

RowMeasure: TypeAlias = Callable[[DynamicsPosterior, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""`(posterior, obs, action, sampled outcome, episode of a training row) -> [b]`.

The episode is None for rows that were held out. A measure that compares with the training rows leaves those
of the same episode out: a row is no evidence of how well the others cover it.
"""

MeasureFactory: TypeAlias = Callable[[Tensor, Tensor, Tensor, torch.Generator], Mapping[str, RowMeasure]]
"""`(training observations, actions and episodes, generator) -> measures by name`."""

MeasuredRows: TypeAlias = Mapping[str, NDArray[np.float64]]
"""`[n]` values by the name of a measure, in its own units."""

_BLOCK = 1_024


def evaluate_measures(
    model: FittedModel,
    measures: Mapping[str, RowMeasure],
    rows: Transitions,
    generator: torch.Generator,
    *,
    is_training: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """Each measure at each row.

    Args:
        model: its posterior is measured.
        measures: by name.
        rows: logged.
        generator: draws the outcome that some measures read, `x ~ N(mu_e, sigma_e^2)` of a random member e.
        is_training: the rows are among those that the measures were made from.

    Returns:
        `[n]` by name.
    """
    parts: dict[str, list[Tensor]] = {name: [] for name in measures}
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        obs, action = torch.tensor(rows.observation[block]), torch.tensor(rows.action[block])
        posterior = model.predict(obs, action)
        member = torch.randint(model.ensemble_size, (len(obs),), generator=generator)
        index = torch.arange(len(obs))
        noise = torch.randn(obs.shape, generator=generator)
        outcome = posterior.mean[member, index] + posterior.variance[member, index].sqrt() * noise
        episode = torch.tensor(rows.episode[block]) if is_training else None
        for name, measure in measures.items():
            parts[name].append(measure(posterior, obs, action, outcome, episode))
    return {name: torch.cat(values).double().numpy() for name, values in parts.items()}
