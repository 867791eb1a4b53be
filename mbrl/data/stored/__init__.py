"""Steps that stay on disk: arrays that are read when they are used, and what may be loaded whole."""
