"""Forwards to `mbrl plan`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("plan")
