"""The density of logged actions by maximum likelihood, each episode scored by a network that never saw it.

An episode that a network has seen finds its actions likely and its ratios small. Densities refer to the
action scaled to [-1, 1].
"""

import dataclasses
import math
from typing import Annotated, Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.data.dataset import Dataset
from mbrl.data.normaliser import are_choices, fit_moments
from mbrl.nets.action_box import ActionBox
from mbrl.nets.actors import unsquash
from mbrl.nets.stack import StackedMLP
from mbrl.nets.widths import Hidden
from mbrl.off_policy.log.behaviour_heads import CategoricalHead, Head, MixtureHead
from mbrl.off_policy.log.layout import Array
from mbrl.off_policy.log.policies import CHUNK
from mbrl.ops.gaussian import tanh_log_det

BOUNDARY_MARGIN: Final = 1e-4
"""Distance from a bound of the box, of half its width, within which an action counts as lying on it."""

FLOOR_QUANTILE: Final = 1e-3
"""Fitted densities below this quantile are raised to it: one row that the fit finds absurd must not rule."""

_LEAST_BLOCKS: Final = 8  # blocks that are set aside by; of fewer episodes, pieces of them
_CHECK_SHARE: Final = 0.125  # share of them that stops a network
_CHECK_ROWS: Final = 2048  # rows that it is stopped by
_FORBIDDEN: Final = -1e4  # finite: 0 times minus infinity is no number
_LOOK: Final = 50  # updates between two looks at them

Family: TypeAlias = Literal["gaussian", "mixture", "categorical"]


class BehaviourConfig(BaseModel):
    """Maximum-likelihood fit of the behaviour policy.

    Attributes:
        family: `gaussian` and `mixture` are squashed to the box, `categorical` is for one-hot actions; `auto`
            takes that for one-hot actions, else the better of the two on held-out episodes.
        folds: parts of the episodes, each scored by the network that was fitted to the others.
        components: of the mixture.
        hidden: widths of the hidden layers.
        learning_rate: Adam step size at the start; it falls to 0 along a cosine.
        batch_size: rows of each fold's network in an update.
        updates: gradient steps; the best on an eighth of the training episodes is kept.
        seed: of all draws. The fit depends on the log alone, so all candidates meet the same behaviour.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    family: Literal["auto", "gaussian", "mixture", "categorical"] = "auto"
    folds: Annotated[int, Field(ge=2, le=50)] = 5
    components: Annotated[int, Field(ge=2, le=100)] = 5
    hidden: Hidden = (64, 64)
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-3
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    updates: Annotated[int, Field(ge=1, le=1_000_000)] = 800
    seed: Annotated[int, Field(ge=0)] = 0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class BehaviourFit:
    """A fitted behaviour on its log.

    Attributes:
        family: of the density.
        log_prob: `[N]` nats, of every logged action given its state, floored.
        fold: `[N]`, the fold of each row; its network saw none of the rows of the fold.
        nll: mean held-out negative log-likelihood in nats, before the floor.
        calibration_error: largest Kolmogorov-Smirnov distance of the probability integral transforms of a
            dimension from uniform, or the expected calibration error of one-hot actions.
        floored_rows: rows whose density was raised.
        boundary_share: share of rows with an action at a bound; 0 for one-hot actions.
    """

    family: Family
    log_prob: Array
    fold: NDArray[np.int64]
    nll: float
    calibration_error: float
    floored_rows: int
    boundary_share: float


def fit_behaviour(
    dataset: Dataset, *, config: BehaviourConfig | None = None, generator: torch.Generator
) -> BehaviourFit:
    """Fits `log b(a|s)` by maximum likelihood, each episode scored by a network that never saw it.

    With fewer episodes than folds there are as many folds as episodes; a single one is cut into two blocks of
    time. All folds are trained side by side, ten thousand rows in a few seconds.

    Args:
        dataset: logged episodes.
        config: of the fit.
        generator: source of all draws.
    """
    config = config or BehaviourConfig()
    is_discrete = config.family == "categorical"
    if config.family == "auto":
        is_discrete = dataset.spec.is_discrete or is_one_hot(dataset)
    # 1. What is seen and what must be likely, and which network trains on, stops by and scores which rows.
    rows = _Rows.prepare(dataset, is_discrete=is_discrete)
    folds = _draw_folds(dataset, config.folds, generator)
    # 2. Every family is fitted across the folds; the likeliest on held-out rows is taken.
    heads = _heads(config, rows.target.shape[1], is_discrete=is_discrete)
    scored: list[tuple[Family, Array, float]] = [
        (name, *_cross_fit(head, rows, folds, config, generator)) for name, head in heads.items()
    ]
    family, log_prob, error = max(scored, key=lambda found: found[1].mean())
    # 3. A density in the denominator of a ratio must not be a number that one absurd row decided.
    floor = np.quantile(log_prob, FLOOR_QUANTILE)
    return BehaviourFit(
        family,
        log_prob=np.maximum(log_prob, floor),
        fold=folds.fold,
        nll=-float(log_prob.mean()),
        calibration_error=error,
        floored_rows=int((log_prob < floor).sum()),
        boundary_share=rows.boundary_share,
    )


def is_one_hot(dataset: Dataset) -> bool:
    """Whether every logged action is a one-hot vector, a choice among finitely many."""
    return are_choices(dataset.transitions().action)


@dataclasses.dataclass(frozen=True, slots=True)
class _Rows:
    """What the networks see and what they must find likely."""

    obs: Tensor  # [n, o]
    target: Tensor  # [n, d]: actions before squashing, or one-hot
    log_det: Tensor  # [n], what turns a density of the target into one of the scaled action
    boundary_share: float
    mask: Tensor | None = None  # [n, d], the choices that were allowed

    @classmethod
    def prepare(cls, dataset: Dataset, *, is_discrete: bool) -> "_Rows":
        transitions = dataset.transitions()
        obs, action = torch.tensor(transitions.observation), torch.tensor(transitions.action)
        if is_discrete:
            mask = transitions.action_mask
            allowed = None if mask is None else torch.tensor(mask)
            return cls(obs, action, torch.zeros(len(obs)), 0.0, allowed)
        # Gaussians live on the line: the target is the action before tanh squashed it.
        scaled = ActionBox(dataset.spec).scale(action)
        target = unsquash(scaled)
        at_bound = float((scaled.abs() > 1 - BOUNDARY_MARGIN).any(-1).double().mean())
        return cls(obs, target, tanh_log_det(target), at_bound)

    def forbid(self, out: Tensor, index: Tensor) -> Tensor:
        """Outputs with logits of -10,000 where a choice was not allowed: a probability of exactly 0."""
        return out if self.mask is None else out.masked_fill(~self.mask[index], _FORBIDDEN)


@dataclasses.dataclass(frozen=True, slots=True)
class _Folds:
    """Which rows each network trains on, stops by, and scores."""

    fold: NDArray[np.int64]  # [n]
    train: list[Tensor]
    check: list[Tensor]

    @property
    def count(self) -> int:
        return len(self.train)


def _draw_folds(dataset: Dataset, wanted: int, generator: torch.Generator) -> _Folds:
    unit = _units(dataset, least=2)
    count = min(wanted, int(unit.max()) + 1)
    fold = (_shuffled(int(unit.max()) + 1, generator) % count)[unit]
    block = _units(dataset, least=_LEAST_BLOCKS)
    train: list[Tensor] = []
    check: list[Tensor] = []
    for index in range(count):
        # An eighth of what a network may see is set aside to stop it, by whole blocks.
        seen = np.flatnonzero(fold != index)
        blocks = np.unique(block[seen])
        held = blocks[_shuffled(len(blocks), generator)][: math.ceil(_CHECK_SHARE * len(blocks))]
        is_held = np.isin(block[seen], held) & (len(blocks) > 1)
        train.append(torch.from_numpy(seen[~is_held]))
        check.append(torch.from_numpy(seen[is_held] if is_held.any() else seen))
    return _Folds(fold, train, check)


def _units(dataset: Dataset, *, least: int) -> NDArray[np.int64]:
    """`[n]`, the episode of each row; with fewer than `least`, blocks of time that make up for it."""
    rows, lengths = dataset.transitions(), dataset.episode_lengths
    # Step t of an episode of length T lies in piece floor(t k / T) of k.
    pieces = math.ceil(least / len(dataset))
    piece = rows.step * pieces // lengths[rows.episode]
    return np.unique(rows.episode * pieces + piece, return_inverse=True)[1]


def _shuffled(count: int, generator: torch.Generator) -> NDArray[np.int64]:
    return torch.randperm(count, generator=generator).numpy()


def _heads(config: BehaviourConfig, act_dim: int, *, is_discrete: bool) -> dict[Family, Head]:
    if is_discrete:
        return {"categorical": CategoricalHead(act_dim)}
    heads: dict[Family, Head] = {
        "gaussian": MixtureHead(act_dim, 1),
        "mixture": MixtureHead(act_dim, config.components),
    }
    return {name: head for name, head in heads.items() if config.family in {"auto", name}}


@dataclasses.dataclass(frozen=True, slots=True)
class _Scale:
    """Moments of each fold's training rows, `[folds, 1, d]`."""

    mean: Tensor
    std: Tensor

    @classmethod
    def fit(cls, values: Tensor, parts: list[Tensor]) -> "_Scale":
        moments = [fit_moments(values[part].numpy()) for part in parts]
        mean, std = (
            torch.from_numpy(np.stack(column)).float()[:, None] for column in zip(*moments, strict=True)
        )
        return cls(mean, std)

    @classmethod
    def identity(cls, folds: int, size: int) -> "_Scale":
        return cls(torch.zeros(folds, 1, size), torch.ones(folds, 1, size))

    def apply(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std

    def of_fold(self, index: int) -> "_Scale":
        return _Scale(self.mean[index], self.std[index])


def _cross_fit(
    head: Head, rows: _Rows, folds: _Folds, config: BehaviourConfig, generator: torch.Generator
) -> tuple[Array, float]:
    """Held-out log-density of every row, and the calibration error."""
    seen = _Scale.fit(rows.obs, folds.train)
    if isinstance(head, CategoricalHead):
        done = _Scale.identity(folds.count, rows.target.shape[1])
    else:
        done = _Scale.fit(rows.target, folds.train)
    net = _train(head, rows, (seen, done), folds, config, generator)
    log_prob = np.zeros(len(rows.obs))
    transformed: list[Array] = []
    for index in range(folds.count):
        member = net.select(torch.tensor([index]))
        obs_scale, target_scale = seen.of_fold(index), done.of_fold(index)
        # log b(a) of the scaled action is that of the target less log |da / dtarget|: the squash, and the
        # deviations by which targets were divided.
        volume = rows.log_det.double() + target_scale.std.double().log().sum()
        scored = torch.from_numpy(np.flatnonzero(folds.fold == index))
        for start in range(0, len(scored), CHUNK):
            part = scored[start : start + CHUNK]
            with torch.no_grad():
                out = rows.forbid(member(obs_scale.apply(rows.obs[part]))[0], part)
                target = target_scale.apply(rows.target[part])
                log_prob[part.numpy()] = (head.log_prob(out, target).double() - volume[part]).numpy()
                transformed.append(head.transform(out, target).double().numpy())
    return log_prob, head.calibration_error(np.concatenate(transformed))


def _train(
    head: Head,
    rows: _Rows,
    scales: tuple[_Scale, _Scale],
    folds: _Folds,
    config: BehaviourConfig,
    generator: torch.Generator,
) -> StackedMLP:
    """One network for each fold, each at its best on its own check rows."""
    net = StackedMLP(
        folds.count, rows.obs.shape[1], config.hidden, head.size, generator=generator, activation="silu"
    )
    optimiser = torch.optim.Adam([net.flat], lr=config.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.updates)
    check = torch.stack([_spread(part, _CHECK_ROWS) for part in folds.check])
    best, best_nll = net.flat.detach().clone(), torch.full((folds.count,), math.inf)

    def nll(index: Tensor) -> Tensor:
        out, target = net(scales[0].apply(rows.obs[index])), scales[1].apply(rows.target[index])
        out = rows.forbid(out, index)
        return -head.log_prob(out.flatten(0, 1), target.flatten(0, 1)).view(index.shape).mean(1)

    for update in range(config.updates):
        shape = (config.batch_size,)
        # Each network draws from its own rows; the sum of losses fits all of them at once.
        drawn = [part[torch.randint(len(part), shape, generator=generator)] for part in folds.train]
        optimiser.zero_grad(set_to_none=True)
        nll(torch.stack(drawn)).sum().backward()
        optimiser.step()
        schedule.step()
        # Each is kept at its best on its check rows.
        if (update + 1) % _LOOK == 0 or update + 1 == config.updates:
            with torch.no_grad():
                now = nll(check)
            is_better = now < best_nll
            best_nll = torch.where(is_better, now, best_nll)
            best[is_better] = net.flat.detach()[is_better]
    with torch.no_grad():
        net.flat.copy_(best)
    return net


def _spread(part: Tensor, most: int) -> Tensor:
    """`most` of the rows, equally spaced, repeated where there are fewer."""
    return part[torch.arange(most) * len(part) // most]
