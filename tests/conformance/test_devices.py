"""Fits on a stand-in for a card: the numbers of a CPU, and no wait within an epoch or many updates."""

from typing import Any

import pytest
import torch

from mbrl.core.device import CPU, on_device
from mbrl.core.estimates import Estimand
from mbrl.core.rng import RngStreams
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import DynamicsFit
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.off_policy.value.fqe import FQEConfig, FQEFit
from mbrl.testing.card import StandIn
from mbrl.testing.checks import find_difference
from mbrl.testing.samples import SPACE, TINY_DYNAMICS, make_dataset, make_normaliser
from mbrl.uncertainty.held_out import held_out_measures

READS_OF_AN_EPOCH = 4
"""Whether a loss is not finite, whether a member improved, and two rows of the history."""


def test_an_ensemble_is_fitted_on_a_card_as_on_a_cpu() -> None:
    settings = {"bootstrap": True, "horizon": {"steps": 3, "max_updates": 20}}
    config = DynamicsConfig.model_validate({**TINY_DYNAMICS, **settings})

    def fit(device: torch.device, waits: list[str]) -> dict[str, torch.Tensor]:
        made = DynamicsFit(make_dataset(), config, RngStreams(0, device))
        while made.stage != "done":
            before, stage = len(waits), made.stage
            made.run_epoch()
            assert made.stage != stage or len(waits) - before <= READS_OF_AN_EPOCH
        return made.finish(held_out_measures).to_tensors()[1]

    expected = fit(CPU, [])
    with StandIn() as card:
        found = fit(card.device, card.waits)
    assert find_difference(found, expected) is None


def test_a_fit_goes_on_elsewhere() -> None:
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)

    def start(device: torch.device) -> DynamicsFit:
        return DynamicsFit(make_dataset(), config, RngStreams(0, device))

    whole = start(CPU)
    for _ in range(2):
        whole.run_epoch()
    with StandIn() as card:
        there = start(card.device)
        there.run_epoch()
        here, back = start(CPU), start(card.device)
        here.load_state_dict(on_device(there.state_dict(), CPU))
        back.load_state_dict(on_device(here.state_dict(), CPU))
        for fit in (here, back):
            fit.run_epoch()
        states = [on_device(fit.state_dict(), CPU) for fit in (here, back)]
    assert all(find_difference(state, whole.state_dict()) is None for state in states)


@pytest.mark.parametrize("horizon", [None, 20])
def test_values_are_fitted_on_a_card_as_on_a_cpu(horizon: int | None) -> None:
    spec = ActorSpec("tanh_gaussian", SPACE, (8,))
    policy = TanhGaussianActor(spec, make_normaliser(), RngStreams(0).at("policy"))
    config = FQEConfig(updates=100, hidden=(8,), batch_size=16)

    def fit(device: torch.device, waits: list[str]) -> list[Any]:
        estimand = Estimand(0.9, horizon)
        made = FQEFit(make_dataset(), policy, estimand=estimand, config=config, rng=RngStreams(0, device))
        state = made.init()
        for _ in range(5):
            made.update(state)
        # A fit that was stopped here goes on there.
        again = made.init()
        again.load_state_dict(on_device(state.state_dict(), CPU))
        before = len(waits)
        for _ in range(20):
            made.update(again)
        assert len(waits) - before <= len(again.history)
        result = made.result(again)
        return [torch.from_numpy(result.initial), again.history, result.clip_share]

    expected = fit(CPU, [])
    with StandIn() as card:
        found = fit(card.device, card.waits)
    assert find_difference(found, expected) is None
