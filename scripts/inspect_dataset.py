"""Forwards to `mbrl inspect`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("inspect")
