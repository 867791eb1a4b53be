"""Figures of a termination head on held-out rows."""

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.protocols import TerminationFn
from mbrl.data.dataset import Transitions
from mbrl.data.splits import Split
from mbrl.dynamics.report import TerminationReport
from mbrl.dynamics.termination import TerminationHead
from mbrl.ops.shares import wilson_interval

_BLOCK = 1_024


def measure_termination(termination: TerminationFn, split: Split) -> TerminationReport:
    """Figures of `termination` on the held-out rows that it can judge.

    A head that reads s' is asked only where s' was logged.
    """
    reads_all = isinstance(termination, TerminationHead) and not termination.reads_successor
    train, rows = (
        part.transitions() if reads_all else part.transitions().successors_known()
        for part in (split.train, split.holdout)
    )
    return score_termination(
        predict_termination(termination, rows),
        rows.terminated,
        is_learned=isinstance(termination, TerminationHead),
        train_rows=len(train),
        train_terminated=int(train.terminated.sum()),
    )


def predict_termination(termination: TerminationFn, rows: Transitions) -> NDArray[np.float64]:
    """`[n]` probability that each step ends the task."""
    obs, action, next_obs = (
        torch.tensor(array) for array in (rows.observation, rows.action, rows.next_observation)
    )
    blocks = [slice(k, k + _BLOCK) for k in range(0, len(rows), _BLOCK)]
    return torch.cat([termination(obs[k], action[k], next_obs[k]) for k in blocks]).double().numpy()


def score_termination(
    probability: NDArray[np.float64],
    terminated: NDArray[np.bool_],
    *,
    is_learned: bool,
    train_rows: int,
    train_terminated: int,
) -> TerminationReport:
    """Precision and recall of a threshold at 1/2, Brier scores, and rates.

    The Brier score is `mean (p - y)^2`; that of always predicting the rate q is `q (1 - q)`.

    Args:
        probability: `[n]`, predicted.
        terminated: `[n]`, what happened.
        is_learned: whether a head was trained.
        train_rows: rows that it was trained on.
        train_terminated: how many of them terminated.
    """
    fires = probability >= 0.5
    hits, held_out = int((fires & terminated).sum()), int(terminated.sum())
    rate = float(terminated.mean())
    count = train_rows + len(terminated)
    logged_rate = (train_terminated + held_out) / count
    return TerminationReport(
        is_learned=is_learned,
        train_terminated=train_terminated,
        rows=len(terminated),
        terminated=held_out,
        logged_rate=logged_rate,
        logged_rate_high=wilson_interval(logged_rate, float(count))[1],
        predicted_rate=float(probability.mean()),
        precision=hits / int(fires.sum()) if fires.any() else None,
        recall=hits / held_out if terminated.any() else None,
        brier=float(np.square(probability - terminated).mean()),
        brier_constant=rate * (1.0 - rate),
    )
