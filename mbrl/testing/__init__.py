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
from mbrl.testing.estimators import ESTIMATOR_CHECKS, check_estimator
from mbrl.testing.formats import FORMAT_CHECKS, check_format
from mbrl.testing.learners import LEARNER_CHECKS, check_learner
from mbrl.testing.measures import MEASURE_CHECKS, check_measure
from mbrl.testing.planners import PLANNER_CHECKS, check_planner
from mbrl.testing.policies import POLICY_CHECKS, check_policy

__all__ = [
    "ALGORITHM_CHECKS",
    "ESTIMATOR_CHECKS",
    "FORMAT_CHECKS",
    "LEARNER_CHECKS",
    "MEASURE_CHECKS",
    "PLANNER_CHECKS",
    "POLICY_CHECKS",
    "CheckError",
    "check_algorithm",
    "check_estimator",
    "check_format",
    "check_learner",
    "check_measure",
    "check_planner",
    "check_policy",
]
