"""One temperature for all logits, the likeliest on held-out steps, and how likely the others then are."""

import math
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Transitions
from mbrl.data.splits import Split, halves
from mbrl.dynamics.arrays import thin
from mbrl.dynamics.categorical.model import CategoricalDynamics
from mbrl.dynamics.channel_report import SuccessorReport

MOST_ROWS: Final = 1_000
"""Held-out rows that the one number is fitted on."""

_RANGE: Final = (0.2, 5.0)
_STEPS: Final = 12  # of a bisection over a factor of 25: the temperature is then known to a thousandth
_ROWS: Final = 256  # of one forward pass


@torch.no_grad()
def fit_logit_temperature(model: CategoricalDynamics, split: Split, rng: RngStreams) -> float:
    """T that minimises the mean of `-log softmax(l / T)_s'` over members and rows (Guo et al. 2017).

    It is fitted on the half of the held-out episodes on which Gaussian members fit theirs; the report is
    about the other half. The mean is convex in 1 / T, with the derivative `l_s' - E_p[l]` in it, whose zero
    bisection finds.

    Args:
        model: the elites.
        split: what they were fitted on, and what they were not.
        rng: streams of the assessment.
    """
    first, _ = halves(split.holdout, rng.at("halves"))
    rows = thin(first.transitions().successors_known(), MOST_ROWS)
    low, high = (math.log(bound) for bound in _RANGE)
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        tempered = model.with_temperature(math.exp(middle))
        # Too sure of itself: what followed has less than the mean logit, and T has to rise.
        low, high = (middle, high) if _slope(tempered, rows) > 0 else (low, middle)
    return math.exp(0.5 * (low + high))


def report_successors(model: CategoricalDynamics, split: Split, rng: RngStreams) -> SuccessorReport:
    """How likely the elites hold what followed, on the held-out episodes that fitted no temperature.

    Args:
        model: the elites, with their temperature.
        split: what they were fitted on, and what they were not.
        rng: the streams that `fit_logit_temperature` was given.
    """
    _, second = halves(split.holdout, rng.at("halves"))
    rows = thin(second.transitions().successors_known(), MOST_ROWS)
    states = model.states
    place = torch.searchsorted(states.entered, model.state(torch.tensor(rows.next_observation)))
    return SuccessorReport(
        rows=len(rows),
        states=len(states.entered),
        temperature=float(model.logit_temperature),
        nll=held_out_nll(model, rows),
        marginal_nll=-float(states.log_share[place].double().mean()),
    )


@torch.no_grad()
def held_out_nll(model: CategoricalDynamics, rows: Transitions) -> float:
    """Mean of `-log p(s')` over members and rows, nats; rows have successors that the log enters."""
    total = 0.0
    for chances, successor in _chances(model, rows):
        total -= float(chances.gather(-1, successor)[..., 0].log().mean(0).sum())
    return total / len(rows)


def _slope(model: CategoricalDynamics, rows: Transitions) -> float:
    """`sum_{e,n} [E_p[log p] - log p(s')]`: the derivative of the likelihood in log T, up to a factor."""
    total = 0.0
    for chances, successor in _chances(model, rows):
        log_chance = chances.clamp_min(1e-300).log()
        total += float((chances * log_chance).sum() - log_chance.gather(-1, successor).sum())
    return total


def _chances(model: CategoricalDynamics, rows: Transitions) -> Iterator[tuple[Tensor, Tensor]]:
    """Chances `[e, n, S']` of some rows, and what followed `[e, n, 1]`."""
    entered = model.states.entered
    for first in range(0, len(rows), _ROWS):
        part = slice(first, first + _ROWS)
        chances = model.probabilities(torch.tensor(rows.observation[part]), torch.tensor(rows.action[part]))
        following = model.state(torch.tensor(rows.next_observation[part]))
        successor = torch.searchsorted(entered, following)
        yield chances, successor.expand(len(chances), -1)[..., None]
