"""Forwards to `mbrl collect`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("collect")
