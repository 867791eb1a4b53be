"""The tables of a benchmark of off-policy estimators."""
