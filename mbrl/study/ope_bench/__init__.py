"""A benchmark of off-policy estimators on policies of known value."""
