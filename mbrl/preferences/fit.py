"""Fits a reward ensemble to preferences: Bradley-Terry on sums over segments, members side by side.

Source: Christiano et al. 2017 (arXiv:1706.03741), section 2.2.

Departures: members stop by the pairs that their own resampling left out, not by a share that is kept for
that: the pairs that are held out judge a model that they did not shape.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import Annotated, Final, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import DataError, NonFiniteError
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec, StateDict
from mbrl.nets.moments import load_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import ActivationName
from mbrl.nets.widths import Layers
from mbrl.ops.preferences import bradley_terry_loss
from mbrl.preferences.reward_model import RewardEnsemble, RewardMembers, RewardSpec
from mbrl.preferences.segments import SegmentPairs

LEAST_PAIRS: Final = 4
"""Answered pairs that a fit needs: some to learn from, some to judge by."""

_WATCHED: Final = 512
"""Most pairs behind a look at the pairs that members left out."""

_CHUNK_PAIRS: Final = 64


class RewardConfig(BaseModel):
    """How a reward model is fitted.

    Attributes:
        members: networks; what they dispute is what is not known.
        hidden: widths of their hidden layers; none makes the reward linear in states and actions.
        activation: of the hidden layers.
        layer_norm: LayerNorm in the hidden layers.
        learning_rate: Adam rate.
        weight_decay: of AdamW, per unit of the rate.
        batch_size: pairs of each member in an update.
        max_updates: most updates.
        look_interval: updates between two looks at the pairs that members left out.
        patience: looks without an improvement of any member before the end.
        holdout: share of the pairs that judge the model and never fit it.
        lapse: probability that an annotator answers at random; 0.1 in the paper, 0 where answers are clean.
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
    lapse: Annotated[float, Field(ge=0, lt=1)] = 0.0

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


class RewardFit:
    """The fit, update by update; immutable, what changes is the state.

    A draw depends on the streams and on the number of the update alone, so a fit that continues from a stored
    state repeats an uninterrupted one bit for bit.

    Args:
        pairs: that were answered, those that are held out included.
        config: of the fit.
        space: sizes and bounds of the log.
        normaliser: of its observations.
        rng: streams of the fit.

    Raises:
        DataError: there are too few pairs.
    """

    def __init__(
        self,
        pairs: SegmentPairs,
        config: RewardConfig,
        space: SpaceSpec,
        normaliser: Normaliser,
        rng: RngStreams,
    ) -> None:
        if len(pairs) < LEAST_PAIRS:
            raise DataError(
                f"{len(pairs)} pairs were answered, and a fit needs {LEAST_PAIRS} at least",
                remedy="Label more pairs: mbrl label LOG.",
            )
        self.config, self._space, self._normaliser, self._rng = config, space, normaliser, rng
        train, holdout = split_pairs(pairs, config.holdout, rng.at("holdout"))
        self.train, self.holdout = pairs.take(train), pairs.take(holdout)
        self._draws, self._left_out = self._resample()

    def start(self) -> RewardFitState:
        """Fresh networks."""
        model = RewardEnsemble(self.config.spec(self._space), self._normaliser, self._rng.at("init"))
        flat = model.body.net.flat
        optimiser = torch.optim.AdamW(
            [flat], lr=self.config.learning_rate, weight_decay=self.config.weight_decay, fused=True
        )
        worst = torch.full((self.config.members,), torch.inf)
        return RewardFitState(model, optimiser, flat.detach().clone(), worst)

    def is_done(self, state: RewardFitState) -> bool:
        """Whether the last update was made, or all members ceased to improve."""
        return state.updates >= self.config.max_updates or state.stale >= self.config.patience

    def update(self, state: RewardFitState) -> None:
        """One step of all members, each on pairs of its own resample."""
        members, size = self.config.members, self.config.batch_size
        generator = self._rng.at("batch", state.updates)
        drawn = torch.randint(len(self.train), (members, size), generator=generator)
        pairs = self._draws.gather(1, drawn)
        batch = self.train.batch(pairs.reshape(-1))
        steps = batch.valid[0].numel() * size
        rewards = state.model.member_raw(
            batch.observation.reshape(members, steps, -1), batch.action.reshape(members, steps, -1)
        )
        valid = batch.valid.view(members, size, *batch.valid.shape[1:])
        sums: Tensor = (rewards.view(valid.shape) * valid).sum(-1)
        target = batch.target.view(members, size)
        losses = bradley_terry_loss(sums[..., 0], sums[..., 1], target, lapse=self.config.lapse).mean(1)
        flat = state.model.body.net.flat
        flat.grad = None
        # Summed over members: the gradient of one does not depend on how many there are.
        losses.sum().backward()
        state.optimiser.step()
        state.updates += 1
        if state.updates % self.config.look_interval == 0 or state.updates == self.config.max_updates:
            self._look(state)

    def finish(self, state: RewardFitState) -> RewardEnsemble:
        """The model of each member's best look, standardised over the log."""
        model = copy.deepcopy(state.model)
        with torch.no_grad():
            model.body.net.flat.copy_(state.best)
        model.requires_grad_(requires_grad=False)
        model.standardise(self.train.observation, self.train.action)
        return model

    def _look(self, state: RewardFitState) -> None:
        watched = torch.arange(min(len(self.train), _WATCHED))
        sums = segment_sums(state.model, self.train.take(watched))
        target = self.train.target[watched].expand(len(sums), -1)
        losses = bradley_terry_loss(sums[..., 0], sums[..., 1], target, lapse=self.config.lapse)
        left_out = self._left_out[:, watched]
        # A member that left nothing out, of very few pairs, is watched on all of them.
        counts = left_out.sum(1)
        share = torch.where(counts[:, None] > 0, left_out, torch.ones_like(left_out)).double()
        loss = (losses * share).sum(1) / share.sum(1)
        if not bool(loss.isfinite().all()):
            raise NonFiniteError(
                f"The reward model is not finite after update {state.updates}. Remedy: lower learning_rate."
            )
        is_better = loss < state.best_loss * (1 - 1e-3)
        state.best = torch.where(is_better[:, None], state.model.body.net.flat.detach(), state.best)
        state.best_loss = torch.where(is_better, loss.to(state.best_loss.dtype), state.best_loss)
        state.stale = 0 if bool(is_better.any()) else state.stale + 1
        state.history.append(float(loss.mean()))

    def _resample(self) -> tuple[Int[Tensor, "e n"], Bool[Tensor, "e n"]]:
        """Pairs that each member draws from, with replacement, and which of all it never sees."""
        count, members = len(self.train), self.config.members
        draws = torch.randint(count, (members, count), generator=self._rng.at("bootstrap"))
        seen = torch.zeros(members, count, dtype=torch.bool)
        return draws, ~seen.scatter(1, draws, value=True)


def split_pairs(
    pairs: SegmentPairs, share: float, generator: torch.Generator
) -> tuple[Int[Tensor, "n"], Int[Tensor, "m"]]:
    """Indices to learn from and to judge by; the same two segments, asked twice, stay on one side."""
    keys = _pair_keys(pairs)
    count = int(keys.max()) + 1
    order = torch.randperm(count, generator=generator, device=generator.device)
    held = max(1, round(share * count)) if count > 1 else 0
    is_held = torch.zeros(count, dtype=torch.bool)
    is_held[order[:held]] = True
    return (~is_held[keys]).nonzero()[:, 0], is_held[keys].nonzero()[:, 0]


def _pair_keys(pairs: SegmentPairs) -> Int[Tensor, "n"]:
    """A number for each pair of segments, whichever side they were shown on."""
    sides = torch.stack([pairs.rows[..., 0], pairs.valid.sum(-1)], -1)  # [n, 2, (first row, length)]
    listed = cast("list[list[list[int]]]", sides.tolist())
    ordered = np.array([sorted(pair) for pair in listed], dtype=np.int64).reshape(len(pairs), -1)
    return torch.from_numpy(np.unique(ordered, axis=0, return_inverse=True)[1].reshape(-1))


@torch.no_grad()
def segment_sums(model: RewardEnsemble, pairs: SegmentPairs) -> Float[Tensor, "e n 2"]:
    """Each member's sums of `f_i` over left and right, in the units in which it was fitted."""
    parts: list[Tensor] = []
    for start in range(0, len(pairs), _CHUNK_PAIRS):
        batch = pairs.batch(torch.arange(start, min(start + _CHUNK_PAIRS, len(pairs))))
        parts.append((model.raw(batch.observation, batch.action) * batch.valid).sum(-1))
    return torch.cat(parts, 1)


def fit_reward(
    fit: RewardFit,
    state: RewardFitState | None = None,
    *,
    on_look: Callable[[RewardFitState], None] | None = None,
) -> RewardEnsemble:
    """Runs a fit to its end.

    Args:
        fit: what is asked.
        state: to go on from; fresh networks when None.
        on_look: told of the state after each look at the pairs that members left out.

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
