import json
import math

import pytest

from mbrl.ope.judgement.conclusions import conclude
from mbrl.ope.judgement.next_data import MOST_EPISODES, combined_error, episodes_to_settle, next_data
from mbrl.ope.judgement.report_fields import FIELDS, complete
from tests.ope.reports import paired, report


def test_the_least_number_that_settles_it():
    # nothing known: 1.96 sigma / sqrt(k) < gap  <=>  k > (1.96 * 2 / 0.5)^2 = 61.46
    assert episodes_to_settle(0.5, None, 2.0) == 62
    assert combined_error(None, 2.0, 62) * 1.959964 < 0.5 < combined_error(None, 2.0, 61) * 1.959964
    # an error of 0.4 is worth (2 / 0.4)^2 = 25 episodes
    assert episodes_to_settle(0.5, 0.4, 2.0) == 62 - 25
    assert episodes_to_settle(0.5, 0.1, 2.0) == 1  # settled already
    assert episodes_to_settle(0.0, 0.1, 2.0) is None
    assert episodes_to_settle(1e-3, None, 2.0) is None


def concluded(found):
    return conclude(found, {})


def test_the_proposal_rests_on_the_surest_family_that_counts():
    found = concluded(paired(report((0.5, 3.0), (0.5, 2.5)), pdwis=(-0.2, 0.8), fqe=(-0.1, 0.5)))
    assert found["verdict"]["verdict"] == "cannot_tell"
    proposal = next_data(found)
    se, gap = 0.3 / 1.959964, 0.2  # of fqe: half the width of its interval
    assert proposal["episodes"] == math.floor(((1.959964 / gap) ** 2 - se**-2) * 1.0) + 1
    assert proposal["half_width_now"] == pytest.approx(1.959964 * se)
    assert proposal["half_width_then"] < gap
    assert proposal["is_enough"] is True
    assert proposal["shrink"] == pytest.approx(1 - proposal["half_width_then"] / proposal["half_width_now"])


def test_without_a_family_that_counts_half_a_deviation_is_looked_for():
    proposal = next_data(concluded(report()))
    assert proposal["episodes"] == 16  # (1.96 / 0.5)^2 = 15.4
    assert proposal["half_width_now"] is None
    assert proposal["shrink"] is None


def test_a_question_that_no_test_settles_is_capped():
    proposal = next_data(concluded(paired(report((0.5, 3.0)), pdwis=(-0.5, 0.5002))))
    assert proposal["episodes"] == MOST_EPISODES
    assert proposal["is_enough"] is False


def test_nothing_is_collected_for_a_verdict_that_stands():
    for found in (report((2.0, 3.0), (2.0, 3.0)), report((0.1, 0.5), (0.1, 0.5))):
        proposal = next_data(concluded(found))
        assert proposal["episodes"] is None
        assert proposal["why_not"]


def test_more_of_the_log_is_the_other_way_where_ratios_nearly_count():
    found = report(ess=20.0)
    found["diagnostics"]["ess_t"] = [50.0, 20.0]
    found["diagnostics"]["heat"] = [
        {"kind": "weight", "episode": 1, "first_step": 0},
        {"kind": "support", "episode": 7, "first_step": 3},
    ]
    proposal = next_data(concluded(found))
    assert proposal["alternatives"][0]["episodes"] == 25  # 50 * (30 / 20 - 1)
    assert proposal["states"] == [{"episode": 7, "step": 3}]


@pytest.mark.parametrize("candidates", [1, 3])
def test_every_field_is_there_and_every_null_has_a_reason(candidates):
    found = conclude(report((2.0, 3.0)), {"risk": "nobody asked"}, candidates=candidates)
    json.dumps(found, allow_nan=False)
    nulls = set()
    for section, keys in FIELDS.items():
        assert set(keys) <= found[section].keys()
        nulls |= {f"{section}.{key}" for key in keys if found[section][key] is None}
    assert found["why_not"].keys() == nulls
    assert all(found["why_not"].values())
    assert found["why_not"]["risk.p_violation"] == "nobody asked"
    assert ("corrected" in found["verdict"]) == (candidates > 1)


def test_what_is_not_finite_becomes_null():
    found = complete({"diagnostics": {"pareto_k": -math.inf, "ess_t": [1.0, math.nan]}}, {})
    assert found["diagnostics"]["pareto_k"] is None
    assert found["diagnostics"]["ess_t"] == [1.0, None]
    assert "diagnostics.pareto_k" in found["why_not"]


def test_what_the_log_has_settled_is_confirmed_by_the_candidate_alone():
    """One family lies above: its own error would need no episode, but it may be wrong as a whole."""
    found = concluded(paired(report((0.5, 3.0), (0.5, 2.5)), pdwis=(-0.2, 0.8), fqe=(0.1, 0.5)))
    assert found["verdict"]["verdict"] == "go_with_guard"
    proposal = next_data(found)
    assert proposal["episodes"] == math.floor((1.959964 / 0.3) ** 2) + 1
    assert "by the candidate's returns alone" in proposal["reason"]
