"""A clone of what made a log: judges and estimators are asked about it first, since its worth is known."""

from typing import Any, Final

import torch

from mbrl.core.protocols import Learner, Policy
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.data.sources import DatasetSource
from mbrl.learners.base import LearnerContext
from mbrl.learners.bc import BC, BCConfig
from mbrl.learners.discrete.bc import DiscreteBC, DiscreteBCConfig
from mbrl.nets.normaliser import Normaliser

CLONE: Final = BCConfig(form="mixture", hidden=(64, 64), components=5, learning_rate=3e-3, schedule="cosine")
"""Of the clone of the policy that acted: a mixture, since a log may hold several policies."""

CHOICE_CLONE: Final = DiscreteBCConfig(
    hidden=(64, 64), learning_rate=3e-3, schedule="cosine", logit_coef=1e-4
)
"""The same where actions are choices; their probabilities tell several policies by themselves."""

CLONE_UPDATES: Final = 2_000
"""Gradient steps of a clone."""


def clone_identity(space: SpaceSpec) -> dict[str, Any]:
    """What a clone depends on besides its log and its draws."""
    config = CHOICE_CLONE if space.is_discrete else CLONE
    return {**config.model_dump(mode="json"), "updates": CLONE_UPDATES}


def clone_behaviour(dataset: Dataset, generator: torch.Generator) -> Policy:
    """A clone that draws: several policies in a log are not worth what their mean action is worth."""
    rows = dataset.transitions()
    normaliser = Normaliser(*(torch.from_numpy(moment) for moment in fit_moments(rows.observation)))
    context, source = LearnerContext(dataset.spec, normaliser, CLONE_UPDATES), DatasetSource(rows.to_batch())
    if dataset.spec.is_discrete:
        return _trained(DiscreteBC(CHOICE_CLONE, context), source, CHOICE_CLONE.batch_size, generator)
    return _trained(BC(CLONE, context), source, CLONE.batch_size, generator)


def _trained(
    learner: Learner[Any], source: DatasetSource, batch_size: int, generator: torch.Generator
) -> Policy:
    state = learner.init(generator)
    for _ in range(CLONE_UPDATES):
        learner.update(state, source.sample(batch_size, generator), generator)
    return learner.policy(state)
