"""`python -m mbrl.cli` is `mbrl`."""

from mbrl.cli.app import main

main()
