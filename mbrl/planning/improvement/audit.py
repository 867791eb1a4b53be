"""How well estimated gains tell what actions really gain: rank correlations, and what the largest ones give.

An estimate gives each candidate action of a state a gain over the policy's own action there. Whoever plans
takes the largest; what counts is what that one really gains, beside what it was believed to.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from mbrl.planning.improvement.rollout import score_first_actions, without_leaf
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.shooting.particles import draw_particles
from mbrl.planning.shooting.rollout import Tally

_RESAMPLES: Final = 1000
_CORRELATIONS: Final = 200
"""Resamples of a correlation, which takes longer than a mean."""


class AuditRow(BaseModel):
    """One estimate of gains.

    Attributes:
        name: of the estimate.
        correlation: Spearman's of estimated with true gains, over states and candidates; None if one of them
            does not vary.
        interval: 95 % interval of it over resampled states.
        acts: share of the states where some candidate seems to gain.
        predicted: mean gain of the candidate that seems best, the policy's own action with a gain of 0 among
            them; None where there is one candidate a state.
        realised: what that one truly gained; None likewise.
        realised_interval: 95 % interval of it over resampled states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    correlation: float | None
    interval: tuple[float, float] | None
    acts: float
    predicted: float | None
    realised: float | None
    realised_interval: tuple[float, float] | None


class PlanAudit(BaseModel):
    """All estimates, held against one truth.

    Attributes:
        policy: that is planned on.
        truth: `simulator`, or `logged returns`.
        true_steps: followed in the simulator; 0 for logged returns.
        states: asked.
        candidates: of each.
        spread: standard deviation of the true gains, return units.
        best: mean of the largest true gain of a state, 0 among them: what could be had.
        rows: by estimate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    truth: str
    true_steps: int
    states: int
    candidates: int
    spread: float
    best: float | None
    rows: tuple[AuditRow, ...]


def gain_estimates(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    actions: Float[Tensor, "b k act_dim"],
    *,
    horizons: Sequence[int],
    lcb_coef: float,
    noise: RowNoise,
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Every estimate by name: `[b, k - 1]` gains over the first action of each state.

    The critic's difference; and following both actions by the policy for h steps in the same members, with
    the critic's value or with nothing after them, as a mean over members and as a lower bound.

    Args:
        problem: model, policy, critics.
        obs: states.
        actions: in [-1, 1], the policy's own first.
        horizons: h.
        lcb_coef: deviations over members that lower bounds subtract.
        noise: one stream a state.
    """
    flat = obs.repeat_interleave(actions.shape[1], 0), actions.flatten(0, 1)
    with torch.inference_mode():
        value = problem.leaf.action_value(*flat).mean(0).view(actions.shape[:2])
    yield "critic", (value[:, 1:] - value[:, :1]).double().numpy()
    for horizon in horizons:
        with torch.inference_mode():
            particles = draw_particles(
                problem,
                noise,
                horizon=horizon,
                transition="ts_inf",
                count=problem.step.ensemble_size,
                outcome="mean",
            )
        for label, followed in (("+ critic", problem), ("alone", without_leaf(problem))):
            with torch.inference_mode():
                scored = score_first_actions(
                    followed, obs, actions, particles, lcb_coef=0.0, tally=Tally.empty(obs.device)
                )
            name = f"{horizon} steps {label}"
            yield name, scored.gain[:, 1:].double().numpy().copy()
            yield f"{name}, low", (scored.gain - lcb_coef * scored.spread)[:, 1:].double().numpy().copy()


def audit_row(
    name: str, estimated: NDArray[np.float64], true: NDArray[np.float64], rng: np.random.Generator
) -> AuditRow:
    """Correlation, and what the candidate that seems best really gave; states are resampled whole.

    Args:
        name: of the estimate.
        estimated: `[b, n]` gains over the policy's own action; one that is no number is never taken.
        true: `[b, n]`, likewise.
        rng: of the resamples.
    """
    known = np.where(np.isfinite(estimated), estimated, -np.inf)
    seems = known.max(1)
    acts = seems > 0
    real = np.where(acts, true[np.arange(len(true)), known.argmax(1)], 0.0)
    draws = rng.integers(0, len(true), (_RESAMPLES, len(true)))
    correlations = [_correlate(known[draw], true[draw]) for draw in draws[:_CORRELATIONS]]
    sound = [value for value in correlations if value is not None]
    is_choice = true.shape[1] > 1
    return AuditRow(
        name=name,
        correlation=_correlate(known, true),
        interval=_ends(np.array(sound)) if len(sound) > _CORRELATIONS // 2 else None,
        acts=float(acts.mean()),
        predicted=float(np.maximum(seems, 0.0).mean()) if is_choice else None,
        realised=float(real.mean()) if is_choice else None,
        realised_interval=_ends(real[draws].mean(1)) if is_choice else None,
    )


def _correlate(estimated: NDArray[np.float64], true: NDArray[np.float64]) -> float | None:
    from scipy import stats  # takes half a second, which most commands need not wait

    first, second = estimated.ravel(), true.ravel()
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    ranks = [stats.rankdata(values) for values in (first, second)]
    value = float(np.corrcoef(*ranks)[0, 1])
    return value if math.isfinite(value) else None


def _ends(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
