"""Observations that hold past frames and actions, and how many are worth it."""
