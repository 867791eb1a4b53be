"""Model, policy and critics put together."""

from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.learned import with_pessimism
from mbrl.planning.problem.model import LearnedStep
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.planning.problem.uncertainty import TargetDeviation
from mbrl.planning.problem.values import CriticLeaf
from tests.planning.linear import SPACE, LinearModel, LinearPolicy, QuadraticCritics

BOX = ActionBox(SPACE)


def test_pessimism_that_reads_no_uncertainty_frees_the_step_of_it():
    prior = PolicyPrior(LinearPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics(), prior, BOX)
    step = LearnedStep(
        LinearModel(),
        NeverTerminates(),
        BOX,
        uncertainty=TargetDeviation(NeverTerminates(), prior, leaf, 0.9),
    )
    problem = PlanningProblem(step, prior, leaf, 1, 0.9)
    free = with_pessimism(problem, Pessimism(lcb_coef=1.0)).step
    priced = with_pessimism(problem, Pessimism(penalty_coef=1.0)).step
    assert isinstance(free, LearnedStep)
    assert free.uncertainty is None
    assert priced is step
    halting = with_pessimism(problem, Pessimism(halt_threshold=1.0)).step
    assert halting is step
