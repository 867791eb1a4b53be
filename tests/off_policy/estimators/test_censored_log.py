"""The registered estimators on a log of a table that was chopped at random, with fitted values as tails."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand, Flag
from mbrl.data.dataset import Dataset
from mbrl.data.splits import cut
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.marginal_ratio import MWLConfig
from mbrl.off_policy.value.fqe import FQEConfig
from tests.off_policy.logs import TablePolicy, ask, context_of
from tests.off_policy.tabular import dataset_of, episodes_of, random_mdp, random_policy, simulate

STEPS = 6
ESTIMAND = Estimand(1.0, horizon=STEPS)
CONFIG = FQEConfig(hidden=(32,), updates=800, learning_rate=5e-3, polyak_tau=0.1, batch_size=128)
NAMES = ("dm", "dr", "drl", "fqe", "is", "magic", "mwl", "pdis", "pdwis", "wdr", "wis")


def chopped(dataset: Dataset, chance: float, seed: int) -> Dataset:
    """Every episode is cut with the same chance before each step but its first."""
    ages = np.random.default_rng(seed).geometric(chance, len(dataset))
    pieces = (
        dataclasses.replace(cut(e, 0, int(age)), whole=None) if age < len(e) else e
        for e, age in zip(dataset.episodes, ages, strict=True)
    )
    return dataclasses.replace(dataset, episodes=tuple(pieces))


@pytest.fixture(scope="module")
def asked() -> tuple[float, EstimatorContext, EstimatorContext]:
    """The value, and what estimators are asked of the whole log and of the chopped one."""
    mdp = random_mdp(5, end=0.1)
    mdp = dataclasses.replace(mdp, reward=np.abs(mdp.reward) + 0.5)  # survival pays
    behaviour, evaluated = random_policy(2, mdp), random_policy(1, mdp)
    log = simulate(mdp, behaviour, 800, STEPS, np.random.default_rng(0))
    whole = dataset_of(episodes_of(log, mdp, behaviour), mdp)
    policy = TablePolicy(torch.tensor(evaluated, dtype=torch.float32))
    mwl = MWLConfig(kernel="delta", ridge=0.0)
    contexts = (
        context_of(policy, data, ESTIMAND, CONFIG, mwl=mwl) for data in (whole, chopped(whole, 0.12, 1))
    )
    return mdp.value(evaluated, ESTIMAND), *contexts


@pytest.mark.parametrize("name", NAMES)
def test_chopping_a_log_at_random_changes_no_estimate_beyond_its_interval(asked, name):
    truth, whole, cut_short = asked
    before, after = ask(whole, name), ask(cut_short, name)
    share = cut_short.arrays(None).truncated.mean()
    assert 0.3 < share < 0.6
    for found in (before, after):  # of so many 95 % intervals some miss the truth by chance
        assert abs(found.point - truth) < 3 * found.se, found
    assert after.ci95[0] < before.point < after.ci95[1]
    assert (Flag.CENSORED_LEFT_OUT in after.flags) == (name in {"is", "wis"})
    assert Flag.CENSORED_LEFT_OUT not in before.flags
    if name in {"pdis", "pdwis", "dr", "wdr", "magic"}:
        assert before.details["tail_share"] == 0.0
        assert 0.1 < after.details["tail_share"] < 0.6
        assert Flag.BOOTSTRAPPED_TAIL in after.flags
        assert after.family == "hybrid"
    if name in {"is", "wis"}:
        assert after.details["tail_share"] == 0.0
        assert after.details["left_out"] == cut_short.arrays(None).truncated.sum()


def test_a_cut_that_is_taken_for_an_end_is_clearly_wrong(asked):
    truth, _, cut_short = asked
    ended = tuple(
        dataclasses.replace(e, terminated=True, truncated=False) for e in cut_short.dataset.episodes
    )
    wrong = dataclasses.replace(cut_short.dataset, episodes=ended)
    found = ask(EstimatorContext(cut_short.policy, wrong, cut_short.settings), "pdwis")
    assert found.ci95[1] < truth
    assert truth - found.point > 5 * found.se
