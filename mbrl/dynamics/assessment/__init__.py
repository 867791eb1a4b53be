"""Judges a fitted model on held-out episodes: errors, calibration, thresholds, warnings."""
