"""Distributional shift: what a policy does outside of its data."""
