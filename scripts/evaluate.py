"""Forwards to `mbrl evaluate`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("evaluate")
