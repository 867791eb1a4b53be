"""Where the files that travel with the package are found; paths only, nothing is read."""

from pathlib import Path
from typing import Final

from mbrl.core.errors import ConfigError

PACKAGE: Final = Path(__file__).resolve().parents[1]
"""Folder of the package itself."""


def configs_dir() -> Path:
    """Folder of the shipped yaml configs: inside an installed wheel, else beside the package in a clone.

    Raises:
        ConfigError: neither place exists.
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"The shipped configs are missing: there is no folder configs in {PACKAGE} or {PACKAGE.parent}. "
        "Remedy: install the package again."
    )


def assets_dir() -> Path:
    """Folder of the shipped binary assets: behaviour checkpoints and the bundled dataset."""
    return PACKAGE / "assets"
