"""What was wrong with the batches of a training that had to stop."""

from typing import Final

from torch import Tensor

from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.core.types import TransitionBatch

LARGEST_REWARD: Final = 1e6
"""In the learner's unit. A hundred steps of it are a value of 1e8, beside which float32 keeps nothing of what
other rewards add up to."""


def find_batch_fault(training: Training, rng: RngStreams, *, first: int, last: int) -> str | None:
    """Draws the batches of some updates again and tells what no learner could have learned from.

    Draws are functions of the seed and the step, so logged rows are those that the learner saw; imagined ones
    may have been renewed since.

    Args:
        training: learner and source.
        rng: streams of the run.
        first: first update, counted from 1.
        last: last update.

    Returns:
        A cause and its remedy; None where the batches are sound.
    """
    for update in range(first, last + 1):
        # Update u was drawn at step u - 1.
        batch = training.source.sample(training.batch_size, rng.at("batch", update - 1))
        fault = _non_finite(batch) or _too_large(batch, training.reward_unit)
        if fault is not None:
            return f"Cause: the batch of update {update} held {fault}"
    return None


def _non_finite(batch: TransitionBatch) -> str | None:
    for name in ("observation", "action", "reward", "next_observation"):
        values: Tensor = getattr(batch, name)
        # Rows, not entries: a remedy names where a row comes from.
        bad = ~values.isfinite().flatten(1).all(1) if values.dim() > 1 else ~values.isfinite()
        if bool(bad.any()):
            return f"values that are not finite: the {name} of {_origin(batch, bad)}"
    return None


def _too_large(batch: TransitionBatch, unit: float) -> str | None:
    # float64: a large reward over a small unit may exceed float32.
    size = batch.reward.double().abs() / unit
    worst = int(size.argmax())
    if float(size[worst]) <= LARGEST_REWARD:
        return None
    reward, bad = float(batch.reward[worst]), size >= size[worst]
    return f"a reward of {reward:.3g}, {float(size[worst]):.3g} times the unit, in {_origin(batch, bad)}"


def _origin(batch: TransitionBatch, bad: Tensor) -> str:
    # A bad logged row may have spoilt the model, so it is named before imagined ones.
    if bool((bad & ~batch.from_model).any()):
        return "a logged row. Remedy: mbrl inspect names it; correct or remove it."
    return "an imagined row. Remedy: shorter rollouts, truncation at an uncertainty quantile, or another fit."
