from mbrl.report.study.fact_tables import selected_table
from tests.report.studies import run, small_study


def test_the_selected_policy_stands_beside_the_last_of_the_same_trainings(doctor_report):
    def trained(seed, last, chosen):
        said = {"updates": 10, "low": 0.0, "judged": 5.0, "honest": None}
        return run("d", "bc", seed, 0.0, returns=(chosen,), last_returns=(last,), selected=said)

    study = small_study(doctor_report, {"bc": [trained(0, 1.0, 3.0), trained(1, 4.0, 2.0)]})
    table = selected_table(study, study.datasets[0])
    assert [list(row) for row in table.rows] == [["bc", "2.50", "2.50", "5", "1 of 2", 2]]
    plain = small_study(doctor_report, {"bc": [1.0, 2.0]})
    assert selected_table(plain, plain.datasets[0]) is None
