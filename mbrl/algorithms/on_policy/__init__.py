"""Recipes whose learner sees the steps of its own policy alone."""
