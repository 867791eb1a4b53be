"""The `mbrl` command: parses, calls `mbrl`, prints."""

from mbrl.cli.app import main

__all__ = ["main"]
