"""Rules over choices, and what they do by chance: probabilities in closed form."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.behaviour import EvenShare, LawConfig, RuleConfig, RulePolicy, load_rule, make_law, make_rule
from mbrl.envs.collect import collect
from mbrl.envs.specs import list_tasks, load_task
from mbrl.nets.random_policy import RandomChoicePolicy
from mbrl.run.collect import shipped_policies

WEIGHT, CONSTANT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), torch.tensor([0.0, 0.0, 0.5])
OBS = torch.tensor([[2.0, 1.0], [0.0, 3.0], [0.0, 0.0], [1.0, 1.0]])


def noise(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))


def test_a_rule_takes_the_best_score_and_the_first_of_equals() -> None:
    policy = RulePolicy(WEIGHT, CONSTANT)
    assert policy.act(OBS).argmax(1).tolist() == [0, 1, 2, 0]
    assert policy.act(OBS, noise(4)).tolist() == policy.act(OBS).tolist()  # nothing is left to chance
    mask = torch.tensor([[False, True, True]]).expand(4, -1)
    assert policy.act(OBS, None, mask).argmax(1).tolist() == [1, 1, 2, 1]


def test_an_even_share_has_exact_probabilities() -> None:
    policy = RulePolicy(WEIGHT, CONSTANT, epsilon=0.3)
    assert policy.probs(OBS[:1]).tolist()[0] == pytest.approx([0.8, 0.1, 0.1])
    mask = torch.tensor([[False, True, True]])
    assert policy.probs(OBS[:1], mask).tolist()[0] == pytest.approx([0.0, 0.85, 0.15])
    drawn = policy.act(OBS[:1].expand(20_000, -1), noise(20_000)).mean(0)
    assert drawn.tolist() == pytest.approx([0.8, 0.1, 0.1], abs=5 * math.sqrt(0.25 / 20_000))


def test_a_share_is_mixed_with_any_policy_over_choices() -> None:
    mixed = EvenShare(RulePolicy(WEIGHT, CONSTANT, epsilon=0.3), 0.5)
    assert mixed.probs(OBS[:1]).tolist()[0] == pytest.approx([0.4 + 1 / 6, 0.05 + 1 / 6, 0.05 + 1 / 6])
    assert mixed.act(OBS).argmax(1).tolist() == [0, 1, 2, 0]
    drawn = mixed.act(OBS[:1].expand(20_000, -1), noise(20_000, 1)).mean(0)
    assert drawn.tolist() == pytest.approx(mixed.probs(OBS[:1]).tolist()[0], abs=0.02)


def test_random_choices_are_even_over_what_is_allowed() -> None:
    policy = RandomChoicePolicy(load_task("acrobot").space)
    mask = torch.tensor([[True, False, True]]).expand(9_000, -1)
    obs = torch.zeros(9_000, 6)
    shares = policy.act(obs, noise(9_000), mask).mean(0)
    assert shares.tolist() == pytest.approx([0.5, 0.0, 0.5], abs=0.03)
    assert policy.probs(obs[:1], mask[:1]).tolist() == [[0.5, 0.0, 0.5]]
    with pytest.raises(ValueError, match="row 1 allows no choice"):
        policy.act(obs[:2], None, torch.tensor([[True, True, True], [False, False, False]]))


@pytest.mark.parametrize("task", ["cartpole", "acrobot", "mountain_car"])
def test_shipped_rules_fit_their_tasks_and_their_logs_know_the_probabilities(task: str) -> None:
    spec = load_task(task)
    assert set(shipped_policies(spec)) == {"expert", "medium"}
    policy = load_rule(shipped_policies(spec)["expert"], spec)
    (episode,) = collect(spec, policy, rng=RngStreams(0), episodes=1)
    probs = policy.probs(torch.from_numpy(episode.observations[:-1].copy()))
    taken = (probs * torch.from_numpy(episode.actions.copy())).sum(1).log()
    assert episode.behaviour_log_prob is not None
    assert episode.behaviour_log_prob == pytest.approx(taken.numpy(), abs=1e-6)
    least, most = math.log(0.05 / spec.act_dim), math.log(0.95 + 0.05 / spec.act_dim)
    near = np.isclose(episode.behaviour_log_prob[:, None], [least, most], atol=1e-5).any(1)
    assert near.all()


def test_rules_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cartpole, path = load_task("cartpole"), tmp_path / "rule.yaml"
    with pytest.raises(ConfigError, match=r"the task pendulum has continuous actions"):
        make_rule(RuleConfig(scores={"a": (1.0,)}), load_task("pendulum"), source="Rule x")
    with pytest.raises(ConfigError, match="score each choice of the task by its name"):
        make_rule(RuleConfig(scores={"left": (0.0,) * 5}), cartpole, source="Rule x")
    with pytest.raises(ConfigError, match="give 5 for each choice"):
        make_rule(RuleConfig(scores={"push left": (0.0,), "push right": (1.0,)}), cartpole, source="Rule x")
    path.write_text(yaml.safe_dump({"scores": {"push left": [0, "x"]}}))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rule(path, cartpole)
    assert "cartpole" in list_tasks()


def test_a_law_is_its_rows_saturated_with_an_exact_density() -> None:
    task = load_task("reactor")
    config = LawConfig(law=((1.0, 0.5, -2.0, 0.0, 120.0),), std=0.3)
    policy = make_law(config, task, source="the test")
    obs = torch.tensor([[0.5, 350.0, 0.6, 1.0]])
    # u = 0.5 + 175 - 1.2 + 120 K, in [-1, 1] by the middle of 300 K and half a range of 20 K.
    scaled = math.tanh((0.5 + 175.0 - 1.2 + 120.0 - 300.0) / 20.0)
    assert policy.act(obs).item() == pytest.approx(300.0 + 20.0 * scaled, abs=1e-3)
    action = torch.tensor([[304.0]])
    expected = -0.5 * ((0.2 - scaled) / 0.3) ** 2 - math.log(0.3) - 0.5 * math.log(2 * math.pi)
    assert policy.log_prob(obs, action).item() == pytest.approx(expected, abs=1e-4)


def test_a_law_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    task = load_task("four_tank")
    with pytest.raises(ConfigError, match="give 9 for each of 2 commands"):
        make_law(LawConfig(law=((1.0, 0.0),)), task, source="the test")
    path = tmp_path / "law.yaml"
    path.write_text("scores: {a: [0]}")
    with pytest.raises(ConfigError, match="write law"):
        load_rule(path, task)
