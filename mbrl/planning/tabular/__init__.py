"""Policies that are planned once for all states of a table."""
