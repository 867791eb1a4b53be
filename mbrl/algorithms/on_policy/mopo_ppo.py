"""MOPO-PPO: proximal policy optimisation on penalised rollouts of the fitted ensemble.

Source: Li et al. 2025 (RWM-U, arXiv:2504.16680): thousands of imagined environments side by side, two dozen
steps each, rewards lowered by the disagreement of the members.

Departures from the paper:
- the model is this package's feed-forward ensemble, not a recurrent one;
- every iteration starts its environments anew from logged states (or from first ones), so that no state of
  an environment outlives a refresh; a rollout that is cut bootstraps from its last successor;
- the penalty is unit-free, and rollouts are cut where the uncertainty is out of range, as in `mopo`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.algorithms.base import RECIPES, Recipe, RecipeConfig, RecipeContext, Stream, unless_given
from mbrl.algorithms.imagination import (
    TerminationSource,
    choose_termination,
    imagine,
    imagined_value_bounds,
    limit_horizon,
    settle_halt_reward,
)
from mbrl.algorithms.model_stream import FalseEnds, start_states
from mbrl.algorithms.penalty import PenaltyConfig, UncertaintyRule
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Policy, StateValueFn
from mbrl.core.types import Metrics
from mbrl.data.sources import OnPolicySource
from mbrl.learners.base import BatchKind
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Imagination, generate_rollouts
from mbrl.rollouts.on_policy import Judgement, judge_rollouts
from mbrl.rollouts.steps import rollout_metrics


class MOPOPPOConfig(RecipeConfig):
    """On-policy iterations in the model.

    Attributes:
        updates: minibatches in all; an iteration has `epochs * starts * horizon / batch_size` of them.
        rollout: the imagined environments of an iteration: `starts` side by side, `horizon` steps each.
        penalty: how uncertainty lowers imagined rewards.
        termination: who ends imagined episodes: the `learned` head, the known rule of the `task` (or of the
            log), or nobody; `auto` takes the rule where there is one.
        epochs: passes over the steps of an iteration; more where rollouts end early, since an iteration has
            the same number of minibatches in any case.
    """

    default_learner: ClassVar[Mapping[str, Any]] = {"name": "ppo"}
    batch_kinds: ClassVar[frozenset[BatchKind]] = frozenset({"on_policy"})

    updates: Annotated[int, Field(ge=1, le=1_000_000_000)] = 6000
    rollout: Annotated[RolloutConfig, unless_given(horizon=24, starts=2048)] = RolloutConfig(
        horizon=24, starts=2048
    )
    penalty: PenaltyConfig = PenaltyConfig()
    termination: TerminationSource = "auto"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 5


@RECIPES.register("mopo_ppo", "PPO on penalised model rollouts (Li et al. 2025).")
class MOPOPPO(Recipe):
    """An on-policy learner in the fitted ensemble."""

    Config = MOPOPPOConfig
    needs_dynamics: ClassVar[bool] = True

    @classmethod
    def open_stream(cls, config: MOPOPPOConfig, context: RecipeContext) -> Stream:
        """What the policy of each iteration imagines, and nothing of the log but where it starts.

        Raises:
            ConfigError: data, model, quantiles or start states are missing, or the model cannot be trusted.
        """
        transitions, dynamics = context.logged(cls.__name__), context.model(cls.__name__)
        learner: Any = config.learner.config
        rollout = limit_horizon(config.rollout, dynamics)
        rollout = settle_halt_reward(rollout, transitions, discount=learner.discount)
        rule = UncertaintyRule.make(rollout, config.penalty, dynamics, transitions=transitions)
        termination = choose_termination(config.termination, context, dynamics)
        source = OnPolicySource()
        iteration = _Iteration(
            starts=start_states(rollout, context, transitions),
            source=source,
            imagination=imagine(rollout, rule, dynamics, termination=termination, transitions=transitions),
            rollout=rollout,
            rule=rule,
            discount=learner.discount,
            trace=learner.trace,
            false_ends=FalseEnds(dynamics.report),
        )
        minibatches = max(1, rollout.starts * rollout.horizon // learner.batch_size)
        return Stream(
            source,
            refresh=iteration,
            refresh_interval=config.epochs * minibatches,
            value_bounds=imagined_value_bounds(transitions, rule, rollout=rollout, discount=learner.discount),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Iteration:
    """Imagines the steps of the present policy, penalised, with their advantages."""

    starts: Float[Tensor, "n obs_dim"]
    source: OnPolicySource
    imagination: Imagination
    rollout: RolloutConfig
    rule: UncertaintyRule
    discount: float
    trace: float
    false_ends: FalseEnds

    def refresh_with_value(
        self, policy: Policy, value: StateValueFn | None, step: int, generator: torch.Generator
    ) -> Metrics:
        """Renews all steps.

        Raises:
            ConfigError: nothing was imagined, or the learner has no density or no values.
        """
        judgement = Judgement.of(policy, value, discount=self.discount, trace=self.trace)
        halts = self.rollout.flagged == "halt"
        index = torch.randint(
            len(self.starts), (self.rollout.starts,), generator=generator, device=generator.device
        )
        rollouts = generate_rollouts(
            self.imagination, policy, self.starts[index], config=self.rollout, generator=generator
        )
        # r - lambda c_r u, before anything is summed: advantages are those of the penalised task.
        reward = self.rule.penalise(rollouts, halts=halts)
        self.source.replace(judge_rollouts(rollouts, reward, judgement))
        if len(self.source) == 0:
            raise ConfigError(
                f"Nothing was imagined at update {step}: every first step was dropped as too uncertain. "
                "Remedy: set algorithm.rollout.flagged=keep, or raise algorithm.rollout.truncation_quantile."
            )
        self.false_ends.check(rollouts, halts=halts)
        valid = rollouts.valid
        penalty = (rollouts.reward - reward)[valid].double().mean()
        return {**rollout_metrics(rollouts), "rollout/penalty": penalty}
