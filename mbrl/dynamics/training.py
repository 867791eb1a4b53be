"""Minibatch training of stacked members, each with its own data order, early stop and snapshot."""

import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.errors import NonFiniteError
from mbrl.core.rng import RngStreams
from mbrl.core.types import StateDict
from mbrl.nets.moments import load_moments

_BLOCK_UPDATES = 32  # batches that one gather fetches
_COOLDOWN_SHARE = 4  # the cool-down is one part in this many of the updates before it
_EVALUATION_ROWS = 1024  # rows of one forward pass: the activations of all members then stay in the cache


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingArrays:
    """Network inputs and targets, normalised, made once; members share them through index lists.

    Attributes:
        inputs: `[n, in]`.
        targets: `[n, k]`.
        holdout_inputs: `[m, in]`.
        holdout_targets: `[m, k]`.
    """

    inputs: Float[Tensor, "n in"]
    targets: Float[Tensor, "n k"]
    holdout_inputs: Float[Tensor, "m in"]
    holdout_targets: Float[Tensor, "m k"]

    def holdout_blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Held-out inputs and targets, a cacheful at a time."""
        for start in range(0, self.holdout_inputs.shape[0], _EVALUATION_ROWS):
            rows = slice(start, start + _EVALUATION_ROWS)
            yield self.holdout_inputs[rows], self.holdout_targets[rows]


@dataclasses.dataclass(frozen=True, slots=True)
class EpochRecord:
    """What an epoch saw.

    Attributes:
        updates: gradient steps so far.
        train_loss: mean loss of each member over the epoch.
        holdout_error: error of each member at its end.
    """

    updates: int
    train_loss: list[float]
    holdout_error: list[float]


def as_floats(values: Tensor) -> list[float]:
    """A 1-d tensor as Python numbers."""
    return cast(list[float], values.tolist())


@runtime_checkable
class Objective(Protocol):
    """A stacked network and what it minimises. Row i of every parameter belongs to member i."""

    def parameters(self) -> list[Tensor]:
        """Leaves with a leading member axis."""
        ...

    def loss(self, inputs: Float[Tensor, "e b in"], targets: Float[Tensor, "e b k"]) -> Float[Tensor, "e"]:
        """Training loss of each member."""
        ...

    def add_decay(self) -> None:
        """Adds the gradient of the weight penalty, after the backward pass."""
        ...

    def holdout_error(self, arrays: TrainingArrays) -> Float[Tensor, "e"]:
        """What early stopping watches, non-negative, float64."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """How long to train, and how fast.

    Attributes:
        max_updates: most gradient steps.
        epoch_updates: gradient steps between two looks at the holdout.
        batch_size: rows of each member in a step.
        learning_rate: Adam step size at the start.
        decay: `cosine` lowers the step size to zero over `max_updates`; `constant` keeps it.
        patience: epochs without an improvement of any member before the end, or before the cool-down.
        improvement: relative decrease that counts as an improvement.
        bootstrap: members resample the rows with replacement, once.
    """

    max_updates: int
    epoch_updates: int
    batch_size: int
    learning_rate: float
    decay: Literal["constant", "cosine"]
    patience: int
    improvement: float
    bootstrap: bool

    def rate(self, update: int) -> float:
        """Adam step size at `update`."""
        if self.decay == "constant":
            return self.learning_rate
        return self.learning_rate * _cosine(update / self.max_updates)


def _cosine(share: float) -> float:
    """`(1 + cos(pi x)) / 2`, from 1 at x = 0 to 0 at x = 1 (Loshchilov & Hutter 2017, eq. 5)."""
    return 0.5 * (1.0 + math.cos(math.pi * share))


class MemberTrainer:
    """Trains all members side by side; the draws of update u depend on the seed and on u alone.

    Where patience ends before the step size has come down, the snapshots are put back and train for another
    quarter of the updates while it falls to zero (cool-down): to stop at a large step size would forgo most
    of the gain of annealing, on small data above all.

    Members that stopped improving go on training until all have: their snapshots are safe, and one batched
    product over all members costs less than regrouping them.

    Args:
        objective: network and loss; its parameters are changed in place.
        arrays: data.
        schedule: length, rates, stopping rule.
        rng: streams of this training.
    """

    def __init__(
        self, objective: Objective, arrays: TrainingArrays, schedule: Schedule, rng: RngStreams
    ) -> None:
        self._objective, self._arrays, self._schedule, self._rng = objective, arrays, schedule, rng
        self._parameters = objective.parameters()
        self._optimiser = torch.optim.Adam(self._parameters, lr=schedule.learning_rate, fused=True)
        self._members = self._parameters[0].shape[0]
        self._batch = min(schedule.batch_size, arrays.inputs.shape[0])
        self._bootstrap = self._draw_bootstrap() if schedule.bootstrap else None
        self.updates = 0
        self.stale_epochs = 0
        self.cooldown: tuple[int, int] | None = None  # updates at which it starts and stops
        device = self._parameters[0].device
        self.best = torch.full((self._members,), torch.inf, dtype=torch.float64, device=device)
        self.snapshots = [parameter.detach().clone() for parameter in self._parameters]
        self.history: list[EpochRecord] = []

    @property
    def max_updates(self) -> int:
        """Most updates that this training will make; fewer where it stops early."""
        return self._schedule.max_updates if self.cooldown is None else self.cooldown[1]

    @property
    def is_done(self) -> bool:
        """No update is left, or no member has improved for `patience` epochs and the cool-down is over."""
        if self.cooldown is not None:
            return self.updates >= self.cooldown[1]
        return self.updates >= self._schedule.max_updates or self.stale_epochs >= self._schedule.patience

    def run_epoch(self) -> None:
        """Trains to the next look at the holdout, and takes snapshots of the members that improved.

        Raises:
            NonFiniteError: the loss of a member is NaN or infinite.
        """
        stop = min(self.updates + self._schedule.epoch_updates, self.max_updates)
        total = torch.zeros(self._members, device=self.best.device)
        start = self.updates
        for inputs, targets in self._batches(start, stop):
            self._optimiser.param_groups[0]["lr"] = self._rate()
            loss = self._objective.loss(inputs, targets)
            self._optimiser.zero_grad()
            # The sum over members, not the mean: d(sum_e L_e)/d theta_e = dL_e/d theta_e, as if alone.
            torch.autograd.backward(loss.sum())
            # L2 goes into the gradient, as in the published code, and not past Adam's scaling (AdamW).
            self._objective.add_decay()
            self._optimiser.step()
            total += loss.detach()
            self.updates += 1
        error = self._objective.holdout_error(self._arrays)
        self._check_finite(total, error)
        self._keep_improved(error)
        train_loss = as_floats(total / (stop - start))
        self.history.append(
            EpochRecord(updates=self.updates, train_loss=train_loss, holdout_error=as_floats(error))
        )
        self._maybe_cool_down()

    def ranking(self) -> Int[Tensor, "e"]:
        """Members by their least held-out error, the best first; on the host."""
        return torch.argsort(self.best.cpu())

    def restore_best(self) -> None:
        """Puts every member's own snapshot back."""
        with torch.no_grad():
            for parameter, snapshot in zip(self._parameters, self.snapshots, strict=True):
                parameter.copy_(snapshot)

    def state_dict(self) -> StateDict:
        """Everything that the epochs to come depend on."""
        return {
            "updates": self.updates,
            "stale_epochs": self.stale_epochs,
            "cooldown": self.cooldown,
            "best": self.best.clone(),
            "parameters": [parameter.detach().clone() for parameter in self._parameters],
            "snapshots": [snapshot.clone() for snapshot in self.snapshots],
            "optimiser": copy.deepcopy(self._optimiser.state_dict()),
            "history": [dataclasses.asdict(record) for record in self.history],
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`.

        Raises:
            ValueError: a tensor is of another shape.
        """
        shapes = [parameter.shape for parameter in self._parameters]
        for name in ("parameters", "snapshots"):
            if [value.shape for value in state[name]] != shapes or state["best"].shape != self.best.shape:
                raise ValueError(
                    f"{name} of the fit are not of the shapes {[list(shape) for shape in shapes]}"
                )
        self.updates, self.stale_epochs = int(state["updates"]), int(state["stale_epochs"])
        self.cooldown = None if state["cooldown"] is None else tuple(state["cooldown"])
        device = self.best.device
        self.best = state["best"].to(device, copy=True)
        self.snapshots = [snapshot.to(device, copy=True) for snapshot in state["snapshots"]]
        with torch.no_grad():
            for parameter, value in zip(self._parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        load_moments(self._optimiser, state["optimiser"])
        self.history = [EpochRecord(**record) for record in state["history"]]

    def _rate(self) -> float:
        if self.cooldown is None:
            return self._schedule.rate(self.updates)
        start, stop = self.cooldown
        # A second cosine, from wherever the first one was cut off: the step size has no jump.
        return self._schedule.rate(start) * _cosine((self.updates - start) / (stop - start))

    def _maybe_cool_down(self) -> None:
        schedule = self._schedule
        left = schedule.max_updates - self.updates
        is_stale = self.stale_epochs >= schedule.patience
        if schedule.decay == "constant" or self.cooldown is not None or not is_stale or left == 0:
            return
        # A quarter of the updates before, at least one epoch: 4 u / 5 at a high rate, u / 5 to settle.
        length = min(left, max(schedule.epoch_updates, self.updates // _COOLDOWN_SHARE))
        self.cooldown = (self.updates, self.updates + length)
        self.restore_best()

    def _keep_improved(self, error: Tensor) -> None:
        # Relative, as in Janner et al. 2019 (code): (best - error) / best > improvement.
        improved = error < self.best * (1.0 - self._schedule.improvement)
        self.best = torch.where(improved, error, self.best)
        # One member's progress keeps all going; those that have stopped improving keep their snapshots.
        self.stale_epochs = 0 if bool(improved.any()) else self.stale_epochs + 1
        for snapshot, parameter in zip(self.snapshots, self._parameters, strict=True):
            rows = improved.view(-1, *[1] * (parameter.dim() - 1))
            snapshot.copy_(torch.where(rows, parameter.detach(), snapshot))

    def _check_finite(self, loss: Tensor, error: Tensor) -> None:
        is_bad = ~(torch.isfinite(loss) & torch.isfinite(error))
        if not bool(is_bad.any()):
            return
        members = ", ".join(str(int(member)) for member in is_bad.nonzero())
        inputs, targets = self._arrays.inputs, self._arrays.targets
        cause = (
            f"the step size {self._schedule.learning_rate:g} is too large for these data"
            if bool(torch.isfinite(inputs).all()) and bool(torch.isfinite(targets).all())
            else "the training rows hold NaN or infinite values"
        )
        raise NonFiniteError(
            f"dynamics fit, update {self.updates}: the loss of member(s) {members} is not finite; {cause}. "
            "Remedy: inspect the dataset, then lower dynamics.learning_rate."
        )

    def _draw_bootstrap(self) -> Int[Tensor, "e n"]:
        # n of n rows with replacement: a member sees 1 - 1/e = 63 % of the rows (Breiman 1996).
        rows = self._arrays.inputs.shape[0]
        generator = self._rng.at("bootstrap")
        return torch.randint(rows, (self._members, rows), generator=generator, device=generator.device)

    def _pass_order(self, number: int) -> Int[Tensor, "u e b"]:
        """Rows of every batch in one pass; rows that fill no batch wait for the next pass."""
        rows = self._arrays.inputs.shape[0]
        generator = self._rng.at("shuffle", number)
        device = generator.device
        orders = [torch.randperm(rows, generator=generator, device=device) for _ in range(self._members)]
        order = torch.stack(orders)
        if self._bootstrap is not None:
            order = self._bootstrap.gather(1, order)
        # `[e, n]` to `[updates, e, batch]`: one gather then fetches the batches of several updates.
        updates = rows // self._batch
        order = order[:, : updates * self._batch].view(self._members, updates, self._batch)
        return order.transpose(0, 1).contiguous()

    def _batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start .. stop - 1` of the endless stream of passes."""
        length = self._arrays.inputs.shape[0] // self._batch
        while start < stop:
            number, offset = divmod(start, length)  # a pass, and how far into it: resumes need no cursor
            end = min(length, offset + stop - start)
            order = self._pass_order(number)[offset:end]
            for first in range(0, len(order), _BLOCK_UPDATES):
                block = order[first : first + _BLOCK_UPDATES]
                shape = (*block.shape, -1)
                inputs = self._arrays.inputs.index_select(0, block.flatten()).view(shape)
                targets = self._arrays.targets.index_select(0, block.flatten()).view(shape)
                yield from zip(inputs, targets, strict=True)
            start += end - offset
