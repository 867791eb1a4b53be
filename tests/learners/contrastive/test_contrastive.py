"""CPL and DPO on segments of two steps: losses by hand, their minimum, their phases."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec
from mbrl.learners.base import LearnerContext
from mbrl.learners.contrastive.base import pair_accuracy
from mbrl.learners.contrastive.choices import DiscreteCPL, DiscreteCPLConfig
from mbrl.learners.contrastive.cpl import CPL, CPLConfig
from mbrl.learners.contrastive.dpo import DPO, DPOConfig
from mbrl.preferences.segments import PairBatch
from mbrl.preferences.source import PreferenceSource
from mbrl.testing.samples import SPACE, make_normaliser, make_preferences, make_transitions

GAMMA, ALPHA, BIAS = 0.9, 0.2, 0.5


def context(space: SpaceSpec = SPACE) -> LearnerContext:
    return LearnerContext(space, make_normaliser(), 10)


def two_steps(rows: int = 6, seed: int = 0) -> PairBatch:
    """Left of two steps, right of two steps but in the first row, where it is of one."""
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 2, 2, 3, generator=generator)
    low, high = torch.tensor(SPACE.act_low), torch.tensor(SPACE.act_high)
    action = low + (high - low) * torch.rand(rows, 2, 2, 2, generator=generator)
    valid = torch.ones(rows, 2, 2, dtype=torch.bool)
    valid[0, 1, 1] = False
    return PairBatch(obs, action, valid, torch.rand(rows, generator=generator))


def log_density(actor: Any, obs: Tensor, action: Tensor) -> float:
    """Of one step, by hand: an independent normal in each scaled dimension."""
    log_stds = actor.log_std.tolist()
    mean = torch.tanh(actor.net(actor.normaliser(obs[None]))[0, 0])
    centre = [(a + b) / 2 for a, b in zip(SPACE.act_low, SPACE.act_high, strict=True)]
    half = [(b - a) / 2 for a, b in zip(SPACE.act_low, SPACE.act_high, strict=True)]
    total = 0.0
    for d in range(2):
        x, std = (float(action[d]) - centre[d]) / half[d], math.exp(log_stds[d])
        total += (
            -0.5 * ((x - float(mean[d].detach())) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)
        )
    return total


def score(actor: Any, pairs: PairBatch, row: int, side: int) -> float:
    steps = range(int(pairs.valid[row, side].sum()))
    return sum(
        GAMMA**t * log_density(actor, pairs.observation[row, side, t], pairs.action[row, side, t])
        for t in steps
    )


def small(**changes: Any) -> dict[str, Any]:
    return {"hidden": (8,), "segment_discount": GAMMA, "clone_updates": 2, "temperature": ALPHA, **changes}


def test_the_loss_of_cpl_is_equation_5_on_discounted_log_densities() -> None:
    learner = CPL(CPLConfig(**small(conservative_bias=BIAS)), context())
    state, pairs = learner.init(RngStreams(0).at("init")), two_steps()
    losses, _ = learner.pair_loss(state, pairs)
    for row in range(len(pairs.target)):
        left, right = (ALPHA * score(state.actor, pairs, row, side) for side in (0, 1))
        mu = float(pairs.target[row])
        first = -math.log(math.exp(left) / (math.exp(left) + math.exp(BIAS * right)))
        second = -math.log(math.exp(right) / (math.exp(right) + math.exp(BIAS * left)))
        assert float(losses[row].detach()) == pytest.approx(mu * first + (1 - mu) * second, rel=1e-4)


def test_the_loss_of_dpo_is_that_of_log_ratios() -> None:
    learner = DPO(DPOConfig(**small()), context())
    state, pairs = learner.init(RngStreams(0).at("init")), two_steps()
    with torch.no_grad():
        state.actor.net.flat.mul_(1.5)
    losses, _ = learner.pair_loss(state, pairs)
    for row in range(len(pairs.target)):
        ratio = [score(state.actor, pairs, row, k) - score(state.reference, pairs, row, k) for k in (0, 1)]
        gap, mu = ALPHA * (ratio[0] - ratio[1]), float(pairs.target[row])
        by_hand = -mu * math.log(1 / (1 + math.exp(-gap))) - (1 - mu) * math.log(1 / (1 + math.exp(gap)))
        assert float(losses[row].detach()) == pytest.approx(by_hand, rel=1e-3, abs=1e-5)


def test_the_policy_whose_advantages_made_the_answers_is_a_minimum_of_cpl() -> None:
    """Answers with the probability that `alpha log pi*` implies: the plain contrast has no gradient there."""
    learner = CPL(CPLConfig(**small(conservative_bias=1.0)), context())
    state, pairs = learner.init(RngStreams(0).at("init")), two_steps(rows=40)
    with torch.no_grad():
        _, scores = learner.pair_loss(state, pairs)
        answers = torch.sigmoid(scores[:, 0] - scores[:, 1])
    norms = []
    for target in (answers, 1 - answers):
        told = PairBatch(pairs.observation, pairs.action, pairs.valid, target)
        (gradient,) = torch.autograd.grad(learner.pair_loss(state, told)[0].sum(), state.actor.net.flat)
        norms.append(float(gradient.norm()))
    assert norms[0] < 1e-4
    assert norms[1] > 1e-2


@pytest.mark.parametrize(
    "learner", [CPL(CPLConfig(**small()), context()), DPO(DPOConfig(**small()), context())]
)
def test_a_clone_first_then_answers_move_its_mean_alone(learner: Any) -> None:
    state = learner.init(RngStreams(0).at("init"))
    source = PreferenceSource(make_transitions(), make_preferences(), 4)
    kinds = []
    for step in range(4):
        if step == 2:
            clone = {name: value.clone() for name, value in state.actor.state_dict().items()}
        metrics = learner.update(state, source.sample(16, RngStreams(0).at("batch", step)), torch.Generator())
        kinds.append(set(metrics))
    assert kinds[0] == kinds[1] == {"policy/clone_loss"}
    assert kinds[2] == kinds[3] == {"policy/loss", "policy/pair_accuracy"}
    assert torch.equal(state.actor.log_std, clone["log_std"])
    assert not torch.equal(state.actor.net.flat, clone["net.flat"])
    if isinstance(learner, DPO):
        assert torch.equal(state.reference.net.flat, clone["net.flat"])
    with pytest.raises(ConfigError, match="recipe: preferences"):
        learner.update(state, make_transitions(), torch.Generator())


def test_accuracy_counts_equal_pairs_half() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert float(pair_accuracy(scores, torch.tensor([1.0, 1.0, 0.5]))) == 0.5


def test_choices_are_scored_among_those_that_were_allowed() -> None:
    """By hand: log-softmax over two of three choices, discounted, in both losses of a pair of two steps."""
    space = SpaceSpec.discrete(3, 3)
    learner = DiscreteCPL(DiscreteCPLConfig(**small(conservative_bias=BIAS)), context(space))
    state, steps = learner.init(RngStreams(0).at("init")), two_steps(rows=2)
    action = torch.eye(3)[torch.tensor([[[0, 1], [1, 0]], [[0, 0], [1, 1]]])]
    mask = torch.tensor([True, True, False]).expand(2, 2, 2, 3)
    pairs = PairBatch(steps.observation, action, torch.ones(2, 2, 2, dtype=torch.bool), steps.target, mask)
    losses, scores = learner.pair_loss(state, pairs)
    logits = state.actor.preferences(steps.observation.flatten(0, 2)).detach()[:, :2].view(2, 2, 2, 2)
    for row in range(2):
        by_hand = []
        for side in range(2):
            total = 0.0
            for t in range(2):
                one = logits[row, side, t].tolist()
                taken = int(action[row, side, t].argmax())
                total += GAMMA**t * (one[taken] - math.log(sum(math.exp(v) for v in one)))
            by_hand.append(ALPHA * total)
        assert scores[row].tolist() == pytest.approx(by_hand, rel=1e-4)
        mu, (left, right) = float(pairs.target[row]), by_hand
        first, second = (math.log(1 + math.exp(BIAS * b - a)) for a, b in ((left, right), (right, left)))
        assert float(losses[row].detach()) == pytest.approx(mu * first + (1 - mu) * second, rel=1e-4)
