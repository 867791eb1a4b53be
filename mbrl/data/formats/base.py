"""What a format must be able to do, and the table of them."""

import abc
from pathlib import Path

from mbrl.core.registry import Registry
from mbrl.data.assemble import assemble
from mbrl.data.dataset import Dataset
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawLog


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
        """Writes `dataset` and returns what was written; an interrupted write leaves nothing at `path`.

        Raises:
            FileExistsError: `path` holds something already.
        """

    def read(self, path: Path, options: LoadOptions | None = None) -> Dataset:
        """Reads and checks.

        Raises:
            DataError: the file is damaged, or its content would make training wrong.
        """
        options = options or LoadOptions()
        return assemble(self.parse(path, options), options)


FORMATS: Registry[Format] = Registry("dataset format", "mbrl.data.formats")
