"""Looks at a policy in training: fixed logged rows, a fixed model, and what both say of the policy now.

Everything that does not depend on the policy is computed once (`ModelProbe.make`, `logged_values`); one look
is then a few thousand rows through the networks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.protocols import Policy, StateValueFn, ValueFn
from mbrl.rollouts.generate import RolloutConfig, generate_rollouts
from mbrl.shift.findings import ShiftFindings
from mbrl.shift.logged_values import LoggedValues
from mbrl.shift.model_probe import EdgeProbe, ModelProbe
from mbrl.shift.report import ShiftReport
from mbrl.shift.statistics import (
    DISTANCE_OF_NEAR,
    MIN_SEGMENTS,
    compare_values,
    edge_excess,
    edge_of_reach,
    error_near_policy,
    relative_change,
)
from mbrl.shift.support import BehaviourSupport
from mbrl.uncertainty.penalty import CAP

STATES: Final = 1_000
"""Held-out logged states of a look."""

STARTS: Final = 200
"""Rollouts of a look."""


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
        value: StateValueFn | None,
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
        # One generator for all parts, in this order: a part that is
        # left out shifts the draws of those behind it.
        found = ShiftFindings(dict(self.why_not))
        self._look_at_actions(found, policy, generator)
        self._look_at_values(found, value, step, past)
        self._look_at_rollouts(found, policy, generator)
        self._look_at_edge(found, policy, value, generator)
        self._look_near_policy(found, policy)
        return found.report(step, self.updates)

    def _look_at_actions(self, found: ShiftFindings, policy: Policy, generator: torch.Generator) -> None:
        # Drawn before any return, so that the later parts get the same draws with and without support.
        noise = torch.randn(len(self.states), policy.act_dim, generator=generator)
        if self.support is None:
            found.lack("support", "out_of_support_share", "knn_share")
            return
        # With noise, as in training: the critics are asked about draws, not about the mode alone.
        action = policy.act(self.states, noise)
        # Comparisons with NaN are False: a broken policy would count as inside of the support.
        if not bool(action.isfinite().all()):
            found.skip("the policy's actions are not finite", "out_of_support_share", "knn_share")
            return
        # Shares of states where log b(pi(s)|s) lies below that of 99 % of the logged actions, and where
        # (s, pi(s)) is farther from the log than 99 % of its rows are from each other.
        found.put("out_of_support_share", _share(self.support.is_unlikely(self.states, action)))
        found.put("knn_share", _share(self.support.is_distant(self.states, action)))
        found.rows |= {"states": len(self.states), "support": self.support.rows}

    def _look_at_values(
        self, found: ShiftFindings, value: StateValueFn | None, step: int, past: Mapping[int, float]
    ) -> None:
        if value is None:
            reason = "the learner estimates no values"
            found.skip(reason, "value_gap", "value_rank_correlation", "value_drift")
            return
        if isinstance(value, ValueFn):
            self._compare_returns(found, value)
        else:
            reason = "the learner values states, and no actions"
            found.skip(reason, "value_gap", "value_rank_correlation")
        values = value.value(self.states).double()
        # float64 above: the drift is a small difference of means of large values.
        mean, spread = float(values.mean()), float(values.std(correction=0))
        found.put("mean_value", mean)
        # Held against the look nearest to three quarters of the way: the last quarter is what still moved.
        since = min(past, key=lambda earlier: abs(earlier - 0.75 * step), default=None)
        if since is None:
            found.skip("this is the first look at the values", "value_drift")
            return
        change = relative_change(mean, past[since], spread=spread)
        found.put("value_drift", change, why_not="all values are 0")
        found.values["value_drift_since"] = since

    def _compare_returns(self, found: ShiftFindings, value: ValueFn) -> None:
        if self.returns is None:
            found.lack("returns", "value_gap", "value_rank_correlation")
            return
        values = value.action_value(self.returns.obs, self.returns.action).double().numpy()
        # mean(Q(s, a) - G) / std(G) on logged steps: the returns are the behaviour's own.
        result = compare_values(values, self.returns.returns, bounds=self.value_bounds)
        found.put("value_gap", result.gap, why_not="the logged returns are all the same")
        found.put("value_rank_correlation", result.rank_correlation, why_not="returns or values do not vary")
        found.values |= {"value_gap_low": result.low, "value_gap_high": result.high}
        found.rows["returns"] = len(values)

    def _look_at_rollouts(self, found: ShiftFindings, policy: Policy, generator: torch.Generator) -> None:
        names = ("rollout_uncertainty_ratio", "rollout_flagged_share")
        if self.model is None:
            found.lack("model", *names)
            return
        model = self.model
        # Ends by threshold, not by a draw: looks then differ by the policy and not by luck.
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
        # mean u along the rollouts over mean u on held-out rows, both capped alike: one wild step is not all.
        mean = float(uncertainty.clamp_max(CAP).mean())
        # 1 for a policy that acts like the log, in a model that
        # is as sure of its own states as of logged ones.
        ratio = mean / model.baseline if model.baseline > 0 else None
        found.put("rollout_uncertainty_ratio", ratio, why_not="the model is never unsure on held-out rows")
        found.put("rollout_flagged_share", _share(uncertainty > model.flag_level))
        found.rows["rollout_steps"] = len(uncertainty)

    def _look_at_edge(
        self, found: ShiftFindings, policy: Policy, value: StateValueFn | None, generator: torch.Generator
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
        # The recipe's own horizon and cuts: what is edge depends on both.
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
        # (V at the edge - V before it) / std of V over the data.
        excess = edge_excess(reach, rollouts.valid, value=values, next_value=next_values)
        spread = float(value.value(self.states).double().std(correction=0))
        gap = excess / spread if excess is not None and spread > 0 else None
        found.put("edge_value_gap", gap, why_not="no rollout has an edge, or values do not vary")

    def _look_near_policy(self, found: ShiftFindings, policy: Policy) -> None:
        if self.model is None:
            found.lack("model", "model_error_near_policy")
            return
        # Open-loop error on the held-out segments whose logged actions lie near pi(s): where it matters.
        segments = self.model.segments
        states = torch.tensor(segments.observations[:, :-1])
        # The mode: noise would push segments off that follow the policy.
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


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
