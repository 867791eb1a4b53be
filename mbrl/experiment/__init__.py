"""One run and many runs: configs, the loop, checkpoints, the run store, stages."""
