"""What learners share whose policy is greedy in values of choices: their networks, targets and step.

Sources: Mnih et al. 2015 for Q-learning with a target network and a clipped error; van Hasselt et al. 2016
(arXiv:1509.06461) for the double target; Wang et al. 2016 (arXiv:1511.06581) for dueling heads; Sutton &
Barto 2018, section 7.1, for returns of several steps. No learner by itself.
"""

import abc
import copy
import dataclasses
from typing import Annotated, Any, Generic, TypeVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LearnerContext, LearnerState, Optimiser
from mbrl.learners.critics import critic_metrics
from mbrl.learners.discrete.choices import ChoiceLearnerConfig, ChoiceValue
from mbrl.nets.categorical import CategoricalKind, CategoricalSpec, GreedyPolicy, categorical_class
from mbrl.nets.critics import ChoiceCritics
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.choices import greedy_choice, one_hot, take_choice, without_empty
from mbrl.ops.polyak import polyak_update
from mbrl.ops.quantiles import huber_critic_loss
from mbrl.ops.targets import td_target


class ValueLearningConfig(ChoiceLearnerConfig):
    """Values of choices and a policy that is greedy in them.

    Attributes:
        hidden: widths of the hidden layers.
        critics: value networks; a value is the least of them wherever one is needed.
        critic_layer_norm: LayerNorm in their hidden layers.
        learning_rate: Adam rate.
        is_double: the online values choose the next action and the target values judge it; False takes the
            greatest target value.
        is_dueling: value and advantages from one network.
        n_steps: rewards that are summed before a target bootstraps; more than 1 needs a recipe that learns
            from logged episodes alone, and takes actions of the behaviour for those of the policy.
        polyak_tau: share of the online values that enters the target values when these move.
        target_interval: updates between two moves of the target values; `polyak_tau: 1` with a long interval
            is the periodic copy of the original.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 1
    critic_layer_norm: bool = False
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    is_double: bool = True
    is_dueling: bool = False
    n_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    target_interval: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    @property
    def summed_steps(self) -> int:
        """See `LearnerConfig.summed_steps`."""
        return self.n_steps


PolicyT = TypeVar("PolicyT", bound=GreedyPolicy)


@dataclasses.dataclass(slots=True)
class ValueLearningState(LearnerState, Generic[PolicyT]):
    """The policy, which holds the online values, the target values, the optimiser, the updates so far."""

    policy: PolicyT
    target_critic: ChoiceCritics
    optimiser: Optimiser
    updates: int = 0


ConfigT = TypeVar("ConfigT", bound=ValueLearningConfig)
StateT = TypeVar("StateT", bound=ValueLearningState[Any])


class ValueLearning(abc.ABC, Generic[ConfigT, StateT]):
    """Q-learning over choices with three gaps: the error of the values, a term beside it, what may be chosen.

    Args:
        config: hyper-parameters.
        context: the task's sizes and the normaliser.
    """

    def __init__(self, config: ConfigT, context: LearnerContext) -> None:
        self.config, self.context = config, context
        # A target of n steps bootstraps from the n-th state on.
        self.bootstrap_discount = config.discount**config.n_steps

    @abc.abstractmethod
    def init(self, generator: torch.Generator) -> StateT:
        """Fresh networks and optimisers."""

    def phase(self, state: StateT) -> int:
        """1 where the next update moves the target values, else 0."""
        return int((state.updates + 1) % self.config.target_interval == 0)

    def update(self, state: StateT, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the values, and of the target values where they are due; draws nothing."""
        del generator
        # Q: mean huber(Q(s, a) - y), y = r + g^n (1 - terminated) Q'(s', argmax_a' Q(s', a')), and what a
        # learner adds
        values, loss = self.value_loss(state, batch)
        term, metrics = self.regulariser(state, batch, values)
        state.optimiser.descend(loss if term is None else loss + term)
        state.updates += 1
        # Q' <- (1 - tau) Q' + tau Q, every `target_interval` updates
        if state.updates % self.config.target_interval == 0:
            target, online = state.target_critic.net.flat, state.policy.critic.net.flat
            polyak_update(target, online, polyak_tau=self.config.polyak_tau)
        chosen = take_choice(values.detach(), batch.action)
        return {**critic_metrics(chosen, loss), **metrics}

    def value_loss(
        self, state: StateT, batch: TransitionBatch
    ) -> tuple[Float[Tensor, "e b n"], Float[Tensor, ""]]:
        """Values of all choices at the batch, differentiable, and the error of the logged ones."""
        target = self.critic_target(state, batch)
        values = state.policy.critic(state.policy.normaliser(batch.observation))
        return values, huber_critic_loss(take_choice(values, batch.action), target)

    def regulariser(
        self, state: StateT, batch: TransitionBatch, values: Float[Tensor, "e b n"]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What is added to the error, weighted, and metrics of it."""
        del state, batch, values
        return None, {}

    @torch.no_grad()
    def critic_target(self, state: StateT, batch: TransitionBatch) -> Float[Tensor, "b"]:
        """`r + g^n (1 - terminated) min_i Q'_i(s', a')`, a' the next choice, without gradients."""
        obs_n = state.policy.normaliser(batch.next_observation)
        least = state.target_critic(obs_n).amin(0)
        choice = self.next_choice(state, obs_n, least, batch.next_action_mask)
        next_value = take_choice(least, choice)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.bootstrap_discount)

    @torch.no_grad()
    def next_choice(
        self,
        state: StateT,
        next_obs_n: Float[Tensor, "b obs_dim"],
        target_values: Float[Tensor, "b n"],
        mask: Bool[Tensor, "b n"] | None,
    ) -> Float[Tensor, "b n"]:
        """The best of the choices that are allowed and supported at s', one-hot.

        Args:
            state: the online values judge, or with `is_double: false` the target values.
            next_obs_n: `[b, obs_dim]`, normalised.
            target_values: `[b, n]`, least target value of each choice.
            mask: `[b, n]`, or None.
        """
        # Two judges: the one that overrates a choice is not the one that says what it is worth.
        judge = state.policy.critic(next_obs_n).amin(0) if self.config.is_double else target_values
        support = state.policy.supported(next_obs_n, without_empty(mask))
        return one_hot(greedy_choice(judge, support), judge.shape[-1])

    def policy(self, state: StateT) -> GreedyPolicy:
        """The greedy policy."""
        return state.policy

    def value(self, state: StateT) -> ChoiceValue:
        """The least critic."""
        return ChoiceValue(state.policy, state.policy.critic, state.policy.normaliser)

    def passes(self, state: StateT) -> tuple[NetworkPass, ...]:
        """The target values and, for a double target, the online ones at s'; the values at s are trained."""
        online = (NetworkPass(state.policy.critic.net),) if self.config.is_double else ()
        return (
            NetworkPass(state.target_critic.net),
            *online,
            NetworkPass(state.policy.critic.net, "parameters"),
        )

    def build_policy(
        self, kind: CategoricalKind, generator: torch.Generator, *, quantiles: int = 1, threshold: float = 0.0
    ) -> GreedyPolicy:
        """A greedy policy of that kind with fresh values."""
        config, context = self.config, self.context
        spec = CategoricalSpec(
            kind,
            context.space,
            config.hidden,
            layer_norm=config.critic_layer_norm,
            members=config.critics,
            dueling=config.is_dueling,
            quantiles=quantiles,
            threshold=threshold,
        )
        # A copy: the policy is exported with statistics of its own, and moves between devices by itself.
        policy = categorical_class(kind)(spec, copy.deepcopy(context.normaliser), generator)
        assert isinstance(policy, GreedyPolicy)
        return policy

    def make_target(self, policy: GreedyPolicy) -> ChoiceCritics:
        """Target values: a copy that moves by averaging alone, whose passes keep no activations."""
        return copy.deepcopy(policy.critic).requires_grad_(requires_grad=False)
