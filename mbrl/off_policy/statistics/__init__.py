"""Statistics of estimates: intervals, weights, resampled ensembles, distributions of returns."""
