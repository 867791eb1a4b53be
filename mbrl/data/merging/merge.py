"""Several datasets of the same channels as one, with the source of every row."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.data.info import MAX_NAME, DatasetInfo
from mbrl.data.merging.agreement import find_differences
from mbrl.data.options import Origin

SOURCE_INFO: Final = "merge/source"
"""Info of `[T]` numbers: which of `sources_of` the episode comes from."""

SOURCES: Final = "sources"
"""Entry of the provenance that holds the sources, as JSON."""

_OWN: Final = ("obs_names", "act_names", "time_step", "task", "env_id", "max_episode_steps")
"""Facts that the merged dataset takes from the first that states them; all that do state the same."""


class Source(BaseModel):
    """A dataset that is a part of another.

    Attributes:
        name: what it is called.
        content_hash: of the whole of it.
        episodes: that it gave.
        transitions: their steps.
        derived_from: content hash of what it was itself made of, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    content_hash: str
    episodes: int
    transitions: int
    derived_from: str | None = None


_SOURCE_LIST: Final = TypeAdapter(tuple[Source, ...])


def merge_datasets(datasets: Sequence[Dataset], *, name: str | None = None) -> Dataset:
    """All episodes of several datasets, one dataset after the other; nothing is copied in memory.

    What it was made of stands in its provenance (`sources_of`), and in an info of every episode
    (`episode_sources`). A part that was merged itself brings its own sources.

    Args:
        datasets: two at least, of the same channels; none twice.
        name: of the result; None joins theirs by `+`.

    Raises:
        DataError: they differ in channels, units, spaces, bounds, rate, task, rules, history or in having
            rewards; or one is given twice. The field that differs is named.
    """
    if len(datasets) < 2:
        raise DataError(f"{len(datasets)} dataset is nothing to merge", remedy="Give two datasets or more.")
    _refuse_repetition(datasets)
    for other in datasets[1:]:
        for difference in find_differences(datasets[0], other):
            raise difference
    parts = [_parts_of(dataset) for dataset in datasets]
    sources = [source for part in parts for source in part]
    episodes: list[Episode] = []
    offset = 0
    for dataset, part in zip(datasets, parts, strict=True):
        numbers = _numbers(dataset, part) + offset
        episodes += [_tagged(e, int(k)) for e, k in zip(dataset.episodes, numbers, strict=True)]
        offset += len(part)
    dropped: Counter[str] = Counter()
    for dataset in datasets:
        dropped.update(dataset.dropped)
    return Dataset(
        episodes=tuple(episodes),
        spec=datasets[0].spec,
        info=_info(datasets, sources, name),
        dropped=dict(dropped),
        origin=_origin(datasets),
    )


def sources_of(dataset: Dataset) -> tuple[Source, ...]:
    """The datasets that one was merged from, in the order of their numbers; none for any other.

    Raises:
        DataError: the provenance names sources in a form that cannot be read.
    """
    text = dataset.info.provenance.get(SOURCES)
    if text is None or any(SOURCE_INFO not in episode.infos for episode in dataset.episodes):
        return ()
    try:
        return _SOURCE_LIST.validate_json(text)
    except ValidationError as error:
        raise DataError(
            f"the sources of {dataset.info.name!r} cannot be read ({error.errors()[0]['msg']})",
            field=f"provenance.{SOURCES}",
            remedy="Merge the datasets again (mbrl merge).",
        ) from error


def episode_sources(dataset: Dataset) -> NDArray[np.int64]:
    """`[episodes]`, the number of the source of each in `sources_of`.

    Raises:
        DataError: an episode names a source that there is not.
    """
    count = len(sources_of(dataset))
    found = np.array([int(e.infos[SOURCE_INFO][0]) for e in dataset.episodes], dtype=np.int64)
    wrong = np.flatnonzero((found < 0) | (found >= count))
    if len(wrong):
        raise DataError(
            f"source {found[wrong[0]]}, where there are {count}",
            episode=int(wrong[0]),
            field=f"infos/{SOURCE_INFO}",
            remedy="Merge the datasets again (mbrl merge).",
        )
    return found


def sources_digest(dataset: Dataset) -> str:
    """Hex digest of which episode comes from which source, by the contents of both."""
    hashes = [source.content_hash for source in sources_of(dataset)]
    text = json.dumps([hashes, episode_sources(dataset).tolist(), dataset.episode_lengths.tolist()])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _refuse_repetition(datasets: Sequence[Dataset]) -> None:
    seen: dict[str, str] = {}
    for dataset in datasets:
        for source in _parts_of(dataset):
            if source.content_hash in seen:
                raise DataError(
                    f"{seen[source.content_hash]!r} and {source.name!r} have the same content, so every step "
                    "would count twice",
                    field="content_hash",
                    remedy="Leave one of them out.",
                )
            seen[source.content_hash] = source.name


def _parts_of(dataset: Dataset) -> tuple[Source, ...]:
    """The sources of a dataset that was merged; else itself as the only one."""
    own = Source(
        name=dataset.info.name,
        content_hash=dataset.content_hash,
        episodes=len(dataset),
        transitions=dataset.num_transitions,
        derived_from=dataset.info.derived_from,
    )
    return sources_of(dataset) or (own,)


def _numbers(dataset: Dataset, parts: Sequence[Source]) -> NDArray[np.int64]:
    return np.zeros(len(dataset), dtype=np.int64) if len(parts) == 1 else episode_sources(dataset)


def _tagged(episode: Episode, number: int) -> Episode:
    """The episode with its source; the number takes no memory, however long the episode is."""
    tag: NDArray[Any] = np.broadcast_to(np.int32(number), (len(episode),))
    return dataclasses.replace(episode, infos={**episode.infos, SOURCE_INFO: tag})


def _info(datasets: Sequence[Dataset], sources: Sequence[Source], name: str | None) -> DatasetInfo:
    infos = [dataset.info for dataset in datasets]
    stated: dict[str, Any] = {}
    for field in (*_OWN, "ref_min_score", "ref_max_score"):
        stated[field] = next((v for info in infos if (v := getattr(info, field)) is not None), None)
    listed = _SOURCE_LIST.dump_json(tuple(sources), exclude_none=True).decode()
    return DatasetInfo(
        name=name or _joined([info.name for info in infos]),
        provenance={**_common([info.provenance for info in infos]), SOURCES: listed},
        schema=infos[0].schema if len({info.schema for info in infos}) == 1 else None,
        reward_rule=infos[0].reward_rule,
        termination_rule=infos[0].termination_rule,
        history=infos[0].history,
        **stated,
    )


def _joined(names: Sequence[str]) -> str:
    text = "+".join(names)
    return text if len(text) <= MAX_NAME else f"{len(names)} datasets"


def _common(entries: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What all say alike."""
    first, *others = entries
    return {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}


def _origin(datasets: Sequence[Dataset]) -> Origin | None:
    """What opens all of them again and merges them; None if one of them was made in memory."""
    origins = [dataset.origin for dataset in datasets]
    known = [origin for origin in origins if origin is not None and isinstance(origin.source, str)]
    if len(known) < len(origins) or any(origin.options != known[0].options for origin in known):
        return None
    return Origin(tuple(str(origin.source) for origin in known), known[0].options)
