"""The `mbrl` command: parses, calls `mbrl.experiment`, prints."""

from mbrl.cli.app import main

__all__ = ["main"]
