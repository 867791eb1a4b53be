"""Planning in a learned model at decision time: tree search and trajectory optimisation, batched."""
