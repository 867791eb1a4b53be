"""Networks over states against their definition: loss, base, moves, moments, draws, temperature."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from mbrl.core.errors import NonFiniteError
from mbrl.core.protocols import DynamicsModel, SamplingModel
from mbrl.core.rng import RngStreams
from mbrl.data.choices.states import StateIndex
from mbrl.data.splits import halves
from mbrl.dynamics.categorical.base import States, SuccessorBase
from mbrl.dynamics.categorical.model import CategoricalDynamics
from mbrl.dynamics.categorical.moves import find_moves
from mbrl.dynamics.categorical.objective import step_nll
from mbrl.dynamics.categorical.temperature import fit_logit_temperature, held_out_nll, report_successors
from mbrl.dynamics.fit import DynamicsFit
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.gaussian import soft_clamp
from mbrl.uncertainty.measures import ens_std

from .worlds import chain_log, dataset_of, small


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(seed: int = 0, **changes) -> DynamicsFit:
    """A fit before its first update, whose networks, features and rewards say something."""
    fit = DynamicsFit(chain_log(30), small(**changes), RngStreams(seed))
    with torch.no_grad():
        for part in fit._trainer._parameters:
            part.add_(torch.randn(part.shape, generator=generator(seed)), alpha=0.3)
    return fit


@pytest.fixture(scope="module")
def model() -> CategoricalDynamics:
    found = fresh().ensemble
    assert isinstance(found, CategoricalDynamics)
    return found.requires_grad_(requires_grad=False)


def every_pair() -> tuple[torch.Tensor, torch.Tensor]:
    """The three states under both choices."""
    return torch.eye(3).repeat_interleave(2, 0), torch.eye(2).repeat(3, 1)


def test_the_loss_of_two_states_by_hand():
    # Logits 0 and log 3: chances 1/4 and 3/4. The reward is off by 2 at a variance of 4.
    logits = torch.tensor([0.0, math.log(3.0)]).expand(1, 2, 2)
    error, log_variance = torch.tensor([[2.0, 0.0]]), torch.full((1, 2), math.log(4.0))
    found = step_nll(logits, torch.tensor([[0, 1]]), error, log_variance)
    first = math.log(4.0) + 0.5 * (4.0 / 4.0 + math.log(4.0))
    second = math.log(4.0 / 3.0) + 0.5 * math.log(4.0)
    assert float(found) == pytest.approx(0.5 * (first + second))


def test_the_base_by_hand():
    """Three places in a row; the move goes one up, from the last it goes nowhere."""
    states = States(
        codes=torch.tensor([[0.0], [1.0], [2.0]]),
        entered=torch.tensor([1, 2]),
        log_share=torch.tensor([0.25, 0.75]).log(),
        follows=torch.tensor([[0], [1], [-1]]),
        log_moves=torch.tensor([0.5]).log(),
    )
    base = SuccessorBase(states, Normaliser(torch.tensor([0.5, 0.0]), torch.tensor([2.0, 1.0])))
    free = torch.zeros(1, 3, 2)
    parts = {"moved": torch.tensor([0.2]), "shift": torch.tensor([1.0]), "raw": torch.tensor([0.0])}
    found = base(
        free, torch.tensor([[0, 1, 2]]), **{name: value.expand(1, 3, 1) for name, value in parts.items()}
    )[0]
    variance = float(soft_clamp(torch.zeros(1, 1), *base.log_variances[:, None]).exp())
    for state in range(3):
        # In deviations of 2: the mean lies at s / 2 + 0.5 / 2 + 1.
        distance = [(k / 2 - (state / 2 + 0.25 + 1.0)) ** 2 for k in (1, 2)]
        bonus = [0.2 + math.log1p(0.5 / (0.5 * share)) for share in (0.25, 0.75)]
        expected = [
            math.log(share) - 0.5 * d / variance + (bonus[k] if k == state else 0.0)
            for k, (share, d) in enumerate(zip((0.25, 0.75), distance, strict=True))
        ]
        assert float(found[state, 1] - found[state, 0]) == pytest.approx(expected[1] - expected[0], abs=1e-5)


def test_moves_are_the_changes_that_steps_make():
    # Tenths are rounded in float32: 0.3 - 0.2 is not 0.2 - 0.1.
    line = np.array([[0.0, 0.1, 0.2, 0.3, 0.2]])[..., None]
    data = dataset_of(line, np.zeros((1, 4), dtype=int), np.zeros((1, 4)), choices=2)
    index, rows = StateIndex.of(data), data.transitions()
    follows, log_moves = find_moves(index, np.array([1, 2, 3]), rows, np.array([0.1]))
    assert np.exp(log_moves) == pytest.approx([0.75, 0.25])
    assert follows.tolist() == [[0, -1], [1, -1], [2, 0], [-1, 1]]


def test_moments_are_sums_over_the_states(model):
    assert isinstance(model, DynamicsModel)
    assert isinstance(model, SamplingModel)
    obs, action = every_pair()
    chances, found = model.probabilities(obs, action), model.predict(obs, action)
    torch.testing.assert_close(chances.sum(-1), torch.ones(3, 6, dtype=torch.float64))
    codes = model.states.codes[model.states.entered].double()
    mean = chances @ codes
    torch.testing.assert_close(found.mean.double(), mean, atol=1e-6, rtol=1e-6)
    spread = (chances[..., None] * (codes - mean[..., None, :]).square()).sum(-2)
    torch.testing.assert_close(found.variance.double(), spread, atol=1e-6, rtol=1e-5)
    heads = model.heads(
        model.inputs(torch.cat((obs, action), -1)).expand(3, -1, -1), model.state(obs).expand(3, -1)
    )
    rewards = torch.stack([model.reward_at(heads, torch.full((3, 6), k)) for k in range(len(codes))], -1)
    scale, shift = model.targets.std[-1].double(), model.targets.mean[-1].double()
    earned = rewards.double() * scale + shift
    expected = (chances * earned).sum(-1)
    torch.testing.assert_close(found.reward_mean.double(), expected, atol=1e-6, rtol=1e-5)
    noise = heads.log_variance.double().exp() * scale.square()
    spread = (chances * (earned - expected[..., None]).square()).sum(-1) + noise
    torch.testing.assert_close(found.reward_variance.double(), spread, atol=1e-5, rtol=1e-5)


def test_members_alone_and_normalised_say_the_same(model):
    obs, action = every_pair()
    member, rows = torch.tensor([2, 0, 1, 1, 2, 2]), torch.arange(6)
    found = model.predict(obs, action)
    whole = (found.mean, found.variance, found.reward_mean, found.reward_variance)
    for part, one in zip(model.predict_member(obs, action, member), whole, strict=True):
        torch.testing.assert_close(part, one[member, rows])
    mean, log_variance = model.forward(model.inputs(torch.cat((obs, action), -1)), first=2)
    torch.testing.assert_close(model.targets.inverse(mean)[..., :-1], found.change[:2], atol=1e-5, rtol=1e-5)
    scale = model.targets.std.square()
    torch.testing.assert_close(log_variance.exp()[..., -1] * scale[-1], found.reward_variance[:2])


def test_draws_have_the_chances_and_rewards_of_their_member(model):
    count = 6000
    obs, action = torch.eye(3)[:1].expand(count, -1), torch.eye(2)[1:].expand(count, -1)
    member, noise = torch.arange(count) % 3, torch.randn(count, 4, generator=generator())
    following, reward = model.draw_member(obs, action, member, noise)
    chances = model.probabilities(obs[:1], action[:1])[:, 0]
    codes = model.states.codes[model.states.entered]
    for m in range(3):
        rows = member == m
        seen = (following[rows, None] == codes).all(-1).double().sum(0)
        assert float(seen.sum()) == count / 3
        statistic = float(((seen - count / 3 * chances[m]).square() / (count / 3 * chances[m])).sum())
        assert statistic < 13.8  # 0.1 % of chi-square with two degrees of freedom
        exact = float(model.predict(obs[:1], action[:1]).reward_mean[m, 0])
        error = float(reward[rows].std()) / math.sqrt(count / 3)
        assert float(reward[rows].mean()) == pytest.approx(exact, abs=4 * error)


def test_equal_noise_gives_equal_draws_whatever_is_drawn_beside(model):
    obs, action = every_pair()
    member, noise = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6, 4, generator=generator(1))
    whole = model.draw_member(obs, action, member, noise)
    again = model.draw_member(obs, action, member, noise)
    assert all(torch.equal(*pair) for pair in zip(whole, again, strict=True))
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    other = model.draw_member(obs[order], action[order], member[order], noise[order])
    assert torch.equal(other[0], whole[0][order])
    torch.testing.assert_close(other[1], whole[1][order])


def test_blocks_change_no_draw(model, monkeypatch):
    obs, action = every_pair()
    member, noise = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6, 4, generator=generator(2))
    whole, mean = model.draw_member(obs, action, member, noise), model.predict(obs, action).mean
    monkeypatch.setattr("mbrl.dynamics.categorical.model._ENTRIES", 9)
    parts = model.draw_member(obs, action, member, noise)
    assert torch.equal(parts[0], whole[0])
    torch.testing.assert_close(model.predict(obs, action).mean, mean)


def test_what_is_near_a_state_is_that_state(model):
    obs, action = every_pair()
    near = model.state(obs + 0.1)
    assert near.tolist() == model.state(obs).tolist() == [2, 2, 1, 1, 0, 0]  # codes ascend
    assert action.shape == (6, 2)


def test_members_dispute_what_the_log_does_not_tell():
    """From the third state only the first choice was taken."""
    log = chain_log(60, steps=4)
    kept = [e for e in log.episodes if not bool((e.observations[:-1, 2] * e.actions[:, 1]).any())]
    log = dataclasses.replace(log, episodes=tuple(kept))
    fit = DynamicsFit(log, small(members=5, max_updates=200), RngStreams(0))
    while fit.stage == "ensemble":
        fit.run_epoch()
    spread = ens_std(fit.ensemble.predict(*every_pair())).detach()
    assert float(spread[5]) > 1.5 * float(spread[:5].median())


def test_the_temperature_is_the_likeliest_on_its_half_of_the_held_out_episodes():
    fit = DynamicsFit(chain_log(60), small(max_updates=400), RngStreams(0))
    while fit.stage == "ensemble":
        fit.run_epoch()
    model, rng = fit.ensemble.select(torch.tensor([0, 1])), RngStreams(0)
    fitted = fit_logit_temperature(model, fit.split, rng)
    rows = halves(fit.split.holdout, rng.at("halves"))[0].transitions()
    best = held_out_nll(model.with_temperature(fitted), rows)
    assert all(held_out_nll(model.with_temperature(k * fitted), rows) > best for k in (0.8, 0.95, 1.05, 1.25))


def test_the_report_tells_the_likelihood_of_successors_on_the_other_half():
    fit = DynamicsFit(chain_log(60), small(max_updates=400), RngStreams(0))
    while fit.stage == "ensemble":
        fit.run_epoch()
    model, rng = fit.ensemble.select(torch.tensor([0, 1])), RngStreams(0)
    found = report_successors(model, fit.split, rng)
    other = halves(fit.split.holdout, rng.at("halves"))[1].transitions()
    assert (found.rows, found.states, found.temperature) == (len(other), len(model.states.entered), 1.0)
    assert found.nll == pytest.approx(held_out_nll(model, other))
    place = model.state(torch.tensor(other.next_observation))
    share = {int(k): float(v) for k, v in zip(model.states.entered, model.states.log_share, strict=True)}
    assert found.marginal_nll == pytest.approx(-np.mean([share[int(k)] for k in place]))
    assert found.nll < found.marginal_nll


def test_a_nan_stops_the_fit():
    fit = DynamicsFit(chain_log(30), small(), RngStreams(0))
    with torch.no_grad():
        fit.ensemble.features[1].fill_(torch.nan)
    with pytest.raises(NonFiniteError, match=r"member\(s\) 1 is not finite"):
        fit.run_epoch()
