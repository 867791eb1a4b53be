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
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import DiscretePolicy, Policy
from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.normaliser import fit_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP
from mbrl.ope.ensembles import ensemble_estimate
from mbrl.ope.layout import Array
from mbrl.ope.policies import action_probabilities, draw_actions
from mbrl.ope.value_net import QEnsemble, RewardScale, discounted_steps
from mbrl.ops.polyak import polyak_update

MAX_DRIFT: Final = 0.02
"""Relative movement of the estimate over the last fifth of the updates that counts as standing still."""

MAX_CLIP_SHARE: Final = 0.01
_LAST_PART: Final = 0.2
_LOOKS: Final = 50
_DRAW_BLOCK: Final = 64
_WATCHED_STARTS: Final = 512

OnUpdate: TypeAlias = Callable[[int, float], None]
"""`(updates done, present estimate)`."""


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
    """

    values: QEnsemble
    policy: Policy
    initial: Array
    history: Array
    drift: float
    clip_share: float
    config: FQEConfig
    estimand: Estimand

    @property
    def converged(self) -> bool:
        """Whether the estimate stood still."""
        return self.drift < MAX_DRIFT

    @property
    def least_updates(self) -> int:
        """Updates below which standing still proves nothing: the discounted steps of the horizon over tau.

        Target networks need `1 / polyak_tau` updates to follow, and carry a value one step further each time.
        """
        steps = self.estimand.weight_sum  # endless where every episode surely ends: then no horizon is known
        return round((steps if math.isfinite(steps) else 1.0) / self.config.polyak_tau)

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
            estimate = estimate.flagged("targets_clipped")
        if not self.converged:
            estimate = estimate.invalidated(f"it still moved by {self.drift:.1%} at the end", "not_converged")
        if self.config.updates < self.least_updates:
            reason = (
                f"{self.config.updates} updates cannot carry values over the horizon, which takes about "
                f"{self.least_updates}"
            )
            estimate = estimate.invalidated(reason, "too_few_updates")
        if self.config.loss == "huber":
            estimate = estimate.invalidated("a Huber loss does not estimate a mean", "huber")
        return estimate

    def on_log(self, dataset: Dataset, *, generator: torch.Generator) -> tuple[Array, Array]:
        """Q of every logged step `[N]` and V of every logged state `[N + n]`, means over members.

        Args:
            dataset: episodes of the same task.
            generator: draws the actions of a stochastic policy.
        """
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
        return action_value.mean(0).numpy(), value.mean(0).numpy()

    def choices(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """Draws, or probabilities, of the policy's actions for `QEnsemble.value`."""
        return _choices(self.policy, obs, self.config, generator)


def fit_fqe(
    dataset: Dataset,
    policy: Policy,
    *,
    estimand: Estimand,
    config: FQEConfig,
    generator: torch.Generator,
    on_update: OnUpdate | None = None,
) -> FQEResult:
    """Fits `Q(s, a) = r + g (1 - terminated) E_{a'~pi} Q(s', a')` to the log, K times.

    Args:
        dataset: at least two episodes.
        policy: whose value is wanted.
        estimand: discount and horizon.
        config: of the fit.
        generator: source of all draws.
        on_update: told of the estimate now and then.

    Raises:
        DataError: fewer than two episodes, or actions of another size than the policy's.
    """
    if len(dataset) < 2:
        raise DataError(f"FQE needs two episodes or more, dataset {dataset.info.name!r} has {len(dataset)}")
    if dataset.spec.act_dim != policy.act_dim:
        raise DataError(
            f"the policy's actions have {policy.act_dim} dimensions, the log's {dataset.spec.act_dim}",
            field="actions",
        )
    if config.loss == "huber":
        warnings.warn("a Huber loss does not estimate a mean; the result is invalid", stacklevel=2)
    transitions = dataset.transitions()
    mean, std = fit_moments(transitions.observation)
    values = QEnsemble(
        config.members,
        dataset.spec,
        config.hidden,
        normaliser=Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
        scale=_reward_scale(transitions, estimand),
        estimand=estimand,
        is_discrete=isinstance(policy, DiscretePolicy),
        layer_norm=config.layer_norm,
        generator=generator,
    )
    rows = _Rows.prepare(values, transitions, policy, config, generator)
    first = torch.from_numpy(np.stack([episode.observations[0] for episode in dataset.episodes]))
    starts = _Starts.prepare(values, first, _choices(policy, first, config, generator))
    history, clip_share = _fit(values, rows, starts, dataset, config, generator, on_update)
    return FQEResult(
        values,
        policy,
        initial=starts.values(values).numpy(),
        history=history,
        drift=_drift(history, dataset, estimand),
        clip_share=clip_share,
        config=config,
        estimand=estimand,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """Everything that an update reads, ready for the network: gathering is all that is left."""

    features: Tensor  # [n, d] of (s, a)
    action: Tensor  # [n, a], for discrete actions
    next_obs: Tensor  # [n, o] normalised; with the only action of a deterministic policy, the whole input
    next_choices: Tensor | None  # [j, n, a] scaled draws, or [n, a] probabilities; None if in `next_obs`
    reward: Tensor  # [n], scaled
    mask: Tensor  # [n], 1 where the value goes on

    @classmethod
    def prepare(
        cls,
        values: QEnsemble,
        transitions: Transitions,
        policy: Policy,
        config: FQEConfig,
        generator: torch.Generator,
    ) -> "_Rows":
        obs, action = torch.tensor(transitions.observation), torch.tensor(transitions.action)
        next_raw = torch.tensor(transitions.next_observation)
        choices = _choices(policy, next_raw, config, generator)
        next_obs, next_choices = values.normaliser(next_raw), None
        if values.is_discrete:
            next_choices = choices
        elif choices.shape[0] == 1:
            next_obs = torch.cat([next_obs, values.action_box.scale(choices[0])], -1)
        else:
            next_choices = values.action_box.scale(choices)
        reward = (
            torch.tensor(transitions.reward, dtype=torch.float64) - values.scale.mean
        ) / values.scale.std
        mask = torch.from_numpy(~transitions.terminated).float()
        return cls(values.features(obs, action), action, next_obs, next_choices, reward.float(), mask)

    def __len__(self) -> int:
        return self.reward.shape[0]

    def predictions(self, values: QEnsemble, index: Tensor, to_go: Tensor | None) -> Tensor:
        """`[k, b]`, differentiable."""
        out = values.net(values.with_clock(self.features[index], to_go))
        return (out * self.action[index]).sum(-1) if values.is_discrete else out.squeeze(-1)

    def next_values(
        self,
        values: QEnsemble,
        target: StackedMLP,
        index: Tensor,
        to_go: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        """`[k, b]`, of each member's own target network."""
        inputs = self.next_obs[index]
        if self.next_choices is not None and not values.is_discrete:
            draw = torch.randint(self.next_choices.shape[0], index.shape, generator=generator)
            inputs = torch.cat([inputs, self.next_choices[draw, index]], -1)
        inputs = values.with_clock(inputs, None if to_go is None else to_go - 1)
        with torch.no_grad():
            out = target(inputs)
        if values.is_discrete and self.next_choices is not None:
            return (out * self.next_choices[index]).sum(-1)
        return out.squeeze(-1)


@dataclasses.dataclass(frozen=True, slots=True)
class _Starts:
    """First states of all episodes with what the policy does there."""

    obs: Tensor
    choices: Tensor
    to_go: Tensor | None

    @classmethod
    def prepare(cls, values: QEnsemble, obs: Tensor, choices: Tensor) -> "_Starts":
        horizon = values.estimand.horizon
        return cls(obs, choices, None if horizon is None else torch.full((len(obs),), horizon))

    def values(self, values: QEnsemble) -> Tensor:
        return values.value(self.obs, self.choices, self.to_go)

    def some(self, count: int) -> "_Starts":
        """About `count` of them, equally spaced."""
        step = max(1, len(self.obs) // count)
        choices = self.choices[::step] if self.choices.dim() == 2 else self.choices[:, ::step]
        return _Starts(self.obs[::step], choices, None if self.to_go is None else self.to_go[::step])


def _fit(
    values: QEnsemble,
    rows: _Rows,
    starts: _Starts,
    dataset: Dataset,
    config: FQEConfig,
    generator: torch.Generator,
    on_update: OnUpdate | None,
) -> tuple[Array, float]:
    """Trains `values`; returns the history of the estimate and the clipped share of the late targets."""
    members = _member_rows(dataset, config, generator)
    flat = values.net.flat
    target = copy.deepcopy(values.net)
    optimiser = torch.optim.AdamW(
        [flat], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    bounds = _target_bounds(dataset, values) if config.clip_targets else None
    watched, look = starts.some(_WATCHED_STARTS), max(1, config.updates // _LOOKS)
    late = config.updates - math.ceil(_LAST_PART * config.updates)
    history: list[float] = []
    clipped, counted = torch.zeros((), dtype=torch.float64), 0
    index, discount = torch.empty(0), values.estimand.discount
    for update in range(config.updates):
        if update % _DRAW_BLOCK == 0:
            index = _draw_rows(members, config.batch_size, generator)
        batch = index[update % _DRAW_BLOCK]
        to_go = None
        mask = rows.mask[batch] * discount
        if values.estimand.horizon is not None:
            to_go = torch.randint(1, values.estimand.horizon + 1, batch.shape, generator=generator)
            mask = mask * (to_go > 1)
        y = torch.addcmul(rows.reward[batch], mask, rows.next_values(values, target, batch, to_go, generator))
        if bounds is not None:
            inside = bounds.clip(y, to_go)
            if update >= late:
                clipped += (inside != y).double().mean()
                counted += 1
            y = inside
        prediction = rows.predictions(values, batch, to_go)
        if config.loss == "mse":
            loss = (prediction - y).square().mean(1).sum()
        else:
            loss = torch.nn.functional.huber_loss(prediction, y, reduction="none").mean(1).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        polyak_update(target.flat, flat, polyak_tau=config.polyak_tau)
        if (update + 1) % look == 0:
            history.append(float(watched.values(values).mean()))
            if on_update is not None:
                on_update(update + 1, history[-1])
    return np.array(history), float(clipped) / max(counted, 1)


def _member_rows(dataset: Dataset, config: FQEConfig, generator: torch.Generator) -> list[Tensor]:
    """For each member the rows of its resample of the episodes, with repetition."""
    n, episode = len(dataset), torch.from_numpy(dataset.transitions().episode.copy())
    everything = torch.arange(len(episode))
    if not config.bootstrap:
        return [everything] * config.members
    parts: list[Tensor] = []
    for _ in range(config.members):
        counts = torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n)
        parts.append(torch.repeat_interleave(everything, counts[episode]))
    return parts


def _draw_rows(members: list[Tensor], batch_size: int, generator: torch.Generator) -> Tensor:
    """`[block, k, b]` row indices for a block of updates."""
    shape = (_DRAW_BLOCK, batch_size)
    drawn = [part[torch.randint(len(part), shape, generator=generator)] for part in members]
    return torch.stack(drawn, 1)


@dataclasses.dataclass(frozen=True, slots=True)
class _TargetBounds:
    """Least and largest scaled reward of a step (0 too where episodes can end), and the estimand."""

    low: float
    high: float
    estimand: Estimand

    def clip(self, target: Tensor, to_go: Tensor | None) -> Tensor:
        """Targets within `[low, high] * sum_t discount^t`, in scaled units."""
        if to_go is None:
            total = self.estimand.weight_sum
            return target.clamp(self.low * total, self.high * total)
        total = discounted_steps(to_go, self.estimand.discount).to(target.dtype)
        return torch.minimum(torch.maximum(target, self.low * total), self.high * total)


def _target_bounds(dataset: Dataset, values: QEnsemble) -> _TargetBounds | None:
    if math.isinf(values.estimand.weight_sum):
        return None
    transitions, scale = dataset.transitions(), values.scale
    low, high = (
        (float(end) - scale.mean) / scale.std for end in (transitions.reward.min(), transitions.reward.max())
    )
    if bool(transitions.terminated.any()):
        low, high = min(0.0, low), max(0.0, high)
    slack = 1e-5 * max(abs(low), abs(high), 1e-3)
    return _TargetBounds(low - slack, high + slack, values.estimand)


def _reward_scale(transitions: Transitions, estimand: Estimand) -> RewardScale:
    reward = transitions.reward.astype(np.float64)
    std = float(reward.std()) or float(np.abs(reward).mean()) or 1.0
    is_endless = not transitions.terminated.any() and math.isfinite(estimand.weight_sum)
    return RewardScale(float(reward.mean()) if is_endless else 0.0, std)


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
