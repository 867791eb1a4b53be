"""Forwards to `mbrl train`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("train")
