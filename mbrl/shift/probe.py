"""Looks at a policy in training: fixed logged rows, a fixed model, and what both say of the policy now.

Everything that does not depend on the policy is computed once (`ModelProbe.make`, `logged_values`); one look
is then a few thousand rows through the networks.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.errors import NonFiniteError
from mbrl.core.protocols import Policy, ValueFn
from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.normaliser import fit_moments
from mbrl.dynamics.arrays import thin
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.baselines import LinearModel
from mbrl.dynamics.openloop import Segments, draw_segments, run_open_loop
from mbrl.rollouts.generate import Imagination, RolloutConfig, Rollouts, generate_rollouts
from mbrl.shift.report import ShiftReport
from mbrl.shift.statistics import (
    DISTANCE_OF_NEAR,
    MIN_SEGMENTS,
    compare_values,
    edge_excess,
    edge_of_reach,
    error_near_policy,
    relative_change,
    returns_to_go,
)
from mbrl.shift.support import MIN_ROWS, BehaviourSupport
from mbrl.uncertainty.measures import StepContext
from mbrl.uncertainty.penalty import CAP

STATES: Final = 1_000
"""Held-out logged states of a look, and logged steps whose returns are compared."""

STARTS: Final = 200
"""Rollouts of a look."""

MAX_HORIZON: Final = 10
"""Longest rollout along which uncertainty is measured; the model's trusted horizon may shorten it."""

MAX_EDGE_HORIZON: Final = 100
"""Longest rollout whose edge is looked for: a look is to cost little, and of longer ones little is edge."""

_SEGMENTS = 500
_SEGMENT_HORIZON = 5
_PARTICLES = 20
_FIT_ROWS = 20_000  # training rows behind the linear model that open-loop errors are made beside
_FEW_RETURNS = 50  # logged returns below which neither their deviation nor a rank correlation means much


class LoggedValues(NamedTuple):
    """Logged steps and what they returned.

    Attributes:
        obs: `[n, obs_dim]`, raw units.
        action: `[n, act_dim]`, environment units.
        returns: `[n]` float64, discounted return from each step on, return units.
    """

    obs: Tensor
    action: Tensor
    returns: NDArray[np.float64]


def logged_values(
    dataset: Dataset,
    *,
    discount: float,
    generator: torch.Generator,
    count: int = STATES,
) -> LoggedValues | None:
    """At most `count` random steps whose return is known (see `returns_to_go`); None if these are few.

    Args:
        dataset: the log.
        discount: of the returns.
        generator: of the choice of steps.
        count: steps.
    """
    returns, is_usable = returns_to_go(dataset.episodes, discount)
    usable = np.flatnonzero(is_usable)
    if len(usable) < _FEW_RETURNS:
        return None
    rows = usable[torch.randperm(len(usable), generator=generator)[:count].numpy()]
    steps = dataset.transitions()
    return LoggedValues(
        torch.tensor(steps.observation[rows]), torch.tensor(steps.action[rows]), returns[rows]
    )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ModelProbe:
    """What a fitted model says, apart from the policy.

    Attributes:
        imagination: the model with a unit-free measure; it flags nothing, so no rollout ends by its doubt.
        flag_level: unit-free uncertainty of the data's 0.99 quantile.
        baseline: mean unit-free uncertainty on held-out rows, capped like that of rollouts.
        horizon: steps of a rollout.
        segments: of held-out episodes.
        error: `[s, K]` open-loop error along them.
        action_std: `[act_dim]` deviations of the logged actions, environment units.
    """

    imagination: Imagination
    flag_level: float
    baseline: float
    horizon: int
    segments: Segments
    error: NDArray[np.float64]
    action_std: NDArray[np.float64]

    @classmethod
    @torch.no_grad()
    def make(
        cls,
        dynamics: FittedDynamics,
        imagination: Imagination,
        *,
        train: Transitions,
        holdout: Dataset,
        generator: torch.Generator,
    ) -> "ModelProbe":
        """Measures `dynamics` on held-out data.

        Args:
            dynamics: the fit.
            imagination: of it, with a unit-free measure whose threshold is the data's 0.99 quantile.
            train: rows of the fit.
            holdout: episodes that were held out of it.
            generator: segments and particles.
        """
        trusted = max(1, dynamics.report.trusted_horizon)
        known = train.successors_known()
        segments = draw_segments(
            holdout, count=_SEGMENTS, horizon=min(trusted, _SEGMENT_HORIZON), generator=generator
        )
        loop = run_open_loop(
            dynamics.model,
            dynamics.termination,
            LinearModel.fit(thin(known, _FIT_ROWS)),
            segments,
            particles=_PARTICLES,
            obs_std=fit_moments(train.observation)[1],
            generator=generator,
        )
        rows = thin(holdout.transitions(), STATES)
        return cls(
            imagination=dataclasses.replace(imagination, threshold=math.inf),
            flag_level=imagination.threshold,
            baseline=_mean_uncertainty(imagination, rows),
            horizon=min(trusted, MAX_HORIZON),
            segments=segments,
            error=loop.error,
            action_std=fit_moments(train.action)[1],
        )


def _mean_uncertainty(imagination: Imagination, rows: Transitions) -> float:
    assert imagination.measure is not None
    obs, action = torch.tensor(rows.observation), torch.tensor(rows.action)
    context = StepContext(obs=obs, action=action, reference=imagination.reference)
    values = imagination.measure(imagination.model.predict(obs, action), context)
    return float(values.double().clamp_max(CAP).mean())


@dataclasses.dataclass(frozen=True, slots=True)
class EdgeProbe:
    """The rollouts that a recipe learns from.

    Attributes:
        imagination: with the recipe's threshold.
        rollout: with the recipe's horizon, as limited by the model.
    """

    imagination: Imagination
    rollout: RolloutConfig


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ShiftProbe:
    """All that a look needs besides the policy. A part that is None has its reason in `why_not`.

    Attributes:
        states: `[n, obs_dim]` held-out logged states, fixed over the training, raw units.
        updates: length of the training.
        support: of the behaviour.
        returns: logged steps and what they returned.
        value_bounds: least and largest value that the rewards permit.
        model: the fitted model.
        edge: what the recipe imagines.
        why_not: reasons by the name of a part.
    """

    states: Float[Tensor, "n obs_dim"]
    updates: int
    support: BehaviourSupport | None = None
    returns: LoggedValues | None = None
    value_bounds: tuple[float, float] | None = None
    model: ModelProbe | None = None
    edge: EdgeProbe | None = None
    why_not: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])

    @torch.no_grad()
    def look(
        self,
        policy: Policy,
        value: ValueFn | None,
        *,
        step: int,
        past: Mapping[int, float],
        generator: torch.Generator,
    ) -> ShiftReport:
        """Holds a policy against the log.

        Actions are drawn like in training, with noise: what critics are asked about.

        Args:
            policy: acts.
            value: of the learner, or None.
            step: updates done.
            past: `mean_value` of earlier looks, by their step.
            generator: of all draws.
        """
        found = _Findings(dict(self.why_not))
        self._look_at_actions(found, policy, generator)
        self._look_at_values(found, value, step, past)
        self._look_at_rollouts(found, policy, generator)
        self._look_at_edge(found, policy, value, generator)
        self._look_near_policy(found, policy)
        return found.report(step, self.updates)

    def _look_at_actions(self, found: "_Findings", policy: Policy, generator: torch.Generator) -> None:
        noise = torch.randn(len(self.states), policy.act_dim, generator=generator)
        if self.support is None:
            found.lack("support", "out_of_support_share", "knn_share")
            return
        action = policy.act(self.states, noise)
        if not bool(action.isfinite().all()):
            found.skip("the policy's actions are not finite", "out_of_support_share", "knn_share")
            return
        found.put("out_of_support_share", _share(self.support.is_unlikely(self.states, action)))
        found.put("knn_share", _share(self.support.is_distant(self.states, action)))
        found.rows |= {"states": len(self.states), "support": self.support.rows}

    def _look_at_values(
        self, found: "_Findings", value: ValueFn | None, step: int, past: Mapping[int, float]
    ) -> None:
        if value is None:
            reason = "the learner estimates no values"
            found.skip(reason, "value_gap", "value_rank_correlation", "value_drift")
            return
        self._compare_returns(found, value)
        values = value.value(self.states).double()
        mean, spread = float(values.mean()), float(values.std(correction=0))
        found.put("mean_value", mean)
        since = min(past, key=lambda earlier: abs(earlier - 0.75 * step), default=None)
        if since is None:
            found.skip("this is the first look at the values", "value_drift")
            return
        change = relative_change(mean, past[since], spread=spread)
        found.put("value_drift", change, why_not="all values are 0")
        found.values["value_drift_since"] = since

    def _compare_returns(self, found: "_Findings", value: ValueFn) -> None:
        if self.returns is None:
            found.lack("returns", "value_gap", "value_rank_correlation")
            return
        values = value.action_value(self.returns.obs, self.returns.action).double().numpy()
        result = compare_values(values, self.returns.returns, bounds=self.value_bounds)
        found.put("value_gap", result.gap, why_not="the logged returns are all the same")
        found.put("value_rank_correlation", result.rank_correlation, why_not="returns or values do not vary")
        found.values |= {"value_gap_low": result.low, "value_gap_high": result.high}
        found.rows["returns"] = len(values)

    def _look_at_rollouts(self, found: "_Findings", policy: Policy, generator: torch.Generator) -> None:
        names = ("rollout_uncertainty_ratio", "rollout_flagged_share")
        if self.model is None:
            found.lack("model", *names)
            return
        model = self.model
        config = RolloutConfig(horizon=model.horizon, starts=STARTS, termination="threshold")
        rollouts = found.imagine(
            lambda: generate_rollouts(
                model.imagination, policy, self.states[:STARTS], config=config, generator=generator
            ),
            names,
        )
        if rollouts is None:
            return
        uncertainty = rollouts.uncertainty[rollouts.valid].double()
        mean = float(uncertainty.clamp_max(CAP).mean())
        ratio = mean / model.baseline if model.baseline > 0 else None
        found.put("rollout_uncertainty_ratio", ratio, why_not="the model is never unsure on held-out rows")
        found.put("rollout_flagged_share", _share(uncertainty > model.flag_level))
        found.rows["rollout_steps"] = len(uncertainty)

    def _look_at_edge(
        self, found: "_Findings", policy: Policy, value: ValueFn | None, generator: torch.Generator
    ) -> None:
        if self.edge is None:
            found.lack("edge", "edge_share", "edge_value_gap")
            return
        edge, starts = self.edge, self.states[:STARTS]
        rollouts = found.imagine(
            lambda: generate_rollouts(
                edge.imagination, policy, starts, config=edge.rollout, generator=generator
            ),
            ("edge_share", "edge_value_gap"),
        )
        if rollouts is None:
            return
        reach = edge_of_reach(rollouts)
        found.put("edge_share", reach.share, why_not="no imagined state is bootstrapped from")
        found.rows["edge_steps"] = int(rollouts.valid.sum())
        if value is None:
            found.skip("the learner estimates no values", "edge_value_gap")
            return
        values, next_values = (
            value.value(obs.flatten(0, 1)).view(rollouts.valid.shape)
            for obs in (rollouts.observation, rollouts.next_observation)
        )
        excess = edge_excess(reach, rollouts.valid, value=values, next_value=next_values)
        spread = float(value.value(self.states).double().std(correction=0))
        gap = excess / spread if excess is not None and spread > 0 else None
        found.put("edge_value_gap", gap, why_not="no rollout has an edge, or values do not vary")

    def _look_near_policy(self, found: "_Findings", policy: Policy) -> None:
        if self.model is None:
            found.lack("model", "model_error_near_policy")
            return
        segments = self.model.segments
        states = torch.tensor(segments.observations[:, :-1])
        actions = policy.act(states.flatten(0, 1)).view(*states.shape[:2], -1).numpy()
        near = error_near_policy(segments, self.model.error, actions, action_std=self.model.action_std)
        if near is None:
            found.skip(
                f"fewer than {MIN_SEGMENTS} of {len(segments)} held-out segments begin within "
                f"{DISTANCE_OF_NEAR:g} deviations of the policy's action",
                "model_error_near_policy",
            )
            return
        found.put("model_error_near_policy", near.error)
        found.values |= {"model_error": near.everywhere, "model_error_horizon": near.horizon}
        found.rows["near_segments"] = near.segments


def why_no_support(rows: int) -> str | None:
    """The reason that so few held-out rows give no thresholds; None if they do."""
    if rows >= MIN_ROWS:
        return None
    return f"{rows} rows are held out, and a 1 % quantile needs {MIN_ROWS}"


_Value: TypeAlias = float | int | None


@dataclasses.dataclass(slots=True)
class _Findings:
    """Fills a report: a value that is missing or not finite gets its reason."""

    reasons: dict[str, str]
    values: dict[str, _Value] = dataclasses.field(default_factory=dict[str, _Value])
    rows: dict[str, int] = dataclasses.field(default_factory=dict[str, int])
    why_not: dict[str, str] = dataclasses.field(default_factory=dict[str, str])

    def put(self, name: str, value: float | None, *, why_not: str = "it is not finite") -> None:
        if value is None or not math.isfinite(value):
            self.why_not[name] = why_not if value is None else "it is not finite"
            return
        self.values[name] = value

    def skip(self, reason: str, *names: str) -> None:
        self.why_not |= dict.fromkeys(names, reason)

    def lack(self, part: str, *names: str) -> None:
        self.skip(self.reasons.get(part, f"there is no {part}"), *names)

    def imagine(self, run: Callable[[], Rollouts], names: tuple[str, ...]) -> Rollouts | None:
        """Rollouts with at least one valid step, or None with the reason."""
        try:
            rollouts = run()
        except NonFiniteError:
            self.skip("the model blows up along the policy's rollouts", *names)
            return None
        if not bool(rollouts.valid.any()):
            self.skip("no imagined step was kept", *names)
            return None
        return rollouts

    def report(self, step: int, updates: int) -> ShiftReport:
        fields: dict[str, Any] = {**self.values, "rows": self.rows, "why_not": self.why_not}
        return ShiftReport(step=step, updates=updates, **fields)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
