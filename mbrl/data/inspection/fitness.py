"""Would `fit` and `train` refuse a dataset? Asked of the very checks that they make."""

import functools
from collections.abc import Iterator

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.finding import DataFinding
from mbrl.data.returns import LoggedEpisodes
from mbrl.data.splits import DEFAULT_FRACTION, DEFAULT_GAP, Split, check_fit_parts, split_episodes


def fit_findings(
    dataset: Dataset, *, fraction: float = DEFAULT_FRACTION, gap: int = DEFAULT_GAP, seed: int = 0
) -> Iterator[DataFinding]:
    """Yields what a fit and a training with these settings would refuse, with the setting that helps.

    Args:
        dataset: to be learned from.
        fraction: share that is held out.
        gap: steps between blocks of time.
        seed: of the run; which episodes are held out depends on it.
    """
    split = functools.partial(_split, dataset, fraction=fraction, seed=seed)
    try:
        parts = split(gap=gap)
    except DataError as error:
        helpful = next((less for less in range(gap - 1, 0, -1) if _can_fit(split, less)), None)
        remedy = "Log more data."
        if helpful is not None:
            setting = f"--set dynamics.assessment.horizon={helpful}"
            remedy = f"Fit and train with {setting}, which is the gap too, or log more data."
        yield DataFinding(severity="error", text=f"Nothing can be held out: {error.problem}.", remedy=remedy)
        return
    try:
        check_fit_parts(parts)
    except DataError as error:
        text = f"No dynamics model can be fitted: {error.problem}."
        yield DataFinding(severity="warning", text=text, remedy=error.remedy or "Log more data.")
    if not dataset.has_rewards:
        return  # what improves on the behaviour needs some, and says so
    try:
        LoggedEpisodes.of(parts.train).return_range_scale()
    except DataError as error:
        text = f"Algorithms with reward_transform=return_range (iql, awac) will refuse: {error.problem}."
        yield DataFinding(
            severity="warning", text=text, remedy="Train them with --set algorithm.reward_transform=none."
        )


def _split(dataset: Dataset, *, fraction: float, seed: int, gap: int) -> Split:
    return split_episodes(dataset, fraction=fraction, generator=RngStreams(seed).at("split"), gap=gap)


def _can_fit(split: functools.partial[Split], gap: int) -> bool:
    """Whether a gap leaves half of the rows to be learned from, and something to judge by."""
    try:
        parts = split(gap=gap)
        check_fit_parts(parts)
    except DataError:
        return False
    whole = sum(len(episode) for episode in parts.train.logged_episodes)
    return parts.train.num_transitions >= whole / 2
