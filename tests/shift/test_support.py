"""Behaviour whose density and quantiles are known."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from mbrl.core.types import SpaceSpec
from mbrl.nets.normaliser import Normaliser
from mbrl.shift.support import MIN_ROWS, NOMINAL_SHARE, BehaviourSupport

SPACE = SpaceSpec(obs_dim=2, act_dim=1, act_low=(-2.0,), act_high=(4.0,))
CENTRE, HALF, STD = 1.0, 3.0, 0.2  # of the box; of the action, on the scaled axis


def mean(obs: Tensor) -> Tensor:
    return 0.2 * obs[:, :1] - 0.1 * obs[:, 1:]


def act(obs: Tensor, generator: torch.Generator, *, shift: float = 0.0) -> Tensor:
    """`a ~ N(mean(s) + shift STD, STD^2)` on the scaled axis, in environment units."""
    scaled = mean(obs) + STD * (shift + torch.randn(len(obs), 1, generator=generator))
    return CENTRE + HALF * scaled


def log(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(rows, 2, generator=generator)
    return obs, act(obs, generator)


@pytest.fixture(scope="module")
def support() -> BehaviourSupport:
    return BehaviourSupport.fit(
        log(20_000, 0),
        log(4_000, 1),
        space=SPACE,
        normaliser=Normaliser.identity(2),
        generator=torch.Generator().manual_seed(2),
    )


def test_the_density_is_that_of_the_gaussian_behaviour(support: BehaviourSupport) -> None:
    obs, action = log(2_000, 3)
    exact = stats.norm.logpdf((action[:, 0] - CENTRE) / HALF, loc=mean(obs)[:, 0], scale=STD)
    fitted = support.density.log_prob(obs, action)
    assert abs(float((torch.tensor(exact) - fitted).mean())) < 0.03  # the divergence of fit and truth
    # 1 % of the draws lie beyond |z| = 2.576, which is where the floor has to be
    floor = stats.norm.logpdf(stats.norm.isf(0.005)) - torch.tensor(STD).log()
    assert support.log_density_floor == pytest.approx(float(floor), abs=0.3)


def test_the_behaviour_itself_is_outside_of_its_support_with_the_nominal_share(
    support: BehaviourSupport,
) -> None:
    obs, _ = log(4_000, 4)
    action = act(obs, torch.Generator().manual_seed(5))
    # quantile and share are both estimated on 4000 rows: their variances add
    width = 4 * (2 * NOMINAL_SHARE * (1 - NOMINAL_SHARE) / 4_000) ** 0.5
    for outside in (support.is_unlikely(obs, action), support.is_distant(obs, action)):
        assert float(outside.double().mean()) == pytest.approx(NOMINAL_SHARE, abs=width)


@pytest.mark.parametrize("shift", [1.0, 2.0, 3.0])
def test_a_shifted_policy_leaves_by_the_closed_form(support: BehaviourSupport, shift: float) -> None:
    """`P(|z + shift| > 2.576)` for z ~ N(0, 1)."""
    obs, _ = log(4_000, 6)
    action = act(obs, torch.Generator().manual_seed(7), shift=shift)
    edge = stats.norm.isf(NOMINAL_SHARE / 2)
    exact = stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)
    assert float(support.is_unlikely(obs, action).double().mean()) == pytest.approx(exact, abs=0.05)


def test_a_far_policy_is_outside_everywhere(support: BehaviourSupport) -> None:
    obs, _ = log(1_000, 8)
    action = act(obs, torch.Generator().manual_seed(9), shift=15.0)
    assert bool(support.is_unlikely(obs, action).all())
    assert float(support.is_distant(obs, action).double().mean()) > 0.95


def test_rows_do_not_influence_each_other(support: BehaviourSupport) -> None:
    obs, action = log(500, 10)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(11))
    for ask in (support.is_unlikely, support.is_distant):
        assert torch.equal(ask(obs, action)[order], ask(obs[order], action[order]))


def test_the_same_draws_give_the_same_support() -> None:
    made = [
        BehaviourSupport.fit(
            log(1_000, 0),
            log(300, 1),
            space=SPACE,
            normaliser=Normaliser.identity(2),
            generator=torch.Generator().manual_seed(2),
        )
        for _ in range(2)
    ]
    assert made[0].log_density_floor == made[1].log_density_floor
    assert made[0].distance_ceiling == made[1].distance_ceiling
    assert made[0].rows == 300


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=str(MIN_ROWS)):
        BehaviourSupport.fit(
            log(300, 0),
            log(MIN_ROWS - 1, 1),
            space=SPACE,
            normaliser=Normaliser.identity(2),
            generator=torch.Generator(),
        )


def test_choices_have_the_probabilities_of_the_behaviour() -> None:
    """A logistic behaviour of two choices and a third that is taken once in a hundred steps."""
    generator = torch.Generator().manual_seed(0)

    def log_choices(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        obs = torch.randn(rows, 2, generator=generator)
        logits = torch.stack((obs[:, 0], -obs[:, 0], torch.zeros(rows)), 1)
        probs = torch.cat((0.99 * logits[:, :2].softmax(1), torch.full((rows, 1), 0.01)), 1)
        index = torch.multinomial(probs, 1, generator=generator)
        return obs, torch.nn.functional.one_hot(index[:, 0], 3).float(), probs

    train, held_out, new = (log_choices(rows) for rows in (6_000, 2_000, 1_000))
    space = SpaceSpec.discrete(2, 3)
    found = BehaviourSupport.fit(
        train[:2], held_out[:2], space=space, normaliser=Normaliser.identity(2), generator=generator
    )
    exact = (new[2] * new[1]).sum(1).log()
    assert abs(float((exact - found.density.log_prob(new[0], new[1])).mean())) < 0.03
    likely = torch.nn.functional.one_hot(new[2][:, :2].argmax(1), 3).float()
    assert float(found.is_unlikely(new[0], likely).float().mean()) < 0.01
    # The same state with a choice that is never near: as far as sqrt(2) over three neighbours of dimensions.
    never = torch.tensor([[0.0, 0.0, 1.0]]).expand(len(new[0]), -1)
    assert (found.reference.distance(new[0], never) >= found.reference.distance(new[0], likely)).all()
