import dataclasses

import numpy as np
import pytest

from mbrl.core.estimates import Estimand, Estimate
from mbrl.off_policy.estimators.array_estimator import NO_CROSSFIT
from mbrl.off_policy.estimators.base import (
    ESTIMATORS,
    backtested_estimators,
    primary_estimators,
    refused,
    register_estimator,
)
from mbrl.off_policy.value.fqe_config import FQEConfig
from tests.off_policy.logs import ask, context_of, table_log

FQE = FQEConfig(hidden=(8,), updates=20, batch_size=16)
DISCRETE = (
    "is",
    "pdis",
    "wis",
    "pdwis",
    "dr",
    "wdr",
    "magic",
    "dm",
    "fqe",
    "mwl",
    "drl",
    "switch_dr",
    "dros",
)


def test_each_entry_knows_its_name_its_family_and_its_role():
    entries = [ESTIMATORS.get(name) for name in ESTIMATORS.names()]
    assert [entry.name for entry in entries] == list(ESTIMATORS.names())
    assert all(ESTIMATORS.describe().values())
    families = {entry.name: entry.family for entry in entries}
    assert families == {
        **dict.fromkeys(("is", "pdis", "wis", "pdwis", "kernel", "mwl", "ips", "snips"), "ratio"),
        **dict.fromkeys(("dm", "fqe"), "value"),
        **dict.fromkeys(("dr", "wdr", "magic", "drl", "switch_dr", "dros"), "hybrid"),
        "model_value": "model",
    }


def test_one_estimator_stands_for_each_family_and_is_tested_for_it():
    assert list(primary_estimators().items()) == [
        ("ratio", "pdwis"),
        ("value", "fqe"),
        ("model", "model_value"),
    ]
    assert backtested_estimators() == {"fqe": "fqe", "dm": "fqe", "model_value": "model_value"}


def test_every_estimator_answers_under_its_name_and_scales_with_the_reward():
    _, dataset, policy, _ = table_log(n=30)
    episodes = [dataclasses.replace(e, rewards=np.float32(4.0) * e.rewards) for e in dataset.episodes]
    larger = dataclasses.replace(dataset, episodes=tuple(episodes))
    first, second = (context_of(policy, log, Estimand(0.8), FQE) for log in (dataset, larger))
    for name in DISCRETE:
        before, after = ask(first, name), ask(second, name)
        assert before.name == name
        assert after.point == pytest.approx(4 * before.point, rel=1e-6)
        assert (NO_CROSSFIT in before.flags) == (name in {"dr", "wdr", "magic", "drl", "switch_dr", "dros"})


def test_an_estimator_of_ones_own_is_found_by_its_name(monkeypatch):
    names = ESTIMATORS.names()
    monkeypatch.setattr(ESTIMATORS, "_table", dict(ESTIMATORS._table))

    @register_estimator("mean_return", family="value")
    def estimate_mean_return(context, *, generator) -> Estimate:
        """The mean logged return, whoever is asked about."""
        returns = context.arrays(None).returns()
        return dataclasses.replace(
            refused("mean_return", "value", context.estimand, "a sketch"), point=returns.mean()
        )

    assert set(ESTIMATORS.names()) == {*names, "mean_return"}
    assert ESTIMATORS.describe()["mean_return"] == "The mean logged return, whoever is asked about."
    _, dataset, policy, _ = table_log(n=30)
    found = ask(context_of(policy, dataset, Estimand(0.8, horizon=8)), "mean_return")
    returns = [e.rewards @ 0.8 ** np.arange(len(e)) for e in dataset.episodes]
    assert found.point == pytest.approx(np.mean(returns))


def test_a_refusal_has_a_reason_and_no_number():
    found = refused("pdwis", "ratio", Estimand(0.9), "no density")
    assert np.isnan(found.point)
    assert found.n_eff == 0.0
    assert (found.valid, found.why_not) == (False, "no density")
