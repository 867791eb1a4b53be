"""Measures speed against the machine's own limit and against other libraries."""
