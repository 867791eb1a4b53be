from mbrl.report.deployment.sentences import (
    agreement_sentence,
    next_sentence,
    verdict_lines,
    verdict_message,
)
from tests.report.deployments import several, single


def test_agreement_and_proposals_in_words():
    report = single(gain=5.0)
    assert "differ by" in agreement_sentence(report)
    assert "(1.1 where what they share is cancelled)" in agreement_sentence(report)
    sentence = next_sentence(report)
    assert sentence.startswith("Even 1,000 episodes of the candidate would not tell the difference of")
    next_data = report.next_data.model_copy(update={"episodes": 12, "is_enough": True})
    enough = report.model_copy(update={"next_data": next_data})
    assert next_sentence(enough).startswith("12 episodes of the candidate would tell the difference of")
    assert "episode 0 step 20" in next_sentence(report)
    assert next_sentence(single()).startswith("Nothing to collect")
    one = single(support_share=0.3, model_disagreement_share=0.3)
    assert "nothing confirms it" in agreement_sentence(one)


def test_the_verdict_in_words_is_the_one_that_holds_for_all_candidates():
    report = several().reports[0]
    assert report.verdict.verdict == report.verdict.final.verdict == "cannot_tell"
    go = report.verdict.model_copy(update={"verdict": "go"})
    text = verdict_message(report.model_copy(update={"verdict": go})).text
    assert text.startswith("CANNOT TELL: the log does not say whether bc-s0 is better")
    lines = verdict_lines(report)
    assert lines[0] == "bc-s0: CANNOT TELL"
    assert len(lines) == 2 + len(report.verdict.final.reasons)
