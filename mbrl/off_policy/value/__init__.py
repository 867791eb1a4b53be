"""Values that are fitted to a log or imagined in a model."""
