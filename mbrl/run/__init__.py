"""One run: its config, its stages (fit, train, evaluate), the loop, checkpoints, and the store."""
