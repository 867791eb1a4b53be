"""Forwards to `mbrl compare`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("compare")
