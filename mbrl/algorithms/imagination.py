"""What model-based recipes share: from a fitted model and a config to ready-to-run imagination."""

import math
from typing import Literal, TypeAlias

from mbrl.algorithms.base import RecipeContext
from mbrl.algorithms.penalty import UncertaintyRule
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import TerminationFn
from mbrl.core.rng import RngStreams
from mbrl.core.types import TransitionBatch
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.termination import NeverTerminates
from mbrl.ops.spread import PlausibleRange
from mbrl.ops.targets import value_bounds
from mbrl.rollouts.box import Box
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Imagination
from mbrl.uncertainty.density import DensityReference

TerminationSource: TypeAlias = Literal["auto", "learned", "task", "never"]


def limit_horizon(rollout: RolloutConfig, dynamics: FittedDynamics) -> RolloutConfig:
    """Shortens the horizon to the model's trusted one, where the config says so.

    Raises:
        ConfigError: not even one step can be trusted.
    """
    trusted = dynamics.report.trusted_horizon
    # Only ever shorter: a horizon that the config wants short stays so.
    if not rollout.respect_trusted_horizon or trusted >= rollout.horizon:
        return rollout
    if trusted == 0:
        raise ConfigError(
            "The trusted horizon of the dynamics model is 0: on held-out episodes not even one step is "
            "predicted well. Remedy: use a model-free learner on these data, improve the logs or the fit "
            "(see the report of the fit), or set algorithm.rollout.respect_trusted_horizon=false to go on at "
            "your own risk."
        )
    return rollout.model_copy(update={"horizon": trusted})


def settle_halt_reward(
    rollout: RolloutConfig, transitions: TransitionBatch, *, discount: float
) -> RolloutConfig:
    """Puts a number in the place of an open halt reward: `min(r_min, 0) / (1 - discount)`.

    A halted rollout earns it once and nothing after, so it has to be a value: the least that the logged
    rewards permit, as if the worst of them went on for ever. Halting then never pays, whatever the sign of
    the rewards; an end with reward 0 would be the best there is where rewards are negative. The worst reward
    is the least that is no outlier (`PlausibleRange.of_all_but_few`: falls that come back are none): a single
    wrong row would count `1 / (1 - discount)` times over.
    """
    if rollout.flagged != "halt" or rollout.halt_reward is not None:
        return rollout
    reward = transitions.reward
    # Never above 0: with rewards that are all positive, to earn nothing more is the worst.
    worst = min(PlausibleRange.of_all_but_few(reward).least, 0.0)
    return rollout.model_copy(update={"halt_reward": worst / (1 - discount)})


def choose_termination(
    source: TerminationSource, context: RecipeContext, dynamics: FittedDynamics
) -> TerminationFn:
    """The learned head, a known rule of the task or the log, or none; `auto` takes a rule if there is one.

    A head is exploited like everything that is learned: a policy finds the falls that it overlooks.

    Raises:
        ConfigError: a rule is asked for, and none is known.
    """
    known = context.known_termination
    if source == "learned" or (source == "auto" and known is None):
        return dynamics.termination
    if source == "never":
        return NeverTerminates()
    if known is None:
        name = "no task is known" if context.task is None else f"the task {context.task.name!r} declares none"
        raise ConfigError(
            f"algorithm.termination=task needs a known termination rule, but {name}. "
            "Remedy: declare one in the task's yaml or the log's schema, or use termination=learned."
        )
    return known


def imagine(
    rollout: RolloutConfig,
    rule: UncertaintyRule,
    dynamics: FittedDynamics,
    *,
    termination: TerminationFn,
    transitions: TransitionBatch,
) -> Imagination:
    """Puts together what rollouts need.

    Args:
        rollout: whether imagined steps are clipped.
        rule: which uncertainty is read, and where it cuts.
        dynamics: the fit.
        termination: who ends imagined episodes.
        transitions: the logged steps: the box, and the reference of measures of density.
    """
    box = Box.around(transitions) if rollout.clip_to_data else None
    reference = None
    if rule.reads_density:
        # Which rows stand for the data is no part of what a run's seed decides.
        rng = RngStreams(0).at("density_reference")
        reference = DensityReference.fit(transitions.observation, transitions.action, generator=rng)
    return Imagination(
        dynamics.model,
        termination,
        rule.measure,
        rule.threshold,
        box,
        reference,
        guard=rule.guard,
        reward=dynamics.known_reward,
    )


def imagined_value_bounds(
    transitions: TransitionBatch, rule: UncertaintyRule, *, rollout: RolloutConfig, discount: float
) -> tuple[float, float]:
    """Bounds that the logged rewards put on values, widened by what imagination adds: penalties and halts.

    A halt reward is earned once, as the last.
    """
    low, high = float(transitions.reward.min()), float(transitions.reward.max())
    # A penalty may be paid in every step, so it widens the least reward, not the least return.
    low, high = value_bounds(low - rule.largest_penalty(), high, discount=discount)
    # Only where something halts; the reward is a return already, and nothing is summed after it.
    if rollout.flagged == "halt" and rollout.halt_reward is not None and math.isfinite(rule.threshold):
        low, high = min(low, rollout.halt_reward), max(high, rollout.halt_reward)
    return low, high
