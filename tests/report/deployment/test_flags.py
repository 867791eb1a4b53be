from mbrl.report.deployment.flags import flag_table


def test_each_flag_names_its_estimators_and_its_meaning() -> None:
    report = {
        "candidate": "bc-s0",
        "estimates": [
            {"name": "dr", "flags": ["no_crossfit", "low_ess"]},
            {"name": "is", "flags": ["low_ess"]},
            {"name": "fqe", "flags": []},
        ],
    }
    rows = flag_table(report).rows
    assert [row[:2] for row in rows] == [["low_ess", "dr, is"], ["no_crossfit", "dr"]]
    assert rows[0][2] == "too few episodes carry the weight"
    assert flag_table({**report, "estimates": []}).rows == []
