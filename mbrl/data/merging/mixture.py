"""In which shares a batch is drawn from the sources of its rows."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.merging.merge import Source, episode_sources, sources_of
from mbrl.ops.shares import mixture_counts


def weighted_sources(dataset: Dataset, weights: Sequence[float]) -> tuple[Source, ...]:
    """The sources that weights are given for.

    Raises:
        ConfigError: there are fewer sources than weights, or more.
    """
    sources = sources_of(dataset)
    if len(sources) != len(weights):
        found = ", ".join(f"{source.name!r}" for source in sources) or "one dataset, not merged"
        raise ConfigError(
            f"weights: {len(weights)} are given for {len(sources) or 1} sources ({found}). Remedy: one "
            "weight for each source, in this order; mbrl train A B --weights 1 3."
        )
    return sources


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SourceMixture:
    """The source of every row, and the share of each source in a batch.

    Attributes:
        source: `[n]` int64, 0 to the number of sources - 1.
        shares: of each source, positive; they add up to 1.
        names: of the sources, for messages.
    """

    source: Int[Tensor, "n"]
    shares: tuple[float, ...]
    names: tuple[str, ...]

    @classmethod
    def of(
        cls, dataset: Dataset, weights: Sequence[float], *, whole: Dataset | None = None
    ) -> "SourceMixture":
        """The mixture of the rows of a dataset.

        Args:
            dataset: whose steps are drawn: a merged dataset, or a part of one.
            weights: one for each source, positive, in any unit: 1 and 3 are a quarter and three quarters.
            whole: the merged dataset that `dataset` is a part of; None for itself.

        Raises:
            ConfigError: see `weighted_sources`; or one of them gave no rows.
        """
        sources = weighted_sources(whole or dataset, weights)
        numbers = np.repeat(episode_sources(dataset), dataset.episode_lengths)
        present = np.bincount(numbers, minlength=len(sources))
        if not present.all():
            name = sources[int(present.argmin())].name
            raise ConfigError(f"weights: no row of {name!r} is left to be drawn. Remedy: leave it out.")
        total = sum(weights)
        return cls(
            torch.from_numpy(numbers),
            tuple(weight / total for weight in weights),
            tuple(source.name for source in sources),
        )

    def describe(self) -> str:
        """What a batch is made of, a sentence."""
        parts = [f"{share:.0%} from {name!r}" for share, name in zip(self.shares, self.names, strict=True)]
        return f"Logged rows are drawn {', '.join(parts)}."

    def take(self, rows: Int[Tensor, "k"]) -> "SourceMixture":
        """That of some of the rows."""
        return dataclasses.replace(self, source=self.source[rows])


class MixedDraws:
    """Rows of a batch by the shares of their sources: a fixed count of each, uniform within it.

    Args:
        mixture: of the rows.

    Raises:
        ConfigError: a source has no rows.
    """

    def __init__(self, mixture: SourceMixture) -> None:
        counted = torch.bincount(mixture.source, minlength=len(mixture.shares))
        self._sizes = tuple(int(size) for size in counted)
        for name, size in zip(mixture.names, self._sizes, strict=True):
            if size == 0:
                raise ConfigError(
                    f"weights: no row of {name!r} is left to be drawn. Remedy: leave it out, or keep more "
                    "episodes (algorithm.best_fraction)."
                )
        self._shares, self._names = mixture.shares, mixture.names
        # Merged datasets lie one after the other: their rows are in order already.
        is_ordered = bool((mixture.source[1:] >= mixture.source[:-1]).all())
        self._order = None if is_ordered else torch.argsort(mixture.source, stable=True)

    def draw(self, batch_size: int, generator: torch.Generator) -> Int[Tensor, "b"]:
        """`[batch_size]` indices of rows, those of the first source first.

        Raises:
            ConfigError: the batch is so small that a source has no row in it.
        """
        drawn: list[Tensor] = []
        start = 0
        for size, count in zip(self._sizes, self.counts(batch_size), strict=True):
            index = torch.randint(size, (count,), generator=generator, device=generator.device)
            drawn.append(index + start)
            start += size
        index = torch.cat(drawn)
        return index if self._order is None else self._order.index_select(0, index)

    def counts(self, batch_size: int) -> list[int]:
        """Rows of each source in a batch (`mixture_counts`).

        Raises:
            ConfigError: see `draw`.
        """
        counts = mixture_counts(self._shares, batch_size)
        if 0 in counts:
            which = counts.index(0)
            raise ConfigError(
                f"weights: {self._names[which]!r} has a share of {self._shares[which]:.3g}, which is no row "
                f"of the {batch_size} logged ones of a batch. Remedy: a larger weight or learner.batch_size."
            )
        return counts


def draw_rows(
    count: int, batch_size: int, generator: torch.Generator, mixed: MixedDraws | None
) -> Int[Tensor, "b"]:
    """`[batch_size]` indices below `count`, with replacement: uniform, or by the shares of their sources."""
    if mixed is None:
        return torch.randint(count, (batch_size,), generator=generator, device=generator.device)
    return mixed.draw(batch_size, generator)
