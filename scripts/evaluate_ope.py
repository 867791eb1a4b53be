"""Forwards to `mbrl ope`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("ope")
