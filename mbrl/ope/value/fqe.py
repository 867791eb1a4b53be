"""Fitted Q evaluation: an ensemble of regressions on bootstrapped targets (Le et al. 2019, algorithm 3).

Departures: members are full regressions on resampled episodes with targets of their own, so their spread says
how little the log determines; a step uses one draw of the next action from a pool of a stochastic policy's
draws, since a squared loss averages over draws as it averages over rows.
"""

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand, Estimate, Flag
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.core.rng import RngStreams
from mbrl.core.types import StateDict
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.ope.log.layout import Array
from mbrl.ope.log.policies import action_probabilities, draw_actions
from mbrl.ope.statistics.ensembles import ensemble_estimate
from mbrl.ope.value.fqe_data import (
    DRAW_BLOCK,
    FirstStates,
    PreparedRows,
    draw_rows,
    member_rows,
    reward_scale,
    target_bounds,
)
from mbrl.ope.value.value_net import QEnsemble
from mbrl.ops.polyak import polyak_update

MAX_DRIFT: Final = 0.02
"""Relative movement of the estimate over the last fifth of the updates that counts as standing still."""

MAX_CLIP_SHARE: Final = 0.01
_LAST_PART: Final = 0.2
_LOOKS: Final = 50
_WATCHED_STARTS: Final = 512


class FQEConfig(BaseModel):
    """Fitted Q evaluation.

    Attributes:
        members: K, regressions; their spread needs at least 5.
        hidden: widths of the hidden layers; none is a linear function.
        layer_norm: LayerNorm in the hidden layers.
        learning_rate: AdamW step size.
        weight_decay: of AdamW.
        batch_size: rows of each member in an update.
        updates: gradient steps (DOPE runs a million).
        polyak_tau: share of the networks that enters the target networks in an update.
        action_samples: draws of a stochastic policy at each state; a deterministic one needs one.
        loss: `mse`; `huber` regresses to something other than the mean and makes the result invalid.
        clip_targets: clip targets to what the logged rewards permit.
        bootstrap: each member sees its own resample of the episodes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    members: Annotated[int, Field(ge=5, le=100)] = 5
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=12)] = (256, 256)
    layer_norm: bool = True
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-5
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    updates: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    action_samples: Annotated[int, Field(ge=10, le=1000)] = 10
    loss: Literal["mse", "huber"] = "mse"
    clip_targets: bool = True
    bootstrap: bool = True

    def least_updates(self, estimand: Estimand) -> int:
        """Updates below which standing still proves nothing: the discounted steps of the horizon over tau.

        Target networks need `1 / polyak_tau` updates to follow, and carry a value one step further each time.
        """
        steps = estimand.weight_sum  # endless where every episode surely ends: then no horizon is known
        return round((steps if math.isfinite(steps) else 1.0) / self.polyak_tau)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FQEResult:
    """What a fit found.

    Attributes:
        values: the action-value functions.
        policy: whose they are.
        initial: `[k, n]`, each member's value of each episode's first state.
        history: `[looks]`, the estimate in the course of the fit, equally spaced.
        drift: movement over the last fifth, relative to the estimate or the spread of logged returns.
        clip_share: share of the targets of the last fifth that were clipped.
        config: of the fit.
        estimand: what the values are of.
        fold: `[n]`, fold of every episode, member m having seen none of the fold `m % F`; None without.
    """

    values: QEnsemble
    policy: Policy
    initial: Array
    history: Array
    drift: float
    clip_share: float
    config: FQEConfig
    estimand: Estimand
    fold: NDArray[np.int64] | None = None

    @property
    def converged(self) -> bool:
        """Whether the estimate stood still."""
        return self.drift < MAX_DRIFT

    @property
    def least_updates(self) -> int:
        """See `FQEConfig.least_updates`."""
        return self.config.least_updates(self.estimand)

    def estimate(self) -> Estimate:
        """The ensemble's estimate; flagged where it moved, was clipped, or regressed to something else."""
        estimate = ensemble_estimate("fqe", "value", self.initial, self.estimand)
        estimate = dataclasses.replace(
            estimate,
            details={
                **estimate.details,
                "drift": self.drift,
                "clip_share": self.clip_share,
                "history": self.history,
            },
        )
        if not math.isfinite(estimate.point):
            return estimate
        if self.clip_share > MAX_CLIP_SHARE:
            estimate = estimate.flagged(Flag.TARGETS_CLIPPED)
        if not self.converged:
            estimate = estimate.invalidated(
                f"it still moved by {self.drift:.1%} at the end", Flag.NOT_CONVERGED
            )
        if self.config.updates < self.least_updates:
            reason = (
                f"{self.config.updates} updates cannot carry values over the horizon, which takes about "
                f"{self.least_updates}"
            )
            estimate = estimate.invalidated(reason, Flag.TOO_FEW_UPDATES)
        if self.config.loss == "huber":
            estimate = estimate.invalidated("a Huber loss does not estimate a mean", Flag.HUBER)
        return estimate

    def on_log(self, dataset: Dataset, *, generator: torch.Generator) -> tuple[Array, Array]:
        """Q of every logged step `[N]` and V of every logged state `[N + n]`, means over members.

        After a fit over folds an episode's values are those of the members that have not seen it.

        Args:
            dataset: episodes of the same task; after a fit over folds the very ones that were fitted.
            generator: draws the actions of a stochastic policy.

        Raises:
            ValueError: a fit over folds of other episodes.
        """
        return self.mean_on_log(*self.members_on_log(dataset, generator=generator), dataset)

    def members_on_log(self, dataset: Dataset, *, generator: torch.Generator) -> tuple[Array, Array]:
        """Each member's Q of every logged step `[k, N]` and V of every logged state `[k, N + n]`."""
        obs = torch.from_numpy(np.concatenate([e.observations for e in dataset.episodes]))
        rows, clocks = dataset.transitions(), [None, None]
        if self.estimand.horizon is not None:
            age = np.concatenate([np.arange(len(e) + 1) for e in dataset.episodes])
            clocks = [
                torch.from_numpy(np.maximum(self.estimand.horizon - steps, 0)) for steps in (rows.step, age)
            ]
        action_value = self.values.action_value(
            torch.tensor(rows.observation), torch.tensor(rows.action), clocks[0]
        )
        value = self.values.value(obs, self.choices(obs, generator), clocks[1])
        return action_value.numpy(), value.numpy()

    def mean_on_log(self, action_value: Array, value: Array, dataset: Dataset) -> tuple[Array, Array]:
        """`on_log` of what `members_on_log` gave."""
        lengths = dataset.episode_lengths
        return self._mean(action_value, lengths), self._mean(value, lengths + 1)

    def _mean(self, values: Array, lengths: NDArray[np.int64]) -> Array:
        """Over the members that have not seen a row's episode; over all without folds."""
        if self.fold is None:
            return values.mean(0)
        if len(lengths) != len(self.fold):
            raise ValueError(f"the fit knows {len(self.fold)} episodes, not {len(lengths)}")
        fold = np.repeat(self.fold, lengths)
        member = np.arange(len(values))[:, None] % (int(self.fold.max()) + 1)
        return values.mean(0, where=member == fold)

    def choices(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Draws, or probabilities, of the policy's actions for `QEnsemble.value`."""
        return _choices(self.policy, obs, self.config, generator)


@dataclasses.dataclass(slots=True, eq=False)
class FQEState:
    """All that updates change.

    Attributes:
        values: the action-value functions.
        target: each member's target network.
        optimiser: of all members.
        updates: that were made.
        history: the estimate in the course of the fit.
        clipped: sum over late updates of the share of clipped targets, float64.
    """

    values: QEnsemble
    target: StackedMLP
    optimiser: torch.optim.Optimizer
    updates: int = 0
    history: list[float] = dataclasses.field(default_factory=list[float])
    clipped: Tensor = dataclasses.field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def state_dict(self) -> StateDict:
        """Everything that the updates to come depend on, besides the fit; a copy."""
        return copy.deepcopy(
            {
                "net": self.values.net.state_dict(),
                "target": self.target.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "updates": self.updates,
                "history": self.history,
                "clipped": self.clipped,
            }
        )

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        state = copy.deepcopy(state)
        self.values.net.load_state_dict(state["net"])
        self.target.load_state_dict(state["target"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.updates, self.history, self.clipped = state["updates"], state["history"], state["clipped"]


OnLook: TypeAlias = Callable[[FQEState], None]
"""Told of the state whenever the history gains an entry, and at the end."""


class FQEFit:
    """Fits `Q(s, a) = r + g (1 - terminated) E_{a'~pi} Q(s', a')` to a log, K times, update by update.

    Like a learner it is immutable: what changes is the state. A draw depends on the streams and on the number
    of the update alone, so a fit that continues from a stored state repeats an uninterrupted one bit for bit.

    Args:
        dataset: at least two episodes.
        policy: whose value is wanted.
        estimand: discount and horizon.
        config: of the fit.
        rng: streams of the fit.
        fold: `[episodes]` 0..F-1; member m is then fitted without the fold `m % F`, so that some members can
            judge each episode without having seen it. None fits all to all.

    Raises:
        DataError: fewer than two episodes, or actions of another size than the policy's.
        ValueError: more folds than members.
    """

    def __init__(
        self,
        dataset: Dataset,
        policy: Policy,
        *,
        estimand: Estimand,
        config: FQEConfig,
        rng: RngStreams,
        fold: NDArray[np.int64] | None = None,
    ) -> None:
        _check(dataset, policy, config, fold)
        self._dataset, self._policy, self._rng, self._fold = dataset, policy, rng, fold
        self.config, self.estimand = config, estimand
        transitions = dataset.transitions()
        mean, std = fit_moments(transitions.observation)
        self._fresh = QEnsemble(
            config.members,
            dataset.spec,
            config.hidden,
            normaliser=Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
            scale=reward_scale(transitions, estimand),
            estimand=estimand,
            is_discrete=isinstance(policy, DiscretePolicy),
            layer_norm=config.layer_norm,
            generator=rng.at("init"),
        )
        next_obs = torch.tensor(transitions.next_observation)
        self._rows = PreparedRows.prepare(
            self._fresh, transitions, _choices(policy, next_obs, config, rng.at("next_actions"))
        )
        first = torch.from_numpy(np.stack([episode.observations[0] for episode in dataset.episodes]))
        choices = _choices(policy, first, config, rng.at("first_actions"))
        self._starts = FirstStates.prepare(self._fresh, first, choices)
        self._watched = self._starts.some(_WATCHED_STARTS)
        self._members = member_rows(
            dataset, config.members, generator=rng.at("episodes"), bootstrap=config.bootstrap, fold=fold
        )
        self._bounds = target_bounds(dataset, self._fresh) if config.clip_targets else None
        self._draws_actions = self._rows.next_choices is not None and not self._fresh.is_discrete
        self._block = (-1, torch.empty(0))

    def init(self) -> FQEState:
        """Fresh networks and optimiser."""
        values, config = copy.deepcopy(self._fresh), self.config
        optimiser = torch.optim.AdamW(
            [values.net.flat], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        return FQEState(values, copy.deepcopy(values.net), optimiser)

    def update(self, state: FQEState) -> None:
        """One gradient step of every member; changes `state` and nothing else."""
        values, step = state.values, state.updates
        horizon, generator = self.estimand.horizon, None
        batch, to_go = self._batch(step), None
        mask = self._rows.mask[batch] * self.estimand.discount
        if horizon is not None or self._draws_actions:
            generator = self._rng.at("update", step)
        if horizon is not None:
            to_go = torch.randint(1, horizon + 1, batch.shape, generator=generator)
            mask = mask * (to_go > 1)
        following = self._rows.next_values(values, state.target, batch, to_go, generator)
        y = torch.addcmul(self._rows.reward[batch], mask, following)
        if self._bounds is not None:
            inside = self._bounds.clip(y, to_go)
            if step >= self._late:
                state.clipped += (inside != y).double().mean()
            y = inside
        prediction = self._rows.predictions(values, batch, to_go)
        if self.config.loss == "mse":
            loss = (prediction - y).square().mean(1).sum()
        else:
            loss = torch.nn.functional.huber_loss(prediction, y, reduction="none").mean(1).sum()
        values.net.flat.grad = None
        loss.backward()
        state.optimiser.step()
        polyak_update(state.target.flat, values.net.flat, polyak_tau=self.config.polyak_tau)
        state.updates += 1
        if state.updates % max(1, self.config.updates // _LOOKS) == 0:
            state.history.append(float(self._watched.values(values).mean()))

    def result(self, state: FQEState) -> FQEResult:
        """What the fit has found so far."""
        history = np.array(state.history)
        return FQEResult(
            state.values,
            self._policy,
            initial=self._starts.values(state.values).numpy(),
            history=history,
            drift=_drift(history, self._dataset, self.estimand),
            clip_share=float(state.clipped) / max(state.updates - self._late, 1),
            config=self.config,
            estimand=self.estimand,
            fold=self._fold,
        )

    @property
    def _late(self) -> int:
        """The update with which the last fifth begins."""
        return self.config.updates - math.ceil(_LAST_PART * self.config.updates)

    def _batch(self, step: int) -> Tensor:
        """`[k, b]` row indices of an update, drawn with those of its block."""
        block, place = divmod(step, DRAW_BLOCK)
        if self._block[0] != block:
            drawn = draw_rows(self._members, self.config.batch_size, self._rng.at("batch", block))
            self._block = (block, drawn)
        return self._block[1][place]


def fit_fqe(
    dataset: Dataset,
    policy: Policy,
    *,
    estimand: Estimand,
    config: FQEConfig,
    generator: torch.Generator,
    fold: NDArray[np.int64] | None = None,
    resume_state: StateDict | None = None,
    on_look: OnLook | None = None,
) -> FQEResult:
    """Makes all updates of a `FQEFit`.

    Args:
        dataset: at least two episodes.
        policy: whose value is wanted.
        estimand: discount and horizon.
        config: of the fit.
        generator: gives the seed of its streams.
        fold: see `FQEFit`.
        resume_state: `FQEState.state_dict` of this very fit, to go on from.
        on_look: told of the state now and then, and at the end.

    Raises:
        DataError: see `FQEFit`.
    """
    rng = RngStreams(int(torch.randint(2**62, (), generator=generator)))
    fit = FQEFit(dataset, policy, estimand=estimand, config=config, rng=rng, fold=fold)
    state = fit.init()
    if resume_state is not None:
        state.load_state_dict(resume_state)
    while state.updates < config.updates:
        looks = len(state.history)
        fit.update(state)
        if on_look is not None and (len(state.history) > looks or state.updates == config.updates):
            on_look(state)
    return fit.result(state)


def _check(dataset: Dataset, policy: Policy, config: FQEConfig, fold: NDArray[np.int64] | None) -> None:
    if len(dataset) < 2:
        raise DataError(f"FQE needs two episodes or more, dataset {dataset.info.name!r} has {len(dataset)}")
    if dataset.spec.act_dim != policy.act_dim:
        raise DataError(
            f"the policy's actions have {policy.act_dim} dimensions, the log's {dataset.spec.act_dim}",
            field="actions",
        )
    if fold is not None and int(fold.max()) >= config.members:
        raise ValueError(f"{int(fold.max()) + 1} folds need as many members, not {config.members}")
    if config.loss == "huber":
        warnings.warn("a Huber loss does not estimate a mean; the result is invalid", stacklevel=3)


def _choices(policy: Policy, obs: Tensor, config: FQEConfig, generator: torch.Generator) -> Tensor:
    if isinstance(policy, DiscretePolicy):
        return action_probabilities(policy, obs)
    return draw_actions(policy, obs, count=config.action_samples, generator=generator)


def _drift(history: Array, dataset: Dataset, estimand: Estimand) -> float:
    late = history[-max(2, math.ceil(_LAST_PART * history.size)) :]
    returns = [
        float(e.rewards.astype(np.float64) @ estimand.discount ** np.arange(len(e))) for e in dataset.episodes
    ]
    unit = max(abs(float(late.mean())), float(np.std(returns)))
    return float(late.max() - late.min()) / unit if unit > 0 else 0.0
