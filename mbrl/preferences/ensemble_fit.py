"""What fits of reward models share: members side by side, each stopped by what its own resample left out.

Resamples are drawn with replacement, of pairs or of episodes; what is held out judges a model that it did not
shape.
"""

import abc
import copy
import dataclasses
from collections.abc import Callable
from typing import Annotated

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import NonFiniteError
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec, StateDict
from mbrl.nets.moments import load_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import ActivationName
from mbrl.nets.widths import Layers
from mbrl.preferences.reward_model import RewardEnsemble, RewardMembers, RewardSpec


class EnsembleConfig(BaseModel):
    """How the members of a reward model are fitted.

    Attributes:
        members: networks; what they dispute is what is not known.
        hidden: widths of their hidden layers; none makes a member linear in states and actions.
        activation: of the hidden layers.
        layer_norm: LayerNorm in the hidden layers.
        learning_rate: Adam rate.
        weight_decay: of AdamW, per unit of the rate.
        batch_size: pairs, or steps, of each member in an update.
        max_updates: most updates.
        look_interval: updates between two looks at what members left out.
        patience: looks without an improvement of any member before the end.
        holdout: share of the pairs, or episodes, that judge the model and never fit it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: RewardMembers = 5
    hidden: Layers = (128, 128)
    activation: ActivationName = "relu"
    layer_norm: bool = False
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=100)] = 0.01
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 32
    max_updates: Annotated[int, Field(ge=1, le=10_000_000)] = 1500
    look_interval: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    patience: Annotated[int, Field(ge=1, le=10_000)] = 6
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.2

    def spec(self, space: SpaceSpec) -> RewardSpec:
        """Of the network."""
        return RewardSpec(space, self.members, self.hidden, self.activation, self.layer_norm)


@dataclasses.dataclass(slots=True, eq=False)
class RewardFitState:
    """All that updates change.

    Attributes:
        model: the members.
        optimiser: of all of them.
        best: `[e, p]`, each member's parameters where its own left-out pairs were told best.
        best_loss: `[e]`, its loss there, nats.
        updates: that were made.
        stale: looks since any member improved.
        history: mean loss over members at each look, nats.
    """

    model: RewardEnsemble
    optimiser: torch.optim.Optimizer
    best: Tensor
    best_loss: Tensor
    updates: int = 0
    stale: int = 0
    history: list[float] = dataclasses.field(default_factory=list[float])

    def state_dict(self) -> StateDict:
        """Everything that the updates to come depend on; a copy."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "best": self.best,
                "best_loss": self.best_loss,
                "updates": self.updates,
                "stale": self.stale,
                "history": self.history,
            }
        )

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`.

        Raises:
            ValueError: a value is of another type or shape.
        """
        state = copy.deepcopy(state)
        for name in ("updates", "stale"):
            if type(state[name]) is not int or state[name] < 0:
                raise ValueError(f"{name} is {state[name]!r}")
        for name in ("best", "best_loss"):
            if state[name].shape != getattr(self, name).shape:
                raise ValueError(f"{name} is of the shape {list(state[name].shape)}")
        self.model.load_state_dict(state["model"])
        load_moments(self.optimiser, state["optimiser"])
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.updates, self.stale = state["updates"], state["stale"]
        self.history = [float(value) for value in state["history"]]


class EnsembleFit(abc.ABC):
    """A fit, update by update; immutable, what changes is the state.

    A draw depends on the streams and on the number of the update alone, so a fit that continues from a stored
    state repeats an uninterrupted one bit for bit.

    Args:
        config: of the fit.
        space: sizes and bounds of the log.
        normaliser: of its observations.
        rng: streams of the fit.
    """

    def __init__(
        self, config: EnsembleConfig, space: SpaceSpec, normaliser: Normaliser, rng: RngStreams
    ) -> None:
        self._ensemble, self._space, self._normaliser, self._rng = config, space, normaliser, rng

    @abc.abstractmethod
    def losses(self, model: RewardEnsemble, generator: torch.Generator) -> Float[Tensor, "e"]:
        """Each member's loss on a batch of its own resample, differentiable."""

    @abc.abstractmethod
    def left_out_losses(self, model: RewardEnsemble) -> Float[Tensor, "e"]:
        """Each member's loss on what its resample left out, nats; no gradient."""

    @abc.abstractmethod
    def finish(self, state: RewardFitState) -> RewardEnsemble:
        """The model of each member's best look, in the unit of its rewards."""

    def start(self) -> RewardFitState:
        """Fresh networks."""
        config = self._ensemble
        model = RewardEnsemble(config.spec(self._space), self._normaliser, self._rng.at("init"))
        flat = model.body.net.flat
        optimiser = torch.optim.AdamW(
            [flat], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        worst = torch.full((config.members,), torch.inf)
        return RewardFitState(model, optimiser, flat.detach().clone(), worst)

    @property
    def max_updates(self) -> int:
        """Most updates that it makes."""
        return self._ensemble.max_updates

    def is_done(self, state: RewardFitState) -> bool:
        """Whether the last update was made, or all members ceased to improve."""
        return state.updates >= self._ensemble.max_updates or state.stale >= self._ensemble.patience

    def update(self, state: RewardFitState) -> None:
        """One step of all members, each on a batch of its own resample."""
        losses = self.losses(state.model, self._rng.at("batch", state.updates))
        flat = state.model.body.net.flat
        flat.grad = None
        # Summed over members: the gradient of one does not depend on how many there are.
        losses.sum().backward()
        state.optimiser.step()
        state.updates += 1
        config = self._ensemble
        if state.updates % config.look_interval == 0 or state.updates == config.max_updates:
            self._look(state)

    def best(self, state: RewardFitState) -> RewardEnsemble:
        """The members at their best looks, in the units in which they were fitted, without gradients."""
        model = copy.deepcopy(state.model)
        with torch.no_grad():
            model.body.net.flat.copy_(state.best)
        return model.requires_grad_(requires_grad=False)

    def _look(self, state: RewardFitState) -> None:
        loss = self.left_out_losses(state.model)
        if not bool(loss.isfinite().all()):
            raise NonFiniteError(
                f"The reward model is not finite after update {state.updates}. Remedy: lower learning_rate."
            )
        is_better = loss < state.best_loss * (1 - 1e-3)
        state.best = torch.where(is_better[:, None], state.model.body.net.flat.detach(), state.best)
        state.best_loss = torch.where(is_better, loss.to(state.best_loss.dtype), state.best_loss)
        state.stale = 0 if bool(is_better.any()) else state.stale + 1
        state.history.append(float(loss.mean()))


def resample(
    count: int, members: int, generator: torch.Generator
) -> tuple[Int[Tensor, "e n"], Bool[Tensor, "e n"]]:
    """What each member draws from, with replacement, and which of all it never sees."""
    draws = torch.randint(count, (members, count), generator=generator)
    seen = torch.zeros(members, count, dtype=torch.bool)
    return draws, ~seen.scatter(1, draws, value=True)


def left_out_means(losses: Float[Tensor, "e n"], left_out: Bool[Tensor, "e n"]) -> Float[Tensor, "e"]:
    """Each member's mean loss over what it left out; over all, where that is nothing (of very few)."""
    share = torch.where(left_out.any(1, keepdim=True), left_out, torch.ones_like(left_out)).double()
    return (losses * share).sum(1) / share.sum(1)


def fit_reward(
    fit: EnsembleFit,
    state: RewardFitState | None = None,
    *,
    on_look: Callable[[RewardFitState], None] | None = None,
) -> RewardEnsemble:
    """Runs a fit to its end.

    Args:
        fit: what is asked.
        state: to go on from; fresh networks when None.
        on_look: told of the state after each look at what members left out.

    Raises:
        NonFiniteError: the networks diverged.
    """
    state = fit.start() if state is None else state
    while not fit.is_done(state):
        looks = len(state.history)
        fit.update(state)
        if on_look is not None and len(state.history) > looks:
            on_look(state)
    return fit.finish(state)
