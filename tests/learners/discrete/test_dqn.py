import pytest
import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.errors import ConfigError
from mbrl.core.types import SpaceSpec
from mbrl.learners.base import LearnerContext
from mbrl.learners.choice import LearnerChoice
from mbrl.learners.discrete.dqn import DQN, DQNConfig
from mbrl.nets.normaliser import Normaliser
from tests.learners.discrete.chain import (
    CELLS,
    CONTEXT,
    SPACE,
    constant_output,
    corridor,
    corridor_values,
    generator,
    train,
    two_rows,
)


def make(**config):
    learner = DQN(DQNConfig(**{"hidden": (16,), "discount": 0.9, **config}), CONTEXT)
    return learner, learner.init(generator())


def test_the_loss_and_the_double_target_by_hand():
    """Online 1, 5, 2 chooses `stay`; the target values of that choice are 3 and 4, the least counts."""
    learner, state = make(critics=2)
    constant_output(state.policy.critic.net, [[1.0, 5.0, 2.0], [1.5, 6.0, 2.5]])
    constant_output(state.target_critic.net, [[9.0, 4.0, 0.0], [9.0, 3.0, 0.0]])
    state.optimiser._base = 0.0
    targets = [1 + 0.9 * 3.0, 2.0]
    assert learner.critic_target(state, two_rows()).tolist() == pytest.approx(targets)
    # Errors beyond 1 count linearly: |e| - 1/2.
    errors = [2.0 - targets[0], 1.0 - targets[1], 2.5 - targets[0], 1.5 - targets[1]]
    expected = sum(abs(e) - 0.5 if abs(e) > 1 else e * e / 2 for e in errors) / 2
    metrics = learner.update(state, two_rows(), generator())
    assert float(metrics["critic/loss"]) == pytest.approx(expected, rel=1e-5)


def test_a_target_that_is_not_double_takes_the_greatest_target_value():
    learner, state = make(critics=2, is_double=False)
    constant_output(state.target_critic.net, [[9.0, 4.0, 0.0], [1.0, 3.0, 0.0]])
    # Least of both critics: 1, 3, 0.
    assert learner.critic_target(state, two_rows()).tolist() == pytest.approx([1 + 0.9 * 3.0, 2.0])


def test_masks_of_the_next_state_hold_in_targets():
    learner, state = make()
    constant_output(state.policy.critic.net, [[1.0, 5.0, 2.0]])
    constant_output(state.target_critic.net, [[7.0, 4.0, 3.0]])
    mask = torch.tensor([[True, False, True], [False, False, False]])  # nothing is allowed behind an end
    found = learner.critic_target(state, two_rows(next_action_mask=mask))
    assert found.tolist() == pytest.approx([1 + 0.9 * 3.0, 2.0])


def test_targets_of_several_steps_bootstrap_with_a_power_of_the_discount():
    learner, state = make(n_steps=3)
    constant_output(state.target_critic.net, [[2.0, 2.0, 2.0]])
    assert learner.critic_target(state, two_rows()).tolist() == pytest.approx([1 + 0.9**3 * 2.0, 2.0])


def test_a_dueling_network_takes_the_mean_advantage_out():
    _, state = make(is_dueling=True)
    constant_output(state.policy.critic.net, [[10.0, 1.0, 2.0, 6.0]])
    assert state.policy.preferences(torch.zeros(1, 2)).tolist()[0] == pytest.approx([8.0, 9.0, 13.0])


def test_target_values_are_copied_at_their_interval():
    learner, state = make(polyak_tau=1.0, target_interval=3)
    before = state.target_critic.net.flat.clone()
    for update in range(1, 4):
        learner.update(state, two_rows(), generator())
        assert torch.equal(state.target_critic.net.flat, before) == (update < 3)
    assert torch.equal(state.target_critic.net.flat, state.policy.critic.net.flat)


def test_exploration_falls_on_a_line_and_survives_a_checkpoint():
    learner, state = make(epsilon_start=1.0, epsilon_end=0.2, epsilon_updates=4)
    seen = [float(state.policy.epsilon)]
    for _ in range(5):
        learner.update(state, two_rows(), generator())
        seen.append(float(state.policy.epsilon))
    assert seen == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
    other = learner.init(generator(1))
    other.load_state_dict(state.state_dict())
    assert float(other.policy.epsilon) == pytest.approx(0.2)


@pytest.mark.parametrize("switches", [{}, {"is_dueling": True}, {"is_double": False}])
def test_it_learns_the_values_of_a_corridor(switches: dict):
    learner, _ = make(hidden=(32, 32), learning_rate=3e-3, polyak_tau=0.05, **switches)
    state = train(learner, 500)
    assert state.policy.best(CELLS).tolist() == [2, 2, 2, 2]
    torch.testing.assert_close(state.policy.preferences(CELLS), corridor_values(0.9), atol=0.05, rtol=0)


def test_several_steps_of_episodes_reach_the_learner_through_the_recipe():
    recipe = RECIPES.get("model_free")
    learner = {"name": "dqn", "hidden": [8], "n_steps": 2, "discount": 0.5}
    config = recipe.Config.model_validate({"learner": learner, "reward_transform": "none"})
    rows = corridor(40)
    context = RecipeContext(SPACE, Normaliser.identity(2), rows, episode=torch.arange(40) // 10)
    batch = recipe.build(config, context).source.sample(500, generator())
    assert bool((batch.reward < -0.1).any())  # sums of two costs
    with pytest.raises(ValueError, match="imagines single steps"):
        RECIPES.get("mopo").Config.model_validate({"learner": learner})


def test_a_box_of_actions_is_refused_and_the_counterpart_named():
    choice = LearnerChoice.parse({"name": "dqn"})
    box = SpaceSpec(2, 1, (-1.0,), (1.0,))
    with pytest.raises(ConfigError, match=r"'dqn' acts over choices, and an action here is 1 continuous"):
        choice.build(LearnerContext(box, Normaliser.identity(2), 10))
    with pytest.raises(
        ConfigError, match=r"'cql' acts in a box.*3 choices \(left, stay, right\).*discrete_cql"
    ):
        LearnerChoice.parse({"name": "cql"}).build(CONTEXT)
