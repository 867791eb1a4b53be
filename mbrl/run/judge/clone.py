"""A clone of what made a log: judges and estimators are asked about it first, since its worth is known."""

from typing import Final

import torch

from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.data.sources import DatasetSource
from mbrl.learners.base import LearnerContext
from mbrl.learners.bc import BC, BCConfig
from mbrl.nets.normaliser import Normaliser

CLONE: Final = BCConfig(form="mixture", hidden=(64, 64), components=5, learning_rate=3e-3, schedule="cosine")
"""Of the clone of the policy that acted: a mixture, since a log may hold several policies."""

CLONE_UPDATES: Final = 2_000
"""Gradient steps of a clone."""


def clone_behaviour(dataset: Dataset, generator: torch.Generator) -> Policy:
    """A clone that draws: several policies in a log are not worth what their mean action is worth."""
    rows = dataset.transitions()
    normaliser = Normaliser(*(torch.from_numpy(moment) for moment in fit_moments(rows.observation)))
    learner = BC(CLONE, LearnerContext(dataset.spec, normaliser, CLONE_UPDATES))
    state, source = learner.init(generator), DatasetSource(rows.to_batch())
    for _ in range(CLONE_UPDATES):
        learner.update(state, source.sample(CLONE.batch_size, generator), generator)
    return learner.policy(state)
