"""Policies that make logs: rules over choices written down as scores, laws of commands, even draws.

Their probabilities are exact, so the logs that they make have exact behaviour log-probabilities.
"""

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.core.types import SpaceSpec
from mbrl.envs.documents import parse_yaml
from mbrl.envs.specs import TaskSpec
from mbrl.nets.actors import ActorSpec, ClippedGaussianActor
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.choices import (
    draw_choice,
    greedy_choice,
    log_probabilities,
    one_hot,
    refuse_empty_masks,
    soft_greedy,
)

Share = Annotated[float, Field(ge=0, le=1)]


class RuleConfig(BaseModel):
    """A controller that scores every choice by a linear function of the observation and takes the best.

    Attributes:
        description: one line for people.
        scores: for each choice by its name the weights of the observation's dimensions and, last, a constant;
            of equal scores the first choice counts.
        epsilon: share of the steps in which a choice is drawn evenly instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    scores: Annotated[Mapping[str, tuple[FiniteFloat, ...]], Field(min_length=1)]
    epsilon: Share = 0.0


class LawConfig(BaseModel):
    """A controller of continuous commands: linear in the observation, with noise, clipped to the box.

    Means saturate smoothly: `tanh` of the command scaled to [-1, 1].

    Attributes:
        description: one line for people.
        law: for each command the weights of the observation's dimensions and, last, a constant; environment
            units.
        std: deviation of the noise, in halves of a command's range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    law: Annotated[tuple[tuple[FiniteFloat, ...], ...], Field(min_length=1)]
    std: Annotated[float, Field(gt=1e-6, le=10)] = 0.1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class RulePolicy:
    """`argmax_a (w_a . s + c_a)`; with noise, a share `epsilon` of the choices is drawn evenly.

    Attributes:
        weight: `[n, obs_dim]`, one row for each choice.
        constant: `[n]`.
        epsilon: in [0, 1].
    """

    weight: Float[Tensor, "n obs_dim"]
    constant: Float[Tensor, "n"]
    epsilon: float = 0.0

    @property
    def act_dim(self) -> int:
        """Number of choices."""
        return len(self.constant)

    def act(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b n"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n"]:
        """A draw of `probs`; without noise the best choice that is allowed. One-hot.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        if noise is not None:
            return one_hot(draw_choice(self.probs(obs, mask).log(), noise), self.act_dim)
        refuse_empty_masks(mask)
        return one_hot(greedy_choice(self._scores(obs), mask), self.act_dim)

    def probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """`1 - epsilon` for the best choice that is allowed, and epsilon evenly for all that are.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        refuse_empty_masks(mask)
        scores = self._scores(obs)
        allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask
        return soft_greedy(greedy_choice(scores, mask), allowed, scores.new_tensor(self.epsilon))

    def _scores(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b n"]:
        return obs @ self.weight.to(obs).T + self.constant.to(obs)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class EvenShare:
    """Another policy over choices, with a share of the choices drawn evenly: `(1 - e) pi(a|s) + e / allowed`.

    Attributes:
        policy: the other one.
        epsilon: e, in [0, 1].
    """

    policy: DiscretePolicy
    epsilon: float

    @property
    def act_dim(self) -> int:
        """Number of choices."""
        return self.policy.act_dim

    def act(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b n"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n"]:
        """A draw of `probs`; without noise what the policy does."""
        if noise is None:
            return self.policy.act(obs, None, mask)
        return one_hot(draw_choice(self.probs(obs, mask).log(), noise), self.act_dim)

    def probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """The mixture of both distributions."""
        refuse_empty_masks(mask)
        even = log_probabilities(obs.new_zeros(len(obs), self.act_dim), mask).exp()
        return (1 - self.epsilon) * self.policy.probs(obs, mask) + self.epsilon * even


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Noisy:
    """Another policy over commands, its best action with Gaussian noise, clipped to the box.

    It states no density: what was clipped has none.

    Attributes:
        policy: the other one.
        space: bounds of its actions.
        std: deviation of the noise, in halves of a command's range.
    """

    policy: Policy
    space: SpaceSpec
    std: float

    @property
    def act_dim(self) -> int:
        """Size of an action."""
        return self.space.act_dim

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """`clip(a + std (hi - lo) / 2 noise)`; the other policy's best action without noise."""
        best = self.policy.act(obs, None)
        if noise is None:
            return best
        low, high = obs.new_tensor(self.space.act_low), obs.new_tensor(self.space.act_high)
        return (best + self.std * (high - low) / 2 * noise).clamp(low, high)


def load_rule(path: Path, task: TaskSpec) -> RulePolicy | ClippedGaussianActor:
    """The controller that a yaml describes: `RuleConfig` where actions are choices, else `LawConfig`.

    Raises:
        ConfigError: it cannot be read, or does not fit the task.
    """
    kind = LawConfig if task.choices is None else RuleConfig
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"), where=f"Rule {path}")
        config = kind.model_validate(values)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        remedy = (
            "write law, a list of weights for each command"
            if task.choices is None
            else "write scores, a list of weights for each choice"
        )
        raise ConfigError(f"Rule {path} cannot be read: {str(error)[:300]} Remedy: {remedy}.") from error
    if isinstance(config, LawConfig):
        return make_law(config, task, source=f"Rule {path}")
    return make_rule(config, task, source=f"Rule {path}")


def make_law(config: LawConfig, task: TaskSpec, *, source: str) -> ClippedGaussianActor:
    """The controller of a description, as a network of one linear layer.

    Args:
        config: its weights.
        task: whose commands it gives.
        source: what holds the description, for messages.

    Raises:
        ConfigError: it does not fit the task.
    """
    found = [len(row) for row in config.law]
    if found != [task.obs_dim + 1] * task.act_dim:
        raise ConfigError(
            f"{source} has {found} weights. Remedy: give {task.obs_dim + 1} for each of {task.act_dim} "
            f"commands: {task.obs_dim} of the observation and a constant."
        )
    spec = ActorSpec("clipped_gaussian", task.space, hidden=(), log_std_bounds=(-20.0, 3.0))
    actor = ClippedGaussianActor(spec, Normaliser.identity(task.obs_dim), torch.Generator())
    table = torch.tensor(config.law, dtype=torch.float64)
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (task.act_low, task.act_high))
    # To [-1, 1], where actors compute: x = (u - middle) / half.
    half, middle = (high - low) / 2, (high + low) / 2
    with torch.no_grad():
        (layer,) = actor.net.layers(actor.net.flat)
        layer.weight.copy_((table[:, :-1] / half[:, None]).T[None])
        layer.bias.copy_(((table[:, -1] - middle) / half).view_as(layer.bias))
        actor.log_std.fill_(math.log(config.std))
    return actor.requires_grad_(requires_grad=False)


def make_rule(config: RuleConfig, task: TaskSpec, *, source: str) -> RulePolicy:
    """The controller of a description.

    Args:
        config: its scores.
        task: whose choices it takes.
        source: what holds the description, for messages.

    Raises:
        ConfigError: it does not fit the task.
    """
    if task.choices is None or set(config.scores) != set(task.choices):
        raise ConfigError(
            f"{source} scores {reprlib.repr(list(config.scores))}, the task {task.name} has "
            f"{'continuous actions' if task.choices is None else reprlib.repr(list(task.choices))}. Remedy: "
            "score each choice of the task by its name."
        )
    rows: list[Any] = [config.scores[name] for name in task.choices]
    if any(len(row) != task.obs_dim + 1 for row in rows):
        raise ConfigError(
            f"{source} has {[len(row) for row in rows]} weights. Remedy: give {task.obs_dim + 1} for each "
            f"choice: {task.obs_dim} of the observation and a constant."
        )
    table = torch.tensor(rows, dtype=torch.float32)
    return RulePolicy(table[:, :-1], table[:, -1], config.epsilon)
