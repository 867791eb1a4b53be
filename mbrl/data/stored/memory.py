"""How much may be loaded at once: an error that names the size instead of a kernel that ends the process."""

from typing import Final

from mbrl.core.errors import DataError
from mbrl.data.formats.limits import free_memory, show_bytes

_FREE_SHARE: Final = 0.9
"""Share of the free memory that one array may take."""


def require_memory(needed: int, what: str) -> None:
    """Refuses to load what does not fit.

    Args:
        needed: bytes.
        what: is loaded, the beginning of a sentence.

    Raises:
        DataError: less than that is free.
    """
    free = free_memory()
    if free is not None and needed > _FREE_SHARE * free:
        raise DataError(
            f"{what} takes {show_bytes(needed)} of memory at once, and {show_bytes(free)} are free",
            remedy="Train a model-free algorithm (iql, td3_bc, cql, bc), which reads a mapped dataset row by "
            "row; or use some of the episodes (mbrl.load(path).select(...)), or a machine with more memory.",
        )
