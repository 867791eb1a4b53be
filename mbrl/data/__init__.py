"""Logged episodes: containers, formats, checks, splits and sources of batches."""
