"""Policy-optimisation backends: one file each, found by the registry."""
