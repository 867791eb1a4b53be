"""Checks for learners, recipes, planners and whatever else is registered, of this package or of others.

Each function takes a name, or the thing itself, and runs small checks by name; a failure says which, what was
expected and what came:

    from mbrl.testing import check_learner

    def test_mine() -> None:
        check_learner(MyLearner, {"temperature": 0.5})

The tables (`LEARNER_CHECKS` and so on) hold the names, for a test of each: `check_learner(MyLearner,
checks=[name])`. Nothing here needs a test framework.
"""

from mbrl.testing.algorithms import ALGORITHM_CHECKS, check_algorithm
from mbrl.testing.checks import CheckError
from mbrl.testing.learners import LEARNER_CHECKS, check_learner
from mbrl.testing.planners import PLANNER_CHECKS, check_planner
from mbrl.testing.policies import POLICY_CHECKS, check_policy

__all__ = [
    "ALGORITHM_CHECKS",
    "LEARNER_CHECKS",
    "PLANNER_CHECKS",
    "POLICY_CHECKS",
    "CheckError",
    "check_algorithm",
    "check_learner",
    "check_planner",
    "check_policy",
]
