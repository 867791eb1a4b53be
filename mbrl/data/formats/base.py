"""What a format must be able to do, and the table of them."""

import abc
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.choices import outer_actions
from mbrl.core.errors import DataError
from mbrl.core.registry import Registry
from mbrl.core.types import SpaceSpec
from mbrl.data.assemble import assemble
from mbrl.data.dataset import Dataset
from mbrl.data.flat import LOG_PROB
from mbrl.data.formats.limits import reading
from mbrl.data.options import LoadOptions
from mbrl.data.raw import AnyArray, RawLog

SPLIT: Final = "split/"
"""Prefix of infos `[T]` that say whether an episode belongs to a split of the file: `split/train`, ..."""


class Format(abc.ABC):
    """One way of storing episodes on disk."""

    @abc.abstractmethod
    def sniff(self, path: Path) -> str | None:
        """Returns None if this format can read `path`, else why it refuses."""

    @abc.abstractmethod
    def parse(self, path: Path, options: LoadOptions) -> RawLog:
        """Reads arrays as they stand, unchecked.

        Raises:
            DataError: the file is damaged, or lacks what the format prescribes.
        """

    @abc.abstractmethod
    def write(self, dataset: Dataset, path: Path) -> Path:
        """Writes `dataset` and returns what was written; a write that fails leaves nothing behind.

        Raises:
            FileExistsError: `path` holds something already.
            DataError: the disk is full, or the folder cannot be written to.
        """

    def refuse(self, path: Path) -> str | None:
        """As `sniff`, whatever is at `path`.

        Raises:
            DataError: it cannot be looked into.
        """
        with reading(path):
            return self.sniff(path)

    def load(self, path: Path, options: LoadOptions) -> RawLog:
        """As `parse`, whatever the file holds: all that its content can cause is an error that names it.

        Raises:
            DataError: the file is damaged, or lacks what the format prescribes.
        """
        with reading(path):
            return self.parse(path, options)

    def read(self, path: Path, options: LoadOptions | None = None) -> Dataset:
        """Reads and checks.

        Raises:
            DataError: the file is damaged, or its content would make training wrong.
        """
        options = options or LoadOptions()
        return assemble(self.load(path, options), options)


class ReadOnlyFormat(Format):
    """A format of others that cannot hold a whole dataset, or that nobody would read from us."""

    def write(self, dataset: Dataset, path: Path) -> Path:
        """Refuses.

        Raises:
            FileExistsError: `path` holds something already.
            DataError: always else.
        """
        del dataset
        if path.exists():
            raise FileExistsError(f"{path} exists already. Remedy: give another name, or remove it.")
        raise DataError(
            "this format is read, not written",
            file=path,
            remedy="Write minari, d4rl, npz or flat_npz (mbrl import PATH --to minari --out FOLDER).",
        )


def only_file(path: Path, suffixes: tuple[str, ...]) -> Path | None:
    """`path` itself if it is a file, else the only file with one of `suffixes` in that folder, else None."""
    if path.is_file():
        return path
    files = [entry for entry in path.iterdir() if entry.suffix in suffixes] if path.is_dir() else []
    return files[0] if len(files) == 1 else None


def behaviour_log_probs(dataset: Dataset) -> NDArray[np.float32] | None:
    """`[n]` log-probabilities of a dataset, or None where no episode has them.

    Raises:
        DataError: some episodes have them and some have not, which flat formats cannot hold.
    """
    known = [episode.behaviour_log_prob for episode in dataset.episodes]
    present = [values for values in known if values is not None]
    if not present:
        return None
    if len(present) < len(known):
        raise DataError(
            f"{len(known) - len(present)} of {len(known)} episodes lack behaviour log-probabilities",
            field="behaviour_log_prob",
            remedy="Write Minari, or select the episodes that have them.",
        )
    return np.concatenate(present)


def stored_actions(actions: NDArray[np.float32], spec: SpaceSpec) -> AnyArray:
    """Actions as files hold them: choices by their ids (`mbrl.core.choices`), others as they are."""
    return actions if spec.choices is None else outer_actions(actions, spec.choices)


def common_infos(dataset: Dataset) -> tuple[str, ...]:
    """Names of the infos that every episode has, sorted."""
    first, *others = (set(episode.infos) for episode in dataset.episodes)
    return tuple(sorted(first.intersection(*others)))


def flat_rows(dataset: Dataset) -> tuple[dict[str, AnyArray], dict[str, AnyArray]]:
    """The steps of a dataset as flat layouts hold them: arrays of N rows by name, and infos likewise.

    Successors are the true ones. There is no place for time stamps, nor for the last row of infos of T + 1.

    Raises:
        DataError: see `behaviour_log_probs`.
    """
    rows, log_probs = dataset.transitions(), behaviour_log_probs(dataset)
    arrays: dict[str, AnyArray] = {
        "observations": rows.observation,
        "actions": stored_actions(rows.action, dataset.spec),
        "rewards": rows.reward,
        "next_observations": rows.next_observation,
        "terminals": rows.terminated,
        "timeouts": rows.truncated,
        "is_successor_known": rows.is_successor_known,
    }
    infos: dict[str, AnyArray] = {} if log_probs is None else {LOG_PROB: log_probs}
    for name in common_infos(dataset):
        infos[name] = np.concatenate([episode.infos[name][: len(episode)] for episode in dataset.episodes])
    return arrays, infos


FORMATS: Registry[Format] = Registry(
    "dataset format",
    "mbrl.data.formats",
    group="mbrl.formats",
    spelling='mbrl.registry("formats")',
    needs=("sniff", "parse", "read", "write"),
)
