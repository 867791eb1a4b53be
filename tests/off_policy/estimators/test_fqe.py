from mbrl.core.estimates import Estimand
from tests.off_policy.logs import TABULAR, ask, context_of, empirical, table_log


def test_it_is_the_value_of_the_empirical_model_of_a_table():
    mdp, dataset, policy, table = table_log()
    found = ask(context_of(policy, dataset, Estimand(0.8), TABULAR), "fqe")
    truth = empirical(dataset, mdp).value(table, Estimand(0.8))
    assert abs(found.point - truth) < 0.05 * abs(truth)
    assert (found.name, found.family) == ("fqe", "value")
    assert found.details["members"].shape == (5,)
