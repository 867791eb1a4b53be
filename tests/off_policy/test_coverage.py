"""Valid answers cover their level: over many tables, policies and sizes of log, near and far."""

import numpy as np
import pytest

from mbrl.core.estimates import Estimand, Estimate
from mbrl.off_policy.estimators.array_estimator import judge_corrected_values, judge_ratios
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.weight_evidence import WeightEvidence
from mbrl.off_policy.statistics.bounds import Bootstrap
from tests.off_policy.tabular import arrays_of, random_mdp, random_policy, simulate

KINDS = ("is", "pdis", "wis", "pdwis")


def answers(arrays: OPEArrays) -> dict[str, Estimate]:
    """Of every estimator that reweights, judged by its weights; the values under dr and wdr are exact."""
    evidence = WeightEvidence.of_log(arrays)
    resampled = Bootstrap(resamples=300) if len(arrays) >= 50 else None
    found = {
        kind: judge_ratios(importance_sampling(arrays, kind=kind, bootstrap=resampled), evidence)
        for kind in KINDS
    }
    for estimate in (doubly_robust(arrays), weighted_doubly_robust(arrays, bootstrap=resampled)):
        found[estimate.name] = judge_corrected_values(estimate, evidence, why_not_values=None)
    return found


@pytest.mark.slow
def test_valid_answers_cover_their_level_and_others_do_not():
    rng = np.random.default_rng(0)
    hits: dict[tuple[str, bool], list[bool]] = {}
    for seed in range(700):
        mdp, steps = random_mdp(seed), int(rng.choice([2, 5, 10, 20]))
        estimand = Estimand(1.0, horizon=steps)
        behaviour = random_policy(seed + 1, mdp, sharpness=0.7)
        far = random_policy(seed + 2, mdp, sharpness=float(rng.choice([0.5, 1.0, 2.0, 4.0])))
        mix = float(rng.choice([0.1, 0.3, 0.6, 1.0]))
        evaluated = mix * far + (1 - mix) * behaviour
        log = simulate(mdp, behaviour, int(rng.choice([40, 80, 150, 300])), steps, rng)
        q = mdp.q_finite(evaluated, 1.0, steps)
        truth = mdp.value(evaluated, estimand)
        for name, estimate in answers(arrays_of(log, evaluated, behaviour, estimand, q)).items():
            low, high = estimate.ci95
            hits.setdefault((name, estimate.valid), []).append(low <= truth <= high)
    for name in (*KINDS, "dr", "wdr"):
        valid = hits[name, True]
        assert len(valid) > 200
        assert np.mean(valid) > 0.90, (name, np.mean(valid))
    for name in KINDS:
        assert np.mean(hits[name, False]) < 0.87, (name, np.mean(hits[name, False]))
