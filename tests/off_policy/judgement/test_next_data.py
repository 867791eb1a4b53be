import math

import pytest

from mbrl.off_policy.judgement.next_data import MOST_EPISODES, combined_error, episodes_to_settle, next_data
from mbrl.off_policy.judgement.report.concluded import LoggedState, NextData
from mbrl.off_policy.judgement.report.documents import Measured
from mbrl.off_policy.judgement.report.measured import Segment
from mbrl.off_policy.judgement.verdict import judge
from tests.off_policy.reports import paired, report, with_part


def proposal_for(found: Measured, *, verdict: str | None = None) -> NextData:
    judged = judge(found).verdict
    assert verdict is None or judged == verdict
    return next_data(found, judged)


def test_the_least_number_that_settles_it():
    # nothing known: 1.96 sigma / sqrt(k) < gap  <=>  k > (1.96 * 2 / 0.5)^2 = 61.46
    assert episodes_to_settle(0.5, None, 2.0) == 62
    assert combined_error(None, 2.0, 62) * 1.959964 < 0.5 < combined_error(None, 2.0, 61) * 1.959964
    # an error of 0.4 is worth (2 / 0.4)^2 = 25 episodes
    assert episodes_to_settle(0.5, 0.4, 2.0) == 62 - 25
    assert episodes_to_settle(0.5, 0.1, 2.0) == 1  # settled already
    assert episodes_to_settle(0.0, 0.1, 2.0) is None
    assert episodes_to_settle(1e-3, None, 2.0) is None


def test_the_proposal_rests_on_the_surest_family_that_counts():
    found = paired(report((0.5, 3.0), (0.5, 2.5)), pdwis=(-0.2, 0.8), fqe=(-0.1, 0.5))
    proposal = proposal_for(found, verdict="cannot_tell")
    se, gap = 0.3 / 1.959964, 0.2  # of fqe: half the width of its interval
    assert proposal.episodes == math.floor(((1.959964 / gap) ** 2 - se**-2) * 1.0) + 1
    assert proposal.half_width_now == pytest.approx(1.959964 * se)
    assert proposal.half_width_then < gap
    assert proposal.is_enough is True
    assert proposal.shrink == pytest.approx(1 - proposal.half_width_then / proposal.half_width_now)


def test_without_a_family_that_counts_half_a_deviation_is_looked_for():
    proposal = proposal_for(report())
    assert proposal.episodes == 16  # (1.96 / 0.5)^2 = 15.4
    assert proposal.half_width_now is None
    assert proposal.shrink is None


def test_a_question_that_no_test_settles_is_capped():
    proposal = proposal_for(paired(report((0.5, 3.0)), pdwis=(-0.5, 0.5002)))
    assert proposal.episodes == MOST_EPISODES
    assert proposal.is_enough is False


def test_nothing_is_collected_for_a_verdict_that_stands():
    for found in (report((2.0, 3.0), (2.0, 3.0)), report((0.1, 0.5), (0.1, 0.5))):
        proposal = proposal_for(found)
        assert proposal.episodes is None
        assert proposal.why_not


def segment(kind: str, episode: int, first_step: int) -> Segment:
    return Segment(
        kind=kind, episode=episode, first_step=first_step, last_step=5, length=9, share=0.5, score=1.0
    )


def test_more_of_the_log_is_the_other_way_where_ratios_nearly_count():
    segments = (segment("weight", 1, 0), segment("support", 7, 3))
    found = with_part(report(ess=20.0), "diagnostics", ess_t=(50.0, 20.0), segments=segments)
    proposal = proposal_for(found)
    assert proposal.alternatives[0].episodes == 25  # 50 * (30 / 20 - 1)
    assert proposal.states == (LoggedState(episode=7, step=3),)


def test_what_the_log_has_settled_is_confirmed_by_the_candidate_alone():
    """One family lies above: its own error would need no episode, but it may be wrong as a whole."""
    found = paired(report((0.5, 3.0), (0.5, 2.5)), pdwis=(-0.2, 0.8), fqe=(0.1, 0.5))
    proposal = proposal_for(found, verdict="go_with_guard")
    assert proposal.episodes == math.floor((1.959964 / 0.3) ** 2) + 1
    assert "by the candidate's returns alone" in (proposal.reason or "")
