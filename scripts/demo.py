"""Forwards to `mbrl demo`."""

from mbrl.cli import main

if __name__ == "__main__":
    main("demo")
