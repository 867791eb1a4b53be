"""Learners that imitate demonstrations."""
