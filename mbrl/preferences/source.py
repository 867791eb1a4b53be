"""Batches of a direct method: logged steps to clone, and answered pairs to contrast."""

import dataclasses

import torch
from torch import Tensor

from mbrl.core.types import StateDict, TransitionBatch
from mbrl.data.sources import DatasetSource
from mbrl.preferences.segments import PairBatch, SegmentPairs


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceBatch(TransitionBatch):
    """Logged transitions, and answered pairs of segments beside them.

    Attributes:
        pairs: as many as the source was told, whatever the number of transitions.
    """

    pairs: PairBatch


class PreferenceSource:
    """Uniform draws with replacement: transitions from the log, pairs from the answers.

    Args:
        data: `[n]` logged transitions.
        pairs: answered pairs of the same log.
        count: of pairs in a batch.

    Raises:
        ValueError: there are no transitions or no pairs.
    """

    def __init__(self, data: TransitionBatch, pairs: SegmentPairs, count: int) -> None:
        if len(pairs) == 0:
            raise ValueError("a source of preferences needs at least one answered pair")
        self._steps, self._pairs, self._count = DatasetSource(data), pairs, count

    def sample(self, batch_size: int, generator: torch.Generator) -> PreferenceBatch:
        """Draws `batch_size` transitions, then the pairs."""
        steps = self._steps.sample(batch_size, generator)
        index = torch.randint(len(self._pairs), (self._count,), generator=generator, device=generator.device)
        fields: dict[str, Tensor | None] = {
            field.name: getattr(steps, field.name) for field in dataclasses.fields(TransitionBatch)
        }
        return PreferenceBatch(**fields, pairs=self._pairs.batch(index))  # pyright: ignore[reportArgumentType]

    def state_dict(self) -> StateDict:
        """Nothing: neither log nor answers change."""
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Accepts what `state_dict` gave."""
        if state:
            raise ValueError(f"a source of preferences has no state, got {sorted(state)}")
