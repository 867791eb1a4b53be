"""What `mbrl.ope` refuses, it refuses before the first fit."""

import dataclasses

import pytest
import torch

import mbrl
from mbrl.core.errors import ConfigError, DataError, EstimandError, MbrlError
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.normaliser import Normaliser
from mbrl.run.judge.model import ChosenModel
from tests.off_policy.lqg import LinearPolicy, scalar_task


def log() -> Dataset:
    data = scalar_task().simulate(LinearPolicy(torch.tensor([[0.4]]), 8.0), 6, 4, 0)
    return dataclasses.replace(data, info=DatasetInfo(name="log", max_episode_steps=4))


def policy(kind: str = "deterministic"):
    spec = ActorSpec(kind, SpaceSpec(1, 1, (-8.0,), (8.0,)), hidden=(4,))
    return build_actor(spec, Normaliser.identity(1), torch.Generator().manual_seed(0))


def never(*_, **__):
    raise AssertionError("a fit was started")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"horizon": 5}, EstimandError, "an episode has at most 4"),
        ({"horizon": 0}, ConfigError, "horizon"),
        ({"crossfit": 1}, ConfigError, "crossfit"),
        ({"discount": 1.5}, ConfigError, "discount"),
        ({"stochastic": True}, ConfigError, "has no draws"),
        ({"baseline": "no/such/policy"}, MbrlError, "no/such/policy"),
        ({"risk": "falling:0.1"}, ConfigError, "no risk"),
        ({"tested": {"nobody": [1.0]}}, ConfigError, "no candidate"),
        ({"dynamics": "no/such/model"}, MbrlError, "no/such/model"),
        ({"termination": "task"}, ConfigError, "known rule of termination"),
    ],
)
def test_what_is_refused_starts_no_fit(monkeypatch, tmp_path, options, error, match):
    monkeypatch.setattr("mbrl.off_policy.value.fqe.FQEFit.__init__", never)
    monkeypatch.setattr("mbrl.run.fit.fit_dynamics", never)
    monkeypatch.setattr("mbrl.run.judge.clone.clone_behaviour", never)
    monkeypatch.setattr("mbrl.run.judge.ope.backtest_stage", never)
    with pytest.raises(error, match=match):
        mbrl.ope(policy(), log(), store=tmp_path, progress=False, **options)


def test_one_episode_is_refused_before_a_fit(monkeypatch, tmp_path):
    monkeypatch.setattr("mbrl.run.judge.ope.backtest_stage", never)
    with pytest.raises(DataError, match="two episodes or more"):
        mbrl.ope(policy(), log().select([0]), store=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("options", "asked"), [({}, 1), ({"dynamics": "a/model"}, 2), ({"own_model": True}, 2)]
)
def test_candidates_share_judges_and_are_each_held_against_another_model(
    monkeypatch, tmp_path, options, asked
):
    """Whether a model trained a candidate differs from one to the other."""
    requests, model = [], object.__new__(ChosenModel)

    def choose(_candidate, _data, request, **_):
        requests.append(request)
        return model

    monkeypatch.setattr("mbrl.api.judging.choose_model", choose)
    monkeypatch.setattr("mbrl.api.judging.ope_stage", never)
    with pytest.raises(AssertionError, match="a fit was started"):
        mbrl.ope([policy(), policy()], log(), store=tmp_path, progress=False, **options)
    assert len(requests) == asked
    assert {request.judges for request in requests} == {0 if options else 2}
