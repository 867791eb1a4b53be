"""A model whose every number can be worked out by hand, with the facts of a fit around it."""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn

from mbrl.algorithms.base import RECIPES, RecipeConfig, RecipeContext
from mbrl.algorithms.imagination import imagine
from mbrl.algorithms.penalty import PenaltyConfig, UncertaintyRule
from mbrl.core.protocols import Metrics, Training
from mbrl.core.rng import RngStreams
from mbrl.core.types import DynamicsPosterior, TransitionBatch
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.dynamics.termination import NeverTerminates
from mbrl.nets.normaliser import Normaliser
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Imagination
from tests.run.toy import SPACE, transitions

LEARNER = {"name": "sac", "hidden": [8], "batch_size": 16}
SCALE = torch.tensor([2.0, 0.5, 1.0])
SPREAD = torch.tensor([-1.0, 0.0, 1.0])


class HandModel(DynamicsEnsemble):
    """Without noise: `s'_e = 0.9 s + spread_e * (sum_d |a_d|) * delta_scale / 10` and `r = s_0`.

    Members differ by the same multiple of `delta_scale` in every dimension, so
    `ens_std = sqrt(2 / 3) * sum_d |a_d| / 10`.
    """

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.full_predictions = 0

    @property
    def ensemble_size(self) -> int:
        return 3

    def predict(self, obs: Tensor, action: Tensor) -> DynamicsPosterior:
        self.full_predictions += 1
        spread = SPREAD[:, None] * action.abs().sum(-1) / 10
        mean = 0.9 * obs + spread[..., None] * SCALE
        reward = obs[:, 0].expand(3, -1)
        zeros = torch.zeros_like(mean)
        return DynamicsPosterior(mean, zeros, reward, zeros[..., 0], SCALE, torch.tensor(1.0))

    def predict_member(self, obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        everyone, row = self.predict(obs, action), torch.arange(len(obs))
        self.full_predictions -= 1
        fields = (everyone.mean, everyone.variance, everyone.reward_mean, everyone.reward_variance)
        return tuple(field[member, row] for field in fields)


def ens_std(action: Tensor) -> Tensor:
    return (2 / 3) ** 0.5 * action.abs().sum(-1) / 10


def raw_ens_std(action: Tensor) -> Tensor:
    """In the units of the observations: members differ by multiples of `SCALE`."""
    return ens_std(action) * SCALE.square().mean().sqrt()


def with_trusted_horizon(dynamics: FittedDynamics, horizon: int) -> FittedDynamics:
    report = dynamics.report
    open_loop = report.open_loop.model_copy(update={"trusted_horizon": horizon})
    return dataclasses.replace(dynamics, report=report.model_copy(update={"open_loop": open_loop}))


def hand_dynamics(
    fitted: FittedDynamics, *, reward_scale: float = 3.0, quantiles: dict[float, float] | None = None
) -> FittedDynamics:
    """The hand-made model in the place of the fitted one; never terminates, trusted for 5 steps."""
    toy = dataclasses.replace(
        fitted,
        model=HandModel(),
        termination=NeverTerminates(),
        reward_scale=reward_scale,
        thresholds={"ens_std": quantiles or {0.95: 0.05, 0.99: 0.1, 1.0: 0.15}},
    )
    return with_trusted_horizon(toy, 5)


def make_context(dynamics: FittedDynamics | None, **changes: Any) -> RecipeContext:
    return RecipeContext(
        SPACE, Normaliser.identity(3), **({"transitions": transitions(), "dynamics": dynamics} | changes)
    )


def make_config(recipe: str = "mopo", **changes: Any) -> RecipeConfig:
    rollout = {"starts": 40, "horizon": 3} | changes.pop("rollout", {})
    return RECIPES.get(recipe).Config.model_validate({"learner": LEARNER, "rollout": rollout, **changes})


def make_training(dynamics: FittedDynamics | None, recipe: str = "mopo", **changes: Any) -> Training:
    return RECIPES.get(recipe).build(make_config(recipe, **changes), make_context(dynamics))


def refresh(training: Training, step: int = 0, seed: int = 0) -> Metrics:
    rng = RngStreams(seed)
    policy = training.learner.policy(training.learner.init(rng.at("init")))
    assert training.refresh is not None
    return training.refresh(policy, step, rng.at("rollout", step))


def imagined_rows(dynamics: FittedDynamics, recipe: str = "mopo", **changes: Any) -> TransitionBatch:
    """Draws of what one refresh left in the buffer."""
    training = make_training(dynamics, recipe, real_ratio=0, **changes)
    refresh(training)
    return training.source.sample(500, torch.Generator().manual_seed(1))


def make_imagination(
    dynamics: FittedDynamics, *, rollout: dict[str, Any] | None = None, **penalty: Any
) -> Imagination:
    config = RolloutConfig(**(rollout or {}))
    return imagine(
        config,
        UncertaintyRule.make(config, PenaltyConfig(**penalty), dynamics, transitions=transitions()),
        dynamics,
        termination=NeverTerminates(),
        transitions=transitions(),
    )
