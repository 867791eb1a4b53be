"""Forwards to `mbrl fit`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("fit")
