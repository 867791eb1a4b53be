"""Where the files that travel with the package are found; paths only, nothing is read."""

from pathlib import Path

from mbrl.core.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def configs_dir() -> Path:
    """Folder of the shipped yaml configs: inside an installed wheel, else beside the package in a clone.

    Raises:
        ConfigError: neither place exists.
    """
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"The shipped configs are missing: there is no folder configs in {_PACKAGE} or {_PACKAGE.parent}. "
        "Remedy: install the package again."
    )


def assets_dir() -> Path:
    """Folder of the shipped binary assets: behaviour checkpoints and the bundled dataset."""
    return _PACKAGE / "assets"
