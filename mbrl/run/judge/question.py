"""What judges are asked of a log: the value of the whole task, unless somebody wants another question.

The one place that decides the horizon and the discount of `mbrl ope`, of back-tests and of choices among
trainings.
"""

from typing import Final

from mbrl.core.errors import ConfigError, EstimandError
from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset
from mbrl.envs.specs import TaskSpec, find_task, load_named_task
from mbrl.off_policy.log.task_horizon import TaskHorizon, task_horizon

RETURN_DISCOUNT: Final = 1.0
"""Discount of a value as returns are reported: none."""


def asked_horizon(dataset: Dataset, steps: int | None = None, *, task: TaskSpec | None = None) -> TaskHorizon:
    """The horizon that is asked about: that of the whole task, or fewer steps.

    Args:
        dataset: the log.
        steps: what is asked for; None for the whole task.
        task: in place of what the log says of its task.

    Raises:
        EstimandError: no step is asked for, or more than an episode of the task can have.
    """
    whole = task_horizon(dataset, task or _named_task(dataset))
    if steps is None or steps == whole.steps:
        return whole
    asked = task_horizon(dataset, steps=steps)
    if steps > whole.steps and (whole.source != "longest" or asked.censored[_longest(dataset)]):
        raise EstimandError(
            f"The horizon is {steps:,} steps, but an episode has at most {whole.steps:,} "
            f"({whole.source_words}), and the log says nothing of what would follow. Remedy: a horizon of at "
            f"most {whole.steps}."
        )
    return asked


def asked_estimand(
    dataset: Dataset, *, discount: float = RETURN_DISCOUNT, steps: int | None = None
) -> Estimand:
    """What is estimated on a log; arguments and errors as of `asked_horizon`."""
    return asked_horizon(dataset, steps).estimand(discount)


def question_words(horizon: TaskHorizon, *, discount: float = RETURN_DISCOUNT) -> str:
    """The question in a sentence, with who says how long an episode is and how many were cut before."""
    cut, count = int(horizon.censored.sum()), len(horizon.censored)
    censored = (
        ""
        if cut == 0
        else f" {cut:,} of {count:,} logged episodes {'was' if cut == 1 else 'were'} cut sooner."
    )
    return f"Asked: {horizon.estimand(discount).words} ({horizon.source_words}).{censored}"


def _longest(dataset: Dataset) -> int:
    return int(dataset.episode_lengths.argmax())


def _named_task(dataset: Dataset) -> TaskSpec | None:
    """The shipped task that the log names, where it states no limit itself."""
    info = dataset.info
    if info.max_episode_steps is not None:
        return None
    if info.task is not None:
        try:
            return load_named_task(info.task, source=info.name, env_id=info.env_id)
        except ConfigError:  # a task of the user's own, which a log may name but not bring along
            return None
    return None if info.env_id is None else find_task(info.env_id)
