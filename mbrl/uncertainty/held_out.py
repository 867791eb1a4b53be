"""The measures that a dataset and a model suffice for, ready to be judged on held-out rows."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.types import DynamicsPosterior
from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.measures import MEASURES, POSTERIOR_MEASURES, Measure, StepContext

RowMeasure: TypeAlias = Callable[[DynamicsPosterior, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""`(posterior, obs, action, sampled outcome, episode of a training row) -> [b]`."""

HELD_OUT_MEASURES = (*POSTERIOR_MEASURES, "knn", "ll_var")
"""All measures but `bellman`, which needs a learner."""


def held_out_measures(
    obs: Float[Tensor, "n obs_dim"],
    action: Float[Tensor, "n act_dim"],
    episode: Int[Tensor, "n"],
    generator: torch.Generator,
) -> dict[str, RowMeasure]:
    """Measures by name, for `mbrl.dynamics.fit.fit_dynamics` to judge on held-out rows.

    Args:
        obs: `[n, obs_dim]`, training rows, raw units.
        action: `[n, act_dim]`.
        episode: `[n]` int64, of each training row.
        generator: thins the training rows.
    """
    reference = DensityReference.fit(obs, action, generator=generator, episode=episode)
    # One reference for all measures, of training rows only, so that held-out rows are new to it.
    return {name: functools.partial(_on_rows, MEASURES.get(name), reference) for name in HELD_OUT_MEASURES}


def _on_rows(
    measure: Measure,
    reference: DensityReference,
    posterior: DynamicsPosterior,
    obs: Tensor,
    action: Tensor,
    outcome: Tensor,
    episode: Tensor | None,
) -> Tensor:
    # Everything but `next_values`: values need a learner, and a fit has none.
    context = StepContext(obs=obs, action=action, reference=reference, episode=episode, outcome=outcome)
    return measure(posterior, context)
