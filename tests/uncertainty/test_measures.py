import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import UncertaintyMeasure
from mbrl.core.types import DynamicsPosterior
from mbrl.uncertainty.density import DensityReference
from mbrl.uncertainty.measures import MEASURES, POSTERIOR_MEASURES, StepContext

DISAGREEMENT = ("ens_std", "max_dev", "max_pair", "ll_var", "bellman")


def posterior(mean, std, *, delta_scale=None, reward_scale=1.0):
    """From `[e][d]` means and `[e][d + 1]` deviations (the reward last) of one row."""
    mean = torch.tensor(mean, dtype=torch.float32)[:, None]
    std = torch.tensor(std, dtype=torch.float32)[:, None]
    return DynamicsPosterior(
        mean=mean,
        variance=std[..., :-1].square(),
        reward_mean=torch.zeros(mean.shape[:2]),
        reward_variance=std[..., -1].square(),
        delta_scale=torch.ones(mean.shape[-1]) if delta_scale is None else torch.tensor(delta_scale),
        reward_scale=torch.tensor(reward_scale),
    )


WORKED = posterior([[1, 0], [3, 0], [2, 3]], [[0.3, 0.4, 0.0], [0.6, 0.8, 0.0], [0.0, 0.5, 1.2]])


def draw_posterior(seed, *, members=5, rows=7, dim=4):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    return DynamicsPosterior(
        mean=4 * draw(members, rows, dim),
        variance=0.01 + draw(members, rows, dim),
        reward_mean=draw(members, rows),
        reward_variance=0.01 + draw(members, rows),
        delta_scale=0.5 + draw(dim),
        reward_scale=torch.tensor(0.7),
    )


def make_context(found, seed=0):
    generator = torch.Generator().manual_seed(seed)
    members, rows, dim = found.mean.shape
    obs, action = torch.randn(rows, dim, generator=generator), torch.randn(rows, 2, generator=generator)
    data = torch.randn(40, dim, generator=generator), torch.randn(40, 2, generator=generator)
    return StepContext(
        obs=obs,
        action=action,
        reference=DensityReference.fit(*data, generator=generator),
        outcome=found.mean.mean(0),
        next_values=torch.randn(3, members, rows, generator=generator),
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("max_dev", 2.0),
        ("ens_std", 1.1547),
        ("max_pair", 3.1623),
        ("max_aleatoric", 1.3),
        ("total_std", 1.2583),
    ],
)
def test_worked_numbers(name, expected):
    assert float(MEASURES.get(name)(WORKED)) == pytest.approx(expected, abs=5e-5)


def test_measures_are_three_lines_of_numpy():
    found = draw_posterior(0)
    scale = found.delta_scale.numpy()
    mean, variance = found.mean.numpy() / scale, found.variance.numpy() / scale**2
    reward = found.reward_variance.numpy() / float(found.reward_scale) ** 2
    deviation = np.linalg.norm(mean - mean.mean(0), axis=2)
    pairs = [np.linalg.norm(a - b, axis=1) for a in mean for b in mean]
    expected = {
        "ens_std": np.sqrt(mean.var(0).mean(1)),
        "max_dev": deviation.max(0),
        "max_pair": np.max(pairs, 0),
        "total_std": np.sqrt((mean.var(0) + variance.mean(0)).mean(1)),
        "max_aleatoric": np.sqrt(variance.sum(2) + reward).max(0),
    }
    assert set(expected) == set(POSTERIOR_MEASURES)
    for name, value in expected.items():
        assert MEASURES.get(name)(found).numpy() == pytest.approx(value, rel=1e-5), name


def test_likelihood_variance_by_hand():
    found = posterior([[0.0], [1.0]], [[1.0, 1.0], [2.0, 1.0]], delta_scale=[0.5])
    context = StepContext(outcome=torch.tensor([[0.5]]))
    log_densities = [-0.5 * (1.0 / 2.0) ** 2 - np.log(2.0), -0.5 * (-1.0 / 4.0) ** 2 - np.log(4.0)]
    assert float(MEASURES.get("ll_var")(found, context)) == pytest.approx(np.var(log_densities), rel=1e-5)


def test_bellman_is_the_sample_deviation_of_mean_values():
    values = torch.tensor([[[1.0], [4.0]], [[3.0], [8.0]]])  # [k, e, b]: member means 2 and 6
    found = posterior([[0.0], [0.0]], [[1.0, 1.0], [1.0, 1.0]])
    result = MEASURES.get("bellman")(found, StepContext(next_values=values))
    assert float(result) == pytest.approx(np.std([2.0, 6.0], ddof=1), rel=1e-6)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), members=st.integers(2, 7), dim=st.integers(1, 6))
def test_identities(seed, members, dim):
    found = draw_posterior(seed, members=members, dim=dim)
    u = {name: MEASURES.get(name)(found).double() for name in POSTERIOR_MEASURES}
    slack = 1e-5
    assert bool((u["max_dev"] <= u["max_pair"] + slack).all())
    assert bool((u["max_pair"] <= 2 * u["max_dev"] + slack).all())
    assert bool((dim**0.5 * u["ens_std"] <= u["max_dev"] + slack).all())
    within = (found.variance / found.delta_scale.square()).mean((0, 2)).double()
    torch.testing.assert_close(u["total_std"].square(), u["ens_std"].square() + within, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MEASURES.names())
def test_identical_members_disagree_about_nothing(name):
    found = draw_posterior(1)
    same = DynamicsPosterior(
        mean=found.mean[:1].expand_as(found.mean),
        variance=found.variance[:1].expand_as(found.variance),
        reward_mean=found.reward_mean[:1].expand_as(found.reward_mean),
        reward_variance=found.reward_variance[:1].expand_as(found.reward_variance),
        delta_scale=found.delta_scale,
        reward_scale=found.reward_scale,
    )
    context = make_context(same)
    alike = StepContext(
        obs=context.obs,
        action=context.action,
        reference=context.reference,
        outcome=context.outcome,
        next_values=torch.ones(3, *same.reward_mean.shape),
    )
    value = MEASURES.get(name)(same, alike)
    assert bool((value <= 1e-6).all()) == (name in DISAGREEMENT)


@pytest.mark.parametrize("name", MEASURES.names())
def test_the_order_of_members_does_not_matter(name):
    found, order = draw_posterior(2), torch.tensor([3, 1, 4, 0, 2])
    context = make_context(found)
    shuffled = DynamicsPosterior(
        mean=found.mean[order],
        variance=found.variance[order],
        reward_mean=found.reward_mean[order],
        reward_variance=found.reward_variance[order],
        delta_scale=found.delta_scale,
        reward_scale=found.reward_scale,
    )
    other = StepContext(
        obs=context.obs,
        action=context.action,
        reference=context.reference,
        outcome=context.outcome,
        next_values=None if context.next_values is None else context.next_values[:, order],
    )
    measure = MEASURES.get(name)
    torch.testing.assert_close(measure(found, context), measure(shuffled, other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*POSTERIOR_MEASURES, "ll_var"])
def test_units_do_not_matter(name):
    found = draw_posterior(3)
    factor = torch.tensor([1.0, 1000.0, 1.0, 0.01])
    scaled = DynamicsPosterior(
        mean=found.mean * factor,
        variance=found.variance * factor.square(),
        reward_mean=50 * found.reward_mean,
        reward_variance=2500 * found.reward_variance,
        delta_scale=found.delta_scale * factor,
        reward_scale=50 * found.reward_scale,
    )
    measure = MEASURES.get(name)
    mine = measure(found, StepContext(outcome=found.mean[0]))
    torch.testing.assert_close(
        measure(scaled, StepContext(outcome=scaled.mean[0])), mine, rtol=1e-3, atol=1e-5
    )


def test_measures_that_need_more_say_what():
    for name in MEASURES.names():
        if name in POSTERIOR_MEASURES:
            assert isinstance(MEASURES.get(name), UncertaintyMeasure)
        else:
            with pytest.raises(ConfigError, match=f"'{name}' needs"):
                MEASURES.get(name)(WORKED)


@pytest.mark.parametrize("name", [*POSTERIOR_MEASURES, "ll_var"])
def test_disagreement_does_not_drown_far_from_zero(name):
    """At s = 1e4 float32 has steps of 1e-3: s' of the members are equal, their changes are not."""
    change = 1e-4 * torch.randn(5, 20, 3, generator=torch.Generator().manual_seed(0))
    origin = torch.full((20, 3), 1e4)
    near, far = (
        DynamicsPosterior(
            mean=s + change,
            variance=torch.full_like(change, 1e-8),
            reward_mean=change[..., 0],
            reward_variance=torch.full_like(change[..., 0], 1.0),
            delta_scale=torch.full((3,), 1e-4),
            reward_scale=torch.tensor(1.0),
            change=change,
        )
        for s in (torch.zeros(20, 3), origin)
    )
    assert float(far.mean.var(0).max()) < 1e-6
    contexts = [StepContext(obs=s, outcome=s) for s in (torch.zeros(20, 3), origin)]
    found, expected = (MEASURES.get(name)(p, c) for p, c in zip((far, near), contexts, strict=True))
    assert float(expected.min()) > 0
    torch.testing.assert_close(found, expected)
