"""Errors that a user can cause and can mend: what, where, what to do."""

import functools
from collections.abc import Callable
from typing import Final

_LONGEST: Final = 400


class MbrlError(Exception):
    """Base of every error whose message is meant for the user; the CLI prints it without a traceback.

    Example:
        >>> try:
        ...     mbrl.train("pendulum-mixed", "bcc")
        ... except mbrl.MbrlError as error:
        ...     print("Did you mean 'bc'" in str(error))
        True
    """


class ConfigError(MbrlError):
    """A config key, name or value that cannot be used.

    Example:
        >>> try:
        ...     mbrl.train("pendulum-mixed", "bc", updates=-1)
        ... except mbrl.ConfigError as error:
        ...     print("updates" in str(error))
        True
    """


class FileError(ConfigError):
    """A file of this package, or of its user, that cannot be used: unreadable, damaged or of another kind.

    Args:
        file: path of the file.
        problem: what is wrong, with the offending value.
        field: dotted name of the entry.
        remedy: what to do about it.
    """

    def __init__(self, file: object, problem: str, *, remedy: str, field: str | None = None) -> None:
        self.file, self.problem, self.field, self.remedy = file, problem, field, remedy
        where = f"{_shown(file)}, field {field}" if field else _shown(file)
        super().__init__(f"{where}: {problem.rstrip('.')}. Remedy: {remedy}")


class StorageError(MbrlError):
    """A file that cannot be written: no space, no permission, no such place.

    Args:
        file: path of the file.
        problem: what the system says.
        remedy: what to do about it.
    """

    def __init__(self, file: object, problem: str, *, remedy: str) -> None:
        self.file, self.problem, self.remedy = file, problem, remedy
        super().__init__(f"{_shown(file)} cannot be written: {problem}. Remedy: {remedy}")


def _shown(file: object) -> str:
    """A path in a message; of one that is too long its beginning and its end."""
    text = str(file)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"


class DataError(MbrlError):
    """A dataset that cannot be used for training.

    Args:
        problem: what is wrong, with the offending value.
        file: path of the file, if it came from one.
        episode: index or name of the episode.
        field: name of the array.
        row: first offending row in the episode.
        remedy: what to do about it.

    Example:
        >>> try:
        ...     mbrl.load("no/such/log.npz")
        ... except mbrl.DataError as error:
        ...     print("no/such/log.npz" in str(error))
        True
    """

    def __init__(
        self,
        problem: str,
        *,
        file: object | None = None,
        episode: int | str | None = None,
        field: str | None = None,
        row: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.file, self.episode = problem, file, episode
        self.field, self.row, self.remedy = field, row, remedy
        places = {"file": file, "episode": episode, "field": field, "row": row}
        where = ", ".join(f"{name} {value}" for name, value in places.items() if value is not None)
        message = f"{where}: {problem}" if where else problem
        super().__init__(f"{message} Remedy: {remedy}" if remedy else message)


class NonFiniteError(MbrlError):
    """A NaN or an infinity stopped a run."""


class DivergenceError(MbrlError):
    """Value estimates left the range that the rewards permit, and the config asked to stop."""


class EstimandError(MbrlError, ValueError):
    """A value that cannot be estimated as asked: the sum diverges, or the logs are too short for it."""


class EstimandMismatchError(EstimandError):
    """Estimates of different quantities were combined."""


class UndefinedRatioError(MbrlError):
    """A policy without a density was asked for a density ratio."""


class MissingExtraError(MbrlError):
    """An optional dependency is not installed.

    Args:
        package: the import that failed.
        extra: the extra of `mbrl-offline` that brings it.
        purpose: what it was needed for.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        self.package, self.extra, self.purpose = package, extra, purpose
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Remedy: pip install 'mbrl-offline[{extra}]'"
        )

    def __reduce__(self) -> tuple[Callable[..., "MissingExtraError"], tuple[str]]:
        # By default an exception is rebuilt from its message alone; here that would kill a pool of workers.
        rebuild = functools.partial(MissingExtraError, extra=self.extra, purpose=self.purpose)
        return rebuild, (self.package,)
