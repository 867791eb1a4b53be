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
from typing import Final, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.device import CPU, on_device
from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.core.rng import RngStreams
from mbrl.core.types import StateDict
from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import fit_moments
from mbrl.data.transitions import state_masks
from mbrl.nets.moments import load_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.off_policy.value.fqe_data import (
    DRAW_BLOCK,
    FirstStates,
    PreparedRows,
    draw_rows,
    member_rows,
    reward_scale,
    target_bounds,
)
from mbrl.off_policy.value.fqe_result import LAST_PART, FQEResult, drift_of, policy_choices
from mbrl.off_policy.value.value_net import QEnsemble
from mbrl.ops.polyak import polyak_update

_LOOKS: Final = 50  # entries of the history
_WATCHED_STARTS: Final = 512  # first states behind an entry: a look is to cost little


@runtime_checkable
class FitValues(Protocol):
    """`fit_fqe`, or one that also keeps what it did, shows progress, and the like."""

    def __call__(
        self,
        dataset: Dataset,
        policy: Policy,
        *,
        estimand: Estimand,
        config: FQEConfig,
        generator: torch.Generator,
        fold: NDArray[np.int64] | None = None,
    ) -> FQEResult:
        """See `fit_fqe`."""
        ...


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
        """Inverse of `state_dict`.

        Raises:
            ValueError: a value is of another type or shape.
        """
        state = copy.deepcopy(state)
        if type(state["updates"]) is not int or state["clipped"].shape != () or state["updates"] < 0:
            raise ValueError("the fit's count of updates and clipped targets is none")
        self.values.net.load_state_dict(state["net"])
        self.target.load_state_dict(state["target"])
        load_moments(self.optimiser, state["optimiser"])
        self.updates = state["updates"]
        self.clipped.copy_(state["clipped"])
        self.history = [float(value) for value in state["history"]]


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
        rng: streams of the fit; updates are made on their device, whatever is asked of policy and log on the
            host.
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
        host, device = rng.host, rng.device
        values = _fresh_values(dataset, policy, estimand, config, host.at("init"))
        next_obs = torch.tensor(transitions.next_observation)
        # The pool of a'_i ~ pi(s'_i) is drawn once; an update takes one of it for each row.
        next_mask = (
            None if transitions.next_action_mask is None else torch.tensor(transitions.next_action_mask)
        )
        following = policy_choices(policy, next_obs, config, host.at("next_actions"), next_mask)
        self._rows = on_device(PreparedRows.prepare(values, transitions, following), device)
        first = torch.from_numpy(np.stack([episode.observations[0] for episode in dataset.logged_episodes]))
        masks = state_masks(dataset.logged_episodes, dataset.spec.act_dim)
        first_mask = None if masks is None else torch.from_numpy(np.stack([mask[0] for mask in masks]))
        choices = policy_choices(policy, first, config, host.at("first_actions"), first_mask)
        self._starts = FirstStates.prepare(values, first, choices)
        self._watched = on_device(self._starts.some(_WATCHED_STARTS), device)
        rows = member_rows(
            dataset, config.members, generator=host.at("episodes"), bootstrap=config.bootstrap, fold=fold
        )
        self._members = on_device(rows, device)
        self._polyak = config.polyak_share(estimand)
        self._bounds = target_bounds(dataset, values) if config.clip_targets else None
        self._draws_actions = self._rows.next_choices is not None and not values.is_discrete
        self._fresh = on_device(values, device)
        self._block = (-1, torch.empty(0))

    def init(self) -> FQEState:
        """Fresh networks and optimiser."""
        values, config = copy.deepcopy(self._fresh), self.config
        optimiser = torch.optim.AdamW(
            [values.net.flat], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        clipped = torch.zeros((), dtype=torch.float64, device=values.net.flat.device)
        return FQEState(values, copy.deepcopy(values.net), optimiser, clipped=clipped)

    def update(self, state: FQEState) -> None:
        """One gradient step of every member; changes `state` and nothing else."""
        # 1. Rows [k, b], each member's own.
        values, step = state.values, state.updates
        batch = self._batch(step)
        # 2. Targets y = r + g (1 - terminated) Q'_m(s', a'), a' ~ pi, by the member's own target network.
        y, to_go = self._targets(state, batch)
        # 3. Targets that no rewards of the log could bring about are clipped; late ones are counted.
        if self._bounds is not None:
            inside = self._bounds.clip(y, to_go)
            if step >= self._late:
                state.clipped += (inside != y).double().mean()
            y = inside
        # 4. Regression, mean over rows; summed over members, which share nothing.
        prediction, y = self._rows.predictions(values, batch, to_go), y / values.unit(to_go)
        if self.config.loss == "mse":
            loss = (prediction - y).square().mean(1).sum()
        else:
            loss = torch.nn.functional.huber_loss(prediction, y, reduction="none").mean(1).sum()
        values.net.flat.grad = None
        loss.backward()
        state.optimiser.step()
        # 5. Target networks follow: theta' <- (1 - tau) theta' + tau theta.
        polyak_update(state.target.flat, values.net.flat, polyak_tau=self._polyak)
        state.updates += 1
        if state.updates % max(1, self.config.updates // _LOOKS) == 0:
            state.history.append(float(self._watched.values(values).mean()))

    def _targets(self, state: FQEState, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bootstrapped targets `[k, b]`, and with a horizon the steps to go that they are of."""
        horizon, generator, to_go = self.estimand.horizon, None, None
        mask = self._rows.mask[batch] * self.estimand.discount
        if horizon is not None or self._draws_actions:
            generator = self._rng.at("update", state.updates)
        if horizon is not None:
            # Q_h(s, a) = r + g Q_{h-1}(s', a') for every h at once: a row serves any number of steps to go,
            # and with one step to go nothing follows.
            to_go = torch.randint(1, horizon + 1, batch.shape, generator=generator, device=batch.device)
            mask = mask * (to_go > 1)
        following = self._rows.next_values(state.values, state.target, batch, to_go, generator)
        return torch.addcmul(self._rows.reward[batch], mask, following), to_go

    def result(self, state: FQEState) -> FQEResult:
        """What the fit has found so far."""
        history, values = np.array(state.history), on_device(state.values, CPU)
        return FQEResult(
            values,
            self._policy,
            initial=self._starts.values(values).numpy(),
            history=history,
            drift=drift_of(history, self._dataset, self.estimand),
            clip_share=float(state.clipped) / max(state.updates - self._late, 1),
            config=self.config,
            estimand=self.estimand,
            fold=self._fold,
        )

    @property
    def _late(self) -> int:
        """The update with which the last fifth begins."""
        return self.config.updates - math.ceil(LAST_PART * self.config.updates)

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
    restore: Callable[[FQEState], bool] | None = None,
    on_look: OnLook | None = None,
    device: torch.device = CPU,
) -> FQEResult:
    """Makes all updates of a `FQEFit`.

    Args:
        dataset: at least two episodes.
        policy: whose value is wanted.
        estimand: discount and horizon.
        config: of the fit.
        generator: gives the seed of its streams.
        fold: see `FQEFit`.
        restore: loads the state of this very fit, interrupted, into a fresh one; False where there is none
            that fits, and whatever it did to the state is then undone.
        on_look: told of the state now and then, and at the end.
        device: where updates are made; the result lies on the host.

    Raises:
        DataError: see `FQEFit`.
    """
    rng = RngStreams(int(torch.randint(2**62, (), generator=generator)), device)
    fit = FQEFit(dataset, policy, estimand=estimand, config=config, rng=rng, fold=fold)
    state = fit.init()
    if restore is not None and not restore(state):
        state = fit.init()
    while state.updates < config.updates:
        looks = len(state.history)
        fit.update(state)
        if on_look is not None and (len(state.history) > looks or state.updates == config.updates):
            on_look(state)
    return fit.result(state)


def _fresh_values(
    dataset: Dataset, policy: Policy, estimand: Estimand, config: FQEConfig, generator: torch.Generator
) -> QEnsemble:
    """Action-value functions before the first update, with the scales of the log."""
    transitions = dataset.transitions()
    mean, std = fit_moments(transitions.observation)
    return QEnsemble(
        config.members,
        dataset.spec,
        config.hidden,
        normaliser=Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
        scale=reward_scale(transitions, estimand),
        estimand=estimand,
        is_discrete=isinstance(policy, DiscretePolicy),
        layer_norm=config.layer_norm,
        generator=generator,
    )


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
