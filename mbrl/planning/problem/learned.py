"""A fitted model, a policy and its critics, put together to what planners plan in."""

import dataclasses

from mbrl.core.protocols import CriticValues, Policy, TerminationFn
from mbrl.core.types import SpaceSpec
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import make_prior
from mbrl.planning.problem.problem import Pessimism, PlanningProblem, UncertaintyFn
from mbrl.planning.problem.uncertainty import TargetDeviation, UncertaintyConfig, posterior_uncertainty
from mbrl.planning.problem.values import CriticLeaf


def learned_problem(
    dynamics: FittedDynamics,
    policy: Policy,
    critics: CriticValues,
    *,
    space: SpaceSpec,
    discount: float,
    uncertainty: UncertaintyConfig | None = None,
    termination: TerminationFn | None = None,
    value_scale: float = 1.0,
) -> PlanningProblem:
    """What planners plan in, without pessimism yet: its step measures u, for `calibrate_planner`.

    Args:
        dynamics: the fitted model.
        policy: proposes actions and acts at leaves.
        critics: of the policy, environment units.
        space: sizes and bounds.
        discount: g.
        uncertainty: how u is measured.
        termination: a task's known rule; None takes the learned head.
        value_scale: spread of the returns of the data, return units.

    Raises:
        ConfigError: the fit stored no quantile of the measure.
    """
    config = UncertaintyConfig() if uncertainty is None else uncertainty
    prior = make_prior(policy, space, proposal_std=config.proposal_std)
    box = None if prior.is_discrete else ActionBox(space)
    leaf = CriticLeaf(critics, prior, box)
    ending = dynamics.termination if termination is None else termination
    # The default measure is in reward units by itself; others are scaled to them.
    measure: UncertaintyFn = TargetDeviation(ending, prior, leaf, discount, config.action_samples)
    if config.measure != "target_q_std":
        measure = posterior_uncertainty(
            config.measure, dynamics.thresholds, reward_scale=dynamics.reward_scale
        )
    step = LearnedStep(dynamics.model, ending, box, uncertainty=measure, reward=dynamics.known_reward)
    return PlanningProblem(step, prior, leaf, space.obs_dim, discount, value_scale=value_scale)


def with_pessimism(problem: PlanningProblem, pessimism: Pessimism) -> PlanningProblem:
    """The problem with uncertainty charged for; where nothing reads u, its steps no longer compute it."""
    step = problem.step
    if not pessimism.reads_uncertainty and isinstance(step, LearnedStep):
        # Without a measure a row that follows one member costs one member instead of all.
        step = LearnedStep(step.model, step.termination, step.box, reward=step.reward)
    return dataclasses.replace(problem, step=step, pessimism=pessimism)
