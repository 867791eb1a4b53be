"""A benchmark of estimators written by hand."""

import math

from mbrl.off_policy.judgement.benchmark.answers import Answer, BenchLog, JudgedPolicy, OPEBench

NOTHING = Answer(math.nan, math.nan, math.nan, is_valid=False)


def policy(truth: float, point: float, *, half: float = 1.0, verdict: str = "cannot_tell") -> JudgedPolicy:
    answers = {"good": Answer(point, point - half, point + half, is_valid=True), "silent": NOTHING}
    return JudgedPolicy(f"p{truth}", truth, 0.1, answers, verdict)


def bench() -> OPEBench:
    policies = (
        policy(0.0, 0.5, verdict="go"),
        policy(1.0, 3.0, verdict="no_go"),
        policy(2.0, 2.0, half=0.0, verdict="go_with_guard"),
        policy(4.0, 5.0, verdict="go"),
    )
    log = BenchLog("toy", "toy.log", "the estimand", 1.5, policies, planned=4)
    return OPEBench("toy", (log,), {}, 1.0, {})
