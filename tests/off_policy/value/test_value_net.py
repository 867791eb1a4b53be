import torch

from mbrl.core.estimates import Estimand
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.value.value_net import QEnsemble, RewardScale, discounted_steps
from tests.off_policy.logs import generator
from tests.off_policy.lqg import LinearPolicy, scalar_task


def test_an_offset_is_worth_the_mean_reward_of_every_step():
    space = scalar_task().simulate(LinearPolicy(torch.ones(1, 1), 8.0), 1, 1, 0).spec
    for estimand, worth in ((Estimand(0.5), 6.0), (Estimand(0.5, horizon=2), 4.5)):
        values = QEnsemble(
            5,
            space,
            (),
            normaliser=Normaliser.identity(1),
            scale=RewardScale(3.0, 2.0),
            estimand=estimand,
            is_discrete=False,
            layer_norm=False,
            generator=generator(),
        )
        with torch.no_grad():
            values.net.flat.zero_()
        to_go = None if estimand.horizon is None else torch.tensor([2])
        found = values.action_value(torch.ones(1, 1), torch.ones(1, 1), to_go)
        torch.testing.assert_close(found, torch.full((5, 1), worth, dtype=torch.float64))


def test_a_value_is_the_mean_over_draws_and_nothing_is_to_come_at_the_end():
    space = scalar_task().simulate(LinearPolicy(torch.ones(1, 1), 8.0), 1, 1, 0).spec
    values = QEnsemble(
        3,
        space,
        (8,),
        normaliser=Normaliser.identity(1),
        scale=RewardScale(0.0, 2.0),
        estimand=Estimand(0.9, horizon=4),
        is_discrete=False,
        layer_norm=False,
        generator=generator(),
    )
    obs, draws = torch.linspace(-1, 1, 5)[:, None], torch.randn(7, 5, 1, generator=generator())
    to_go = torch.tensor([4, 3, 2, 1, 0])
    found = values.value(obs, draws, to_go)
    for member in range(3):
        for row in range(4):
            inputs = torch.stack(
                [torch.cat([obs[row], draw[row] / 8, to_go[row : row + 1] / 4]) for draw in draws]
            )
            mean = 2.0 * values.net.select(torch.tensor([member]))(inputs).double().mean()
            mean = mean * discounted_steps(to_go[row], 0.9)  # the network says the mean reward of these steps
            torch.testing.assert_close(found[member, row], mean, rtol=1e-5, atol=1e-6)
    assert (found[:, 4] == 0).all()


def test_discounted_steps_are_a_geometric_sum():
    steps = torch.tensor([0, 1, 3])
    torch.testing.assert_close(
        discounted_steps(steps, 0.5), torch.tensor([0.0, 1.0, 1.75], dtype=torch.float64)
    )
    torch.testing.assert_close(discounted_steps(steps, 1.0), steps.double())
