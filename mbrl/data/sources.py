"""Where batches come from: a dataset, a ring of imagined transitions, a mixture, a policy's own newest steps.

Rows are packed `[n, 2 obs_dim + 2 act_dim + 3]`, and twice act_dim more with masks, so a batch is one
`index_select`.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from mbrl.core.device import on_device
from mbrl.core.protocols import BatchSource
from mbrl.core.types import DemonstrationBatch, OnPolicyBatch, StateDict, TransitionBatch, concat, take
from mbrl.data.merging.mixture import MixedDraws, SourceMixture, draw_rows
from mbrl.ops.shares import mixture_counts


@dataclasses.dataclass(frozen=True, slots=True)
class RowLayout:
    """Columns of a packed row: observation, action, next observation, next action, masks, reward, two flags.

    Attributes:
        obs_dim: size of an observation.
        act_dim: size of an action.
        has_masks: whether rows hold the masks of choices in both states.
    """

    obs_dim: int
    act_dim: int
    has_masks: bool = False

    @property
    def width(self) -> int:
        """Columns in all."""
        return 2 * self.obs_dim + (4 if self.has_masks else 2) * self.act_dim + 3

    def pack(self, batch: TransitionBatch) -> Tensor:
        """`[b, width]` float32; what lacks next actions is packed as having none, masks as allowing all."""
        next_action, has_next_action = batch.next_action, batch.has_next_action
        if next_action is None or has_next_action is None:
            next_action, has_next_action = torch.zeros_like(batch.action), torch.zeros_like(batch.terminated)
        numbers = [
            batch.reward,
            *(flag.to(batch.reward.dtype) for flag in (batch.terminated, has_next_action)),
        ]
        vectors = [batch.observation, batch.action, batch.next_observation, next_action]
        if self.has_masks:
            for mask in (batch.action_mask, batch.next_action_mask):
                vectors.append(torch.ones_like(batch.action) if mask is None else mask.to(batch.action.dtype))
        return torch.cat([*vectors, torch.stack(numbers, -1)], -1)

    def unpack(self, rows: Tensor, *, from_model: bool) -> TransitionBatch:
        """Views on `[b, width]` rows."""
        o, a = self.obs_dim, self.act_dim
        masks = [a, a] if self.has_masks else []
        obs, action, next_obs, next_action, *allowed, numbers = torch.split(rows, [o, a, o, a, *masks, 3], -1)
        mask, next_mask = (part > 0.5 for part in allowed) if self.has_masks else (None, None)
        reward, terminated, has_next_action = numbers.unbind(-1)
        terminated = terminated > 0.5
        provenance = torch.full_like(terminated, from_model)
        return TransitionBatch(
            observation=obs,
            action=action,
            reward=reward,
            next_observation=next_obs,
            terminated=terminated,
            from_model=provenance,
            next_action=next_action,
            has_next_action=has_next_action > 0.5,
            action_mask=mask,
            next_action_mask=next_mask,
        )


class DatasetSource:
    """Draws with replacement from fixed transitions, uniform or in shares of their sources.

    Args:
        data: `[n]` transitions, kept as a packed copy.
        mixture: sources of these rows and their shares in a batch; None draws all rows alike.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, data: TransitionBatch, mixture: SourceMixture | None = None) -> None:
        if len(data) == 0:
            raise ValueError("a source needs at least one transition")
        has_masks = data.action_mask is not None or data.next_action_mask is not None
        self.layout = RowLayout(data.observation.shape[-1], data.action.shape[-1], has_masks)
        self._rows = self.layout.pack(data).contiguous()
        self._mixed = None if mixture is None else MixedDraws(mixture)

    def __len__(self) -> int:
        return self._rows.shape[0]

    def sample(self, batch_size: int, generator: torch.Generator) -> TransitionBatch:
        """Draws `batch_size` transitions."""
        index = draw_rows(len(self), batch_size, generator, self._mixed)
        return self.layout.unpack(self._rows.index_select(0, index), from_model=False)

    def state_dict(self) -> StateDict:
        """Nothing: the data never change."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Accepts what `state_dict` gave."""
        if state:
            raise ValueError(f"a dataset source has no state, got {sorted(state)}")


class ModelBuffer:
    """Ring of the newest transitions, the oldest overwritten first.

    Args:
        capacity: rows kept; after more pushes exactly the last `capacity` rows remain.
        layout: columns of a row.
        from_model: provenance of the rows; False for a replay buffer of real experience.
    """

    def __init__(self, capacity: int, layout: RowLayout, *, from_model: bool = True) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be positive, got {capacity}")
        self.layout, self.capacity, self._from_model = layout, capacity, from_model
        self._rows = torch.empty(capacity, layout.width)
        self._pushed_at = torch.zeros(capacity, dtype=torch.int64)
        self._pushes = 0
        self._cursor = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def mean_age(self) -> float:
        """Mean number of pushes since a row was written."""
        if self._size == 0:
            return 0.0
        return self._pushes - float(self._pushed_at[: self._size].double().mean())

    def push(self, batch: TransitionBatch) -> None:
        """Appends; of a batch beyond the capacity only the last rows are kept."""
        rows = self.layout.pack(batch)[-self.capacity :]
        self._pushes += 1
        first = min(len(rows), self.capacity - self._cursor)
        for start, part in ((self._cursor, rows[:first]), (0, rows[first:])):
            self._rows[start : start + len(part)] = part
            self._pushed_at[start : start + len(part)] = self._pushes
        self._cursor = (self._cursor + len(rows)) % self.capacity
        self._size = min(self._size + len(rows), self.capacity)

    def sample(self, batch_size: int, generator: torch.Generator) -> TransitionBatch:
        """Draws `batch_size` transitions from the rows written so far.

        Raises:
            RuntimeError: nothing was pushed yet.
        """
        if self._size == 0:
            raise RuntimeError("the buffer is empty: push before the first sample")
        index = torch.randint(self._size, (batch_size,), generator=generator, device=generator.device)
        return self.layout.unpack(self._rows.index_select(0, index), from_model=self._from_model)

    def state_dict(self) -> StateDict:
        """The written rows and the ring's counters."""
        return {
            "rows": self._rows[: self._size].clone(),
            "pushed_at": self._pushed_at[: self._size].clone(),
            "counters": {"pushes": self._pushes, "cursor": self._cursor, "size": self._size},
        }

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`.

        Raises:
            ValueError: the state is that of a buffer of another capacity or of other rows.
        """
        counters: dict[str, int] = state["counters"]
        pushes, cursor, size = counters["pushes"], counters["cursor"], counters["size"]
        if not 0 <= cursor < self.capacity or size < 0 or state["rows"].shape != (size, self.layout.width):
            raise ValueError(f"a ring of {size} rows at row {cursor} holds {list(state['rows'].shape)}")
        if size > self.capacity or (size < self.capacity and cursor != size):
            raise ValueError(
                f"a ring of {size} rows at row {cursor} does not fit a capacity of {self.capacity}"
            )
        self._pushes, self._cursor, self._size = pushes, cursor, size
        self._rows[: self._size] = state["rows"]
        self._pushed_at[: self._size] = state["pushed_at"]


class MixtureSource:
    """Fixed shares of several sources in every batch.

    Args:
        parts: sources with their shares, which add up to 1. A part whose rounded count is 0 is never touched.
    """

    def __init__(self, parts: Sequence[tuple[BatchSource, float]]) -> None:
        total = sum(share for _, share in parts)
        if abs(total - 1) > 1e-9 or any(share < 0 for _, share in parts):
            raise ValueError(f"shares must be non-negative and add up to 1, got {[s for _, s in parts]}")
        self._parts = tuple(parts)

    def counts(self, batch_size: int) -> list[int]:
        """Rows from each part, see `mixture_counts`."""
        return mixture_counts([share for _, share in self._parts], batch_size)

    def sample(self, batch_size: int, generator: torch.Generator) -> TransitionBatch:
        """Draws every part's count, in order."""
        draws = zip(self._parts, self.counts(batch_size), strict=True)
        return concat([part.sample(count, generator) for (part, _), count in draws if count > 0])

    def state_dict(self) -> StateDict:
        """State of every part, by position."""
        return {str(k): part.state_dict() for k, (part, _) in enumerate(self._parts)}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        for k, (part, _) in enumerate(self._parts):
            part.load_state_dict(state[str(k)])


class LoggedFirst:
    """Logged rows until something was imagined, a mixture of both from then on.

    Args:
        logged: whole batches at first.
        imagined: empty until imagination begins; a part of `mixture`.
        mixture: of both.
    """

    def __init__(self, logged: DatasetSource, imagined: ModelBuffer, mixture: MixtureSource) -> None:
        self._logged, self._imagined, self._mixture = logged, imagined, mixture

    def sample(self, batch_size: int, generator: torch.Generator) -> TransitionBatch:
        """Draws from the one that it is time for."""
        source = self._logged if len(self._imagined) == 0 else self._mixture
        return source.sample(batch_size, generator)

    def state_dict(self) -> StateDict:
        """That of the mixture, which holds both."""
        return self._mixture.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._mixture.load_state_dict(state)


def imagined_rows(batch: TransitionBatch, real_ratio: float, batch_size: int) -> Int[Tensor, "k"]:
    """Which rows of a batch are imagined, in order, without asking a card how many there are.

    Args:
        batch: of a `MixtureSource`, or any other.
        real_ratio: share of logged rows in the mixture.
        batch_size: of the mixture; a batch of another size is asked.
    """
    if len(batch) != batch_size:
        return batch.from_model.nonzero().squeeze(-1)
    # The mixture fixes how many there are.
    count = mixture_counts([real_ratio, 1 - real_ratio], batch_size)[1]
    return torch.argsort(batch.from_model.byte(), descending=True, stable=True)[:count]


class DemonstrationSource:
    """Batches of another source with demonstrated steps and start states beside them, drawn with replacement.

    Args:
        source: of the steps of whoever acted.
        expert: `[n]` demonstrated steps; their rewards are hidden.
        initial: `[m, obs_dim]` states where episodes of the task start.
        count: demonstrated steps, and start states, in a batch.

    Raises:
        ValueError: there are no demonstrated steps or no start states.
    """

    def __init__(self, source: BatchSource, expert: TransitionBatch, initial: Tensor, count: int) -> None:
        if len(initial) == 0:
            raise ValueError("a source of demonstrations needs at least one start state")
        # 0, not NaN: nothing is to be learned from them, and nothing to be spoilt by them.
        hidden = dataclasses.replace(expert, reward=torch.zeros_like(expert.reward))
        self._source, self._expert = source, DatasetSource(hidden)
        self._initial, self._count = initial, count

    def sample(self, batch_size: int, generator: torch.Generator) -> DemonstrationBatch:
        """Draws the other source's `batch_size` steps, then those of the expert, then start states."""
        rows = self._source.sample(batch_size, generator)
        expert = self._expert.sample(self._count, generator)
        index = torch.randint(
            len(self._initial), (self._count,), generator=generator, device=generator.device
        )
        known = {field.name: getattr(rows, field.name) for field in dataclasses.fields(TransitionBatch)}
        return DemonstrationBatch(**known, expert=expert, initial_observation=self._initial[index])

    def state_dict(self) -> StateDict:
        """Of the other source: demonstrations never change."""
        return self._source.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`."""
        self._source.load_state_dict(state)


class OnPolicySource:
    """Minibatches of a policy's newest steps: each step once before any comes again, in a fresh order."""

    def __init__(self) -> None:
        self._steps: OnPolicyBatch | None = None
        self._order = torch.empty(0, dtype=torch.int64)
        self._cursor = 0

    def __len__(self) -> int:
        return 0 if self._steps is None else len(self._steps)

    def replace(self, steps: OnPolicyBatch) -> None:
        """Forgets all steps and takes these, `[n]` of them."""
        order = torch.empty(0, dtype=torch.int64, device=steps.reward.device)
        self._steps, self._order, self._cursor = steps, order, 0

    def sample(self, batch_size: int, generator: torch.Generator) -> OnPolicyBatch:
        """The next `batch_size` steps of the order, or all where there are fewer; what is left over waits.

        Raises:
            RuntimeError: there are no steps.
        """
        if self._steps is None or len(self) == 0:
            raise RuntimeError("there are no steps of the policy: refresh before the first sample")
        if self._steps.reward.device != generator.device:  # out of a checkpoint
            self._steps, self._order = on_device((self._steps, self._order), generator.device)
        size = min(batch_size, len(self))
        if self._cursor + size > len(self._order):
            self._order = torch.randperm(len(self), generator=generator, device=generator.device)
            self._cursor = 0
        rows = self._order[self._cursor : self._cursor + size]
        self._cursor += size
        return take(self._steps, rows)

    def state_dict(self) -> StateDict:
        """The steps and the place in their order."""
        steps = {} if self._steps is None else dataclasses.asdict(self._steps)
        held = {name: values.clone() for name, values in steps.items() if values is not None}
        return {"steps": held, "order": self._order.clone(), "cursor": self._cursor}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`.

        Raises:
            ValueError: the order is not one of these steps.
        """
        steps = OnPolicyBatch(**state["steps"]) if state["steps"] else None
        order, cursor = state["order"], state["cursor"]
        known = (0,) if steps is None else (0, len(steps))
        if len(order) not in known or not 0 <= cursor <= len(order):
            raise ValueError(f"place {cursor} of an order of {len(order)} steps, and there are {known[-1]}")
        self._steps, self._order, self._cursor = steps, order.clone(), cursor
